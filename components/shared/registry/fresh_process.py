"""The program of the fresh process in which a logged model is tried: load it with MLflow, measure it, serve it.

Run as `python -I fresh_process.py MODEL_URI`, in a folder with `images.npy`. It imports nothing of the project,
writes `ready.npz` (answers, measurements, port) when it serves, and ends when its standard input does.
"""

from __future__ import annotations

import functools
import os
import socket
import sys
import threading
import time
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BATCHES = (1, 32)
HOST = "127.0.0.1"
# the first calls trace and warm up
_WARM_UP, _CALLS = 2, 7


def milliseconds(call: Callable[[], object]) -> float:
    """What a call takes: the median of several, after a warm-up."""
    seconds = timeit.repeat(call, number=1, repeat=_WARM_UP + _CALLS)[_WARM_UP:]
    return round(1000 * float(np.median(seconds)), 3)


def _main(model_uri: str) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for name in ("components", "models", "pipelines"):
        # even where the project is installed as a package, the model must load without it
        sys.modules[name] = None  # type: ignore[assignment]
    start = time.perf_counter()
    # here, because MLflow's import is a part of what is measured
    import mlflow

    model = mlflow.pyfunc.load_model(model_uri)
    found = {"load_seconds": round(time.perf_counter() - start, 3)}
    images = np.load("images.npy")
    answers = np.asarray(model.predict(images))
    for size in BATCHES:
        batch = images[np.arange(size) % len(images)]
        found[f"latency_ms_batch_{size}"] = milliseconds(functools.partial(model.predict, batch))
    found |= _memory()

    import uvicorn
    from mlflow.pyfunc import scoring_server

    # taken by this process, so that nobody else can answer in the model's place; requests wait in its queue
    listening = socket.create_server((HOST, 0))
    arrays: dict[str, Any] = {"answers": answers, "port": listening.getsockname()[1], **found}
    np.savez("partial.npz", **arrays)
    Path("partial.npz").rename("ready.npz")
    # what `mlflow models serve` runs
    uvicorn.Server(uvicorn.Config(scoring_server.init(model), log_level="warning")).run(sockets=[listening])


def _memory() -> dict[str, float]:
    """The most memory this process has held, where Linux tells; `getrusage` starts from what the parent held."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else []:
        if line.startswith("VmHWM:"):
            return {"memory_mebibytes": round(int(line.split()[1]) / 1024, 1)}
    return {}


def _end_with_parent() -> None:
    # not `sys.stdin`, whose lock an interpreter that shuts down would wait for
    while os.read(0, 1):
        pass
    os._exit(3)


if __name__ == "__main__":
    try:
        _main(sys.argv[1])
    except Exception as error:
        # the last line is what the caller reads; Keras's messages have many
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}")
