"""Composing `params.yaml` from the options in `conf/`, as `dvc exp run -S` does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from components.shared.errors import UserError
from components.shared.explain import did_you_mean, parameter_names
from components.shared.params import Params, validate_params

CONF = Path(__file__).resolve().parents[2] / "conf"


def compose(overrides: Sequence[str] = (), conf: Path = CONF) -> tuple[Params, dict[str, Any]]:
    """Compose the options and check the result.

    Args:
        overrides: such as `data=cifar10` (an option of a group) or `runtime.epochs=200` (one value).
        conf: the folder of configuration groups.

    Returns:
        The checked parameters, and the plain values to write to `params.yaml`.

    Raises:
        UserError: an override names no group, option or parameter, or its value is not allowed.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for override in overrides:
        _check_names(override, conf)
    try:
        with initialize_config_dir(config_dir=str(conf.resolve()), version_base=None):
            values: Any = OmegaConf.to_container(hydra_compose("config", overrides=list(overrides)), resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"{' '.join(overrides) or conf}: {_first_line(error)}") from None
    return validate_params(values), values


def write_params(values: dict[str, Any], path: Path) -> None:
    """Write composed values as `params.yaml`, laid out as DVC does, so that git shows changed values only."""
    path.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")


def options(conf: Path = CONF) -> dict[str, list[str]]:
    """The groups of `conf/` and the options of each, such as {"data": ["cifar10", "sample", …], …}."""
    return {
        group.name: sorted(file.stem for file in group.glob("*.yaml"))
        for group in sorted(conf.iterdir())
        if group.is_dir()
    }


def _check_names(override: str, conf: Path) -> None:
    """Refuse a group, option or parameter that does not exist, with the closest one that does."""
    match = re.fullmatch(r"(?:\+\+|\+|~)?([\w.-]+)=(.*)", override, re.DOTALL)
    if match is None:
        raise UserError(f"{override!r}: write name=value, such as data=sample or runtime.epochs=20")
    name, value = match.groups()
    groups = options(conf)
    if name in groups:
        if value not in groups[name]:
            known = groups[name]
            raise UserError(f"{override}: must be one of {', '.join(known)}{did_you_mean(value, known)}")
        return
    names = parameter_names(Params)
    if name not in names:
        raise UserError(f"{override}: no such parameter{did_you_mean(name, [*groups, *names])}; see conf/")


def _first_line(error: Exception) -> str:
    line = str(error).strip().splitlines()[0]
    if refused := re.match("Could not override '(.+)'", line):
        return f"the chosen options have no parameter {refused[1]}; see conf/"
    return line[:200]
