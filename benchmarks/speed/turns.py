"""What every contender does: get ready, then train a number of steps whenever it is told to.

Contenders are processes that wait for their turn, so that each round asks all of them within a minute, on a machine
that others may use too. Only Python's library here: lightly's environment has none of our packages.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

MARK = "@turn "


def work() -> dict[str, Any]:
    """What the driver asks this process for."""
    asked: dict[str, Any] = json.loads(sys.argv[1])
    return asked


def serve(train: Callable[[int], None]) -> None:
    """Train once to warm up, then as many steps as each line of the input says, and answer with what they took.

    Args:
        train: trains so many steps, and returns when they are done.
    """
    train(3)
    _answer({"ready": True})
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        train(int(line))
        _answer(
            {
                "seconds": time.perf_counter() - wall,
                "cpu_seconds": time.process_time() - cpu,
                # of Linux, in KiB
                "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            }
        )


def _answer(found: dict[str, Any]) -> None:
    print(f"{MARK}{json.dumps(found)}", flush=True)
