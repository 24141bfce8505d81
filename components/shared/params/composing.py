"""Composing `params.yaml` from the options in `conf/`, as `dvc exp run -S` does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from components.shared.artifacts import replace_file
from components.shared.errors import UserError, first_line
from components.shared.params import derived
from components.shared.params.explain import did_you_mean
from components.shared.params.schema import Params, validate_params

CONF = Path(__file__).resolve().parents[3] / "conf"
# groups that say where a pipeline runs, not what it computes: no part of params.yaml
APART = ("cluster",)
derived.register()


def compose_params(overrides: Sequence[str] = (), conf: Path = CONF) -> tuple[Params, dict[str, Any]]:
    """Compose the options and check the result.

    Args:
        overrides: such as `data=cifar10` (an option of a group) or `runtime.epochs=200` (one value).
        conf: the folder of configuration groups.

    Returns:
        The checked parameters, and the plain values to write to `params.yaml`.

    Raises:
        UserError: an override names no group, option or parameter, or its value is not allowed.
    """
    groups = options(conf)
    for override in overrides:
        _check_option(override, groups)
    values = compose_values("config", overrides, conf)
    return validate_params(values), values


def compose_settings(name: str, overrides: Sequence[str], conf: Path = CONF) -> dict[str, Any]:
    """Compose one option of a group that is apart, such as `cluster/default`; its names and values are not checked.

    Args:
        name: group and option.
        overrides: single values, dotted from the group's name; such as are not there yet are added.
        conf: the folder of configuration groups.

    Raises:
        UserError: an override is not of the grammar.
    """
    for override in overrides:
        _split(override)
    written = [override if override[0] in "+~" else f"++{override}" for override in overrides]
    return compose_values(name, written, conf)


def compose_values(name: str, overrides: Sequence[str], conf: Path = CONF, resolve: bool = True) -> dict[str, Any]:
    """Compose plain values, unchecked; raises as `compose_params`.

    Args:
        name: of the file below `conf`, without its ending.
        overrides: such as `data=cifar10`.
        conf: the folder of configuration groups.
        resolve: False leaves `${…}` and `???` as they stand in the files.
    """
    try:
        with initialize_config_dir(config_dir=str(conf.resolve()), version_base=None):
            values: Any = OmegaConf.to_container(hydra_compose(name, overrides=list(overrides)), resolve=resolve)
    except (HydraException, OmegaConfBaseException) as error:
        line = first_line(error)
        if refused := re.match("Could not override '(.+)'", line):
            choices = _choices(overrides, conf)
            # without what was refused
            known = _names(compose_values(name, choices, conf)) if len(choices) < len(overrides) else []
            meant = did_you_mean(refused[1], [*options(conf), *known])
            line = f"the chosen options have no parameter {refused[1]}{meant}; see conf/"
        elif missing := re.search(r"Missing mandatory value: (\S+)", line):
            line = f"{missing[1]} must be given; conf/ says what it is"
        raise UserError(f"{' '.join(overrides) or conf}: {line}") from None
    found: dict[str, Any] = values
    return found


def write_params(values: dict[str, Any], path: Path) -> None:
    """Write composed values as `params.yaml`, laid out as DVC does, so that git shows changed values only."""
    replace_file(path, yaml.safe_dump(values, sort_keys=False, allow_unicode=True).encode())


def options(conf: Path = CONF, every: bool = False) -> dict[str, list[str]]:
    """The groups of `conf/` and the options of each, such as {"data": ["cifar10", "sample", …], …}.

    Those of `APART` only with `every`.
    """
    return {
        group.name: sorted(file.stem for file in group.glob("[!_]*.yaml"))
        for group in sorted(conf.iterdir())
        if group.is_dir() and (every or group.name not in APART)
    }


def _split(override: str) -> tuple[str, str]:
    match = re.fullmatch(r"(?:\+\+|\+|~)?([\w.-]+)=(.*)", override, re.DOTALL)
    if match is None:
        raise UserError(f"{override!r}: write name=value, such as data=sample or runtime.epochs=20")
    return match[1], match[2]


def _check_option(override: str, groups: dict[str, list[str]]) -> None:
    """Refuse an option that its group does not have, with the closest one that it has."""
    name, value = _split(override)
    if name.partition(".")[0] in APART:
        raise UserError(f"{override}: says where a pipeline runs, which only its compilation for Kubeflow asks for")
    if name in groups and value not in groups[name]:
        known = groups[name]
        raise UserError(f"{override}: must be one of {', '.join(known)}{did_you_mean(value, known)}")


def _choices(overrides: Sequence[str], conf: Path) -> list[str]:
    """The overrides that choose an option of a group."""
    return [override for override in overrides if _split(override)[0] in options(conf)]


def _names(values: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of all values and of the groups they are in, such as `method` and `method.temperature`."""
    return [
        name
        for key, value in values.items()
        for name in (prefix + key, *(_names(value, f"{prefix}{key}.") if isinstance(value, dict) else ()))
    ]
