"""Which of a gate's options ask less than `conf/gate/default.yaml` does."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from components.shared.evaluation import looks
from components.shared.evaluation.rules import rules
from components.shared.params.schema import GateParams

DEFAULT = Path(__file__).resolve().parents[3] / "conf" / "gate" / "default.yaml"


def weaker(gate: GateParams) -> list[str]:
    """Each option that asks less than the default, in words; empty where none does."""
    found = []
    for name, way in directions().items():
        value, default = getattr(gate, name), _defaults()[name]
        if way == "longer":
            less = len(value) > len(default)
            value, default = list(value), list(default)
        else:
            less = value < default if way == "lower" else value > default
        if less:
            found.append(f"{name} = {value} instead of {default}")
    return found


def directions() -> dict[str, str]:
    """Option → "lower", "higher" or "longer": which way it asks less. What asks nothing is not in it."""
    found = dict(looks.WEAKER)
    for rule in rules().values():
        found |= rule.WEAKER
    return found


@cache
def _defaults() -> dict[str, Any]:
    return dict(yaml.safe_load(DEFAULT.read_text(encoding="utf-8")))
