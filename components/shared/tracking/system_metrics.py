"""What the machine does while a step works, as MLflow's own monitors see it.

MLflow's own thread asks the server at each sample and ends once it is away. The one here asks nobody: samples wait,
with their times, until the step logs something itself.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

ENABLE = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"
# a driver may hang, and no step waits for it
_SECONDS_TO_END = 2.0


class Sample(NamedTuple):
    """`values` by MLflow's names, of the moment `time`, in milliseconds since 1970; `step` counts the samples."""

    values: dict[str, float]
    time: int
    step: int


class SystemMetrics:
    """Processor, memory, disk and network of the machine, and its GPUs where `nvidia-ml-py` is installed.

    Sampled as MLflow's variables say, every 10 s by default; `MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=false` turns it
    off. What can't be measured is left out, and never an error.

    Args:
        run_id: of MLflow.
    """

    def __init__(self, run_id: str):
        self._samples: SimpleQueue[Sample] = SimpleQueue()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        if os.environ.get(ENABLE, "").lower() in ("false", "0"):
            return
        with suppress(Exception):  # of a missing package, or of a driver
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            monitor = SystemMetricsMonitor(run_id)
            self._thread = threading.Thread(target=self._watch, args=(monitor,), name="system metrics", daemon=True)
            self._thread.start()

    def take(self) -> list[Sample]:
        """The samples since the last call."""
        return [self._samples.get() for _ in range(self._samples.qsize())]

    def stop(self) -> None:
        """End the sampling."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(_SECONDS_TO_END)

    def _watch(self, monitor: SystemMetricsMonitor) -> None:
        node = f"{monitor.node_id}/" if monitor.node_id else ""
        with suppress(Exception):  # likewise
            # how busy processors are is told since the last time that this thread asked
            monitor.collect_metrics()
            for step in itertools.count():
                for one in monitor.monitors:
                    one.clear_metrics()
                for _ in range(monitor.samples_before_logging):
                    if self._ended.wait(monitor.sampling_interval):
                        return
                    monitor.collect_metrics()
                values = {f"system/{node}{name}": value for name, value in monitor.aggregate_metrics().items()}
                self._samples.put(Sample(values, time.time_ns() // 1_000_000, step))
