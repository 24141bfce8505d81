"""Which overrides a run was composed from, found from its values: whoever has them composes the same run again."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.types import Quote, QuotedString

from components.shared.errors import UserError
from components.shared.params.composing import CONF, compose_values, options

# the groups whose options are tried, in this order: a preset may make those before it superfluous
_GROUPS = ("data", "method", "encoder", "preset", "runtime", "gate", "optimizer", "augmentation", "validation")
# what needs no quotes, in lists and mappings too
_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./-]*")
_RESERVED = ("null", "true", "false", "nan", "inf")


def overrides_of(values: Mapping[str, Any], conf: Path = CONF) -> list[str] | None:
    """Few overrides from which `compose_params` makes exactly these values.

    Args:
        values: of a whole run, as `params.yaml` holds them.
        conf: the folder of configuration groups.

    Returns:
        Options of groups, such as `method=byol`, then single values; None where none make them, as of a file by
        hand that lacks a value.
    """
    try:
        chosen = _choices(values, conf)
        found = [*chosen, *_differing(_unresolved(chosen, conf), values)]
        # what follows from others, such as the registered model's name, last: it may be right by now
        while more := next(_differing(made := compose_values("config", found, conf), values), None):
            if more in found:
                return None
            found.append(more)
    except (UserError, ValueError, OSError, yaml.YAMLError):
        return None
    return found if made == values else None


def _choices(values: Mapping[str, Any], conf: Path) -> tuple[str, ...]:
    """Options of groups that leave the fewest overrides in all."""

    @cache
    def lacking(chosen: tuple[str, ...]) -> list[str]:
        return list(_differing(_unresolved(chosen, conf), values))

    def length(chosen: tuple[str, ...]) -> float:
        try:
            return len(chosen) + len(lacking(chosen))
        except UserError:  # options that do not go together
            return math.inf

    chosen: tuple[str, ...] = ()
    for group in _GROUPS:
        if group in values and not any(override.startswith(f"{group}.") for override in lacking(chosen)):
            continue
        for option in _fitting(group, values, conf):
            # an option is an override too: it can't be shorter than one value
            if length(chosen) > 1:
                others = tuple(choice for choice in chosen if not choice.startswith(f"{group}="))
                chosen = min(chosen, (*others, f"{group}={option}"), key=length)
    for choice in chosen:
        chosen = min(chosen, tuple(other for other in chosen if other != choice), key=length)
    return chosen


def _fitting(group: str, values: Mapping[str, Any], conf: Path) -> Iterator[str]:
    """The options of a group, without those of another method, encoder or source of images."""
    section = values.get(group)
    for option in options(conf).get(group, []):
        own = yaml.safe_load((conf / group / f"{option}.yaml").read_text(encoding="utf-8")) or {}
        kind = "source" if "source" in own else "name"
        if not isinstance(section, Mapping) or kind not in own or own[kind] == section.get(kind):
            yield option


def _unresolved(chosen: tuple[str, ...], conf: Path) -> dict[str, Any]:
    return compose_values("config", chosen, conf, False)


def _differing(made: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """An override for each value of `wanted` that `made` does not have; what `made` has besides, none can remove.

    A value of `made` that is still to follow from another one counts as the same.
    """
    for key, value in wanted.items():
        name = f"{prefix}{key}"
        if key not in made:
            yield f"+{name}={_written(value)}"
        elif isinstance(value, Mapping) and isinstance(made[key], Mapping):
            yield from _differing(made[key], value, f"{name}.")
        elif made[key] != value and not (isinstance(made[key], str) and "${" in made[key]):
            yield f"{name}={_written(value)}"


def _written(value: Any) -> str:
    """A value in Hydra's grammar."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_written(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    if isinstance(value, str):
        plain = _PLAIN.fullmatch(value) and value.lower() not in _RESERVED
        return value if plain else QuotedString(value, Quote.single).with_quotes()
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
