"""What a step cost: seconds of processors and graphics cards, memory, and an estimate of energy.

They are facts about one run, as its seconds are: no digest and no decision may depend on them.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Iterable
from functools import reduce
from typing import Any

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer

from components.shared.errors import UserError
from components.shared.steps import STEPS

# An assumption, in watts, of a busy processor core with its share of memory, and of a graphics card while it is
# held, at work or not. Measure yours and set the variables.
CPU_WATTS, GPU_WATTS = 10.0, 300.0
CPU_VARIABLE, GPU_VARIABLE = "WATTS_PER_CPU", "WATTS_PER_GPU"
_MOST_WATTS = 10_000.0


class Cost(BaseModel):
    """What something cost.

    Attributes:
        cpu_seconds: of all processor cores, that of processes that were started and ended too.
        gpu_seconds: graphics cards that the step was given, times how long it took.
        peak_mebibytes: the most memory that the process, or one that it started, ever had.
        device_peak_mebibytes: the most memory of a graphics card that the process ever had; None, and left out of
            records, where there was none or the backend does not tell.
        watt_hours: an estimate out of both and the watts that were assumed.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    cpu_seconds: float
    gpu_seconds: float
    peak_mebibytes: float
    device_peak_mebibytes: float | None = None
    watt_hours: float

    def __add__(self, other: Cost) -> Cost:
        """Of both, one after the other."""
        return Cost(
            cpu_seconds=round(self.cpu_seconds + other.cpu_seconds, 3),
            gpu_seconds=round(self.gpu_seconds + other.gpu_seconds, 3),
            peak_mebibytes=max(self.peak_mebibytes, other.peak_mebibytes),
            device_peak_mebibytes=max(
                (peak for cost in (self, other) if (peak := cost.device_peak_mebibytes) is not None), default=None
            ),
            watt_hours=round(self.watt_hours + other.watt_hours, 3),
        )

    @model_serializer(mode="wrap")
    def _known(self, write: SerializerFunctionWrapHandler) -> dict[str, float]:
        return {name: value for name, value in write(self).items() if value is not None}


class Meter:
    """Measures from now on.

    Args:
        step: the step's name.

    Raises:
        UserError: the watts that the environment names are none.
    """

    def __init__(self, step: str):
        self._step = step
        self._start, self._cpu = time.monotonic(), _cpu_seconds()
        self._watts = _watts(CPU_VARIABLE, CPU_WATTS), _watts(GPU_VARIABLE, GPU_WATTS)

    @property
    def seconds(self) -> float:
        """Since the beginning, by the clock on the wall."""
        return time.monotonic() - self._start

    def read(self) -> Cost:
        """The cost so far."""
        cards, device_peak = _cards(self._step)
        cpu, gpu = _cpu_seconds() - self._cpu, self.seconds * cards
        joules = cpu * self._watts[0] + gpu * self._watts[1]
        return Cost(
            cpu_seconds=round(cpu, 3),
            gpu_seconds=round(gpu, 3),
            peak_mebibytes=round(_peak_mebibytes(), 1),
            device_peak_mebibytes=None if device_peak is None else round(device_peak / 2**20, 1),
            watt_hours=round(joules / 3600, 3),
        )


def total(costs: Iterable[Cost | None]) -> Cost | None:
    """Of all that are known; None where none is."""
    known = [cost for cost in costs if cost is not None]
    return reduce(Cost.__add__, known) if known else None


def read_cost(values: Any) -> Cost | None:
    """From a record's details; None where they hold none."""
    try:
        return Cost.model_validate(values)
    except ValidationError:
        return None


def in_words(cost: Cost) -> str:
    """A cost for people."""
    gpu = f", {_duration(cost.gpu_seconds)} of a GPU" if cost.gpu_seconds else ""
    peak = cost.device_peak_mebibytes
    device = "" if peak is None else f", of a GPU {peak:,.0f} MiB"
    return (
        f"{_duration(cost.cpu_seconds)} of a processor core{gpu}, {cost.peak_mebibytes:,.0f} MiB at most{device}, "
        f"some {cost.watt_hours:,.3g} Wh"
    )


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _peak_mebibytes() -> float:
    most = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    # macOS counts bytes, others KiB
    return most / 2 ** (20 if sys.platform == "darwin" else 10)


def _cards(step: str) -> tuple[int, int | None]:
    """Graphics cards that a training was given, and the most bytes of one; asked only where Keras was started."""
    if step not in STEPS or not STEPS[step].gpu or "keras" not in sys.modules:
        return 0, None
    from components.shared.training.devices import count_cards, peak_bytes

    return count_cards(), peak_bytes()


def _watts(variable: str, default: float) -> float:
    text = os.environ.get(variable, "")
    try:
        watts = float(text or default)
    except ValueError:
        watts = -1.0
    if not 0 <= watts <= _MOST_WATTS:
        raise UserError(f"{variable} = {text}: must be watts, 0 to {_MOST_WATTS:,.0f}")
    return watts
