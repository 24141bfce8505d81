"""A logged model as its user gets it: loaded by MLflow in a fresh process without this project, then served there.

This file is also the program that the fresh process runs, so it imports nothing of the project.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

BATCHES = (1, 32)
_PACKAGES = ("components", "models", "pipelines")
_HOST = "127.0.0.1"
# the first calls trace and warm up; enough for a median, and not for minutes with a large model
_WARM_UP, _CALLS, _SECONDS = 2, 9, 3.0


@dataclass(frozen=True)
class FreshProcess:
    """A process that has loaded the model, answered and been measured, and now serves it.

    Attributes:
        answers: to the images it was given, shape (N, classes).
        measured: `load_seconds` (MLflow and the backend started, the model loaded), `memory_mebibytes` (the most
            the process held) and, of a call with so many images, `latency_ms_batch_1` and `latency_ms_batch_32`.
        port: of loopback, on which MLflow's scoring server answers.
    """

    answers: np.ndarray
    measured: dict[str, float]
    port: int

    def post(self, body: bytes, seconds: float = 120) -> tuple[int, str]:
        """Send JSON to `/invocations`; returns the HTTP status and the body of the answer.

        Raises:
            RuntimeError: the server does not answer.
        """
        connection = http.client.HTTPConnection(_HOST, self.port, timeout=seconds)
        try:
            connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            raise RuntimeError(f"{type(error).__name__}: {error}") from None
        finally:
            connection.close()


@contextlib.contextmanager
def fresh_process(
    model_uri: str, images: np.ndarray, environment: dict[str, str], port: int = 0, seconds: float = 600
) -> Iterator[FreshProcess]:
    """Load a model through MLflow's `pyfunc` in a fresh process, ask it, measure it, and serve it on loopback.

    The process and all that it starts end with the block, and with this process, however those end.

    Args:
        model_uri: anything `mlflow.pyfunc.load_model` takes.
        images: uint8, shape (N, H, W, 3).
        environment: variables to set for the process, such as the tracking server's absolute address.
        port: to listen on; 0 takes one that is free.
        seconds: give up after so long.

    Raises:
        RuntimeError: the model does not load, does not answer or is not served; the message is the process's last
            words.
    """
    with tempfile.TemporaryDirectory(prefix="fresh-") as name:
        folder = Path(name)
        np.save(folder / "images.npy", np.ascontiguousarray(images))
        # -I: neither this project's folder nor the user's packages are on the path
        command = [sys.executable, "-I", str(Path(__file__).resolve()), model_uri, str(port)]
        with (folder / "log").open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, **environment},
                # it closes when this process ends, also when that is killed, and the other one then ends itself
                stdin=subprocess.PIPE,
                # where Keras draws its bars
                stdout=subprocess.DEVNULL,
                stderr=output,
                start_new_session=True,
            )
        try:
            _wait(process, folder, seconds)
            ready = json.loads((folder / "ready.json").read_text())
            answers = np.load(folder / "answers.npy", allow_pickle=False)
            yield FreshProcess(answers, ready["measured"], ready["port"])
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def _wait(process: subprocess.Popen[bytes], folder: Path, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not (folder / "ready.json").exists():
        if process.poll() is not None:
            said = (folder / "log").read_text(errors="replace")
            lines = [line.strip() for line in said.splitlines() if line.strip()]
            raise RuntimeError(lines[-1][:300] if lines else f"it ended with status {process.returncode}")
        if time.monotonic() > end:
            raise RuntimeError(f"not ready within {seconds:g} s")
        time.sleep(0.05)


def _main(model_uri: str, port: str) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # taken at once, and held, so that nobody else can answer in the model's place
    listening = socket.create_server((_HOST, int(port)))
    for name in _PACKAGES:
        # even where the project is installed as a package, the model must load without it
        sys.modules[name] = None  # type: ignore[assignment]
    start = time.perf_counter()
    import mlflow

    model = mlflow.pyfunc.load_model(model_uri)
    measured = {"load_seconds": round(time.perf_counter() - start, 3)}
    images = np.load("images.npy")
    np.save("answers.npy", np.asarray(model.predict(images)))
    for size in BATCHES:
        batch = images[np.arange(size) % len(images)]
        measured[f"latency_ms_batch_{size}"] = milliseconds(lambda batch=batch: model.predict(batch))
    measured["memory_mebibytes"] = _peak_mebibytes()
    _serve(model, listening, measured)


def _serve(model: Any, listening: socket.socket, measured: dict[str, float]) -> None:
    """What `mlflow models serve` runs: MLflow's scoring server, in Uvicorn."""
    import uvicorn
    from mlflow.pyfunc import scoring_server

    app = scoring_server.init(model)
    ready = {"measured": measured, "port": listening.getsockname()[1]}
    Path("ready.partial").write_text(json.dumps(ready))
    # a request that comes before the next line waits in the socket's queue
    Path("ready.partial").rename("ready.json")
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


def milliseconds(call: Any) -> float:
    """What a call takes: the median of several, after a warm-up."""
    for _ in range(_WARM_UP):
        call()
    taken: list[float] = []
    while len(taken) < _CALLS and sum(taken) < _SECONDS:
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return round(1000 * float(np.median(taken)), 3)


def _peak_mebibytes() -> float:
    """The most memory this process has held.

    Linux counts it for this program alone; `getrusage`, used elsewhere, starts from what the parent held.
    """
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        kibibytes = next(line.split()[1] for line in lines if line.startswith("VmHWM:"))
        return round(int(kibibytes) / 1024, 1)
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1)


def _end_with_parent() -> None:
    # not `sys.stdin`, whose lock an interpreter that shuts down would wait for
    while os.read(0, 1):
        pass
    os._exit(3)


if __name__ == "__main__":
    try:
        _main(*sys.argv[1:])
    except Exception as error:
        # the last line is what the caller reads; Keras's messages have many
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}")
