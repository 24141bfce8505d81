"""Names of the pipeline's tasks: `evaluate`; of replicates `pretrain-0`; `gather-probe`."""

from __future__ import annotations

import re

from components.shared.steps import STEPS, TASKS

_ORDER = list(TASKS)


def replicate_name(step: str, seed: int) -> str:
    """Name of the task that is a step's replicate."""
    return f"{step}-{seed}"


def gather_name(step: str) -> str:
    """Name of the task that gathers a step's replicates."""
    return f"gather-{step}"


def place(name: str) -> tuple[int, float] | None:
    """A key that sorts tasks as the table of steps does, a step's replicates by seed, then what gathers them.

    None for a name that is no task's, such as a group's.
    """
    if name in TASKS:
        return _ORDER.index(name), -1
    step, gathers = (name.removeprefix("gather-"), True) if name.startswith("gather-") else (name, False)
    if gathers:
        return (_ORDER.index(step), float("inf")) if step in STEPS else None
    known = re.fullmatch(r"(\w+)-(\d+)", name)
    return (_ORDER.index(known[1]), int(known[2])) if known and known[1] in STEPS else None
