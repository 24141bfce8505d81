"""Infrastructure validation: does a logged model load, answer and serve as its user will need it to?

It is asked in a process of its own, through MLflow and over HTTP, and must answer what was recorded in training.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from components.shared.errors import RefusedError, first_line
from components.shared.registry import fresh_process

# float32 on the same kind of processor repeats to about 1e-6; another one, or another order of sums, to 1e-5
TOLERANCE = 1e-4
SERVED_IMAGES = 32


@dataclass(frozen=True)
class Served:
    """A model that a fresh process has loaded, asked and measured, and now serves.

    Attributes:
        answers: to the images that it was given, shape (N, classes).
        measured: `load_seconds` (MLflow and the backend started, the model loaded), `memory_mebibytes` (the most
            the process held) and, of a call with so many images, `latency_ms_batch_1` and `latency_ms_batch_32`.
        port: of loopback, on which MLflow's scoring server answers.
    """

    answers: np.ndarray
    measured: dict[str, float]
    port: int

    def post(self, body: bytes) -> tuple[int, str]:
        """Send JSON to `/invocations`; returns the HTTP status and the body of the answer.

        Raises:
            RefusedError: the server does not answer.
        """
        connection = http.client.HTTPConnection(fresh_process.HOST, self.port, timeout=120)
        try:
            with contextlib.closing(connection):
                connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                return answer.status, answer.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            raise RefusedError(f"over HTTP the model does not answer: {type(error).__name__}: {error}") from None


@contextlib.contextmanager
def served(
    model_uri: str, images: np.ndarray, environment: Mapping[str, str], seconds: float = 600
) -> Iterator[Served]:
    """Load a model through MLflow's `pyfunc` in a fresh process, ask it, measure it, and serve it on loopback.

    The process and all that it starts end with the block, and with this process, however those end.

    Args:
        model_uri: anything `mlflow.pyfunc.load_model` takes.
        images: uint8, shape (N, H, W, C).
        environment: variables to set for the process, such as the tracking server's absolute address.
        seconds: give up after so long.

    Raises:
        RefusedError: the model does not load, does not answer or is not served; the message is the process's last
            words.
    """
    with tempfile.TemporaryDirectory(prefix="fresh-") as name:
        folder = Path(name)
        np.save(folder / "images.npy", np.ascontiguousarray(images))
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                # -I: neither this project's folder nor the user's packages are on the path
                [sys.executable, "-I", str(Path(fresh_process.__file__).resolve()), model_uri],
                cwd=folder,
                env={**os.environ, **environment},
                # it closes when this process ends, also when that is killed, and the other one then ends itself
                stdin=subprocess.PIPE,
                # where Keras draws its bars
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        try:
            _wait(process, folder, time.monotonic() + seconds)
            with np.load(folder / "ready.npz", allow_pickle=False) as ready:
                measured = {key: ready[key].item() for key in ready.files if key not in ("answers", "port")}
                found = Served(ready["answers"], measured, int(ready["port"]))
            yield found
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def _wait(process: subprocess.Popen[bytes], folder: Path, end: float) -> None:
    while not (folder / "ready.npz").exists():
        why = "it is not ready in time" if time.monotonic() > end else ""
        if process.poll() is not None:
            lines = (folder / "log").read_text(errors="replace").split("\n")
            said = [line.strip()[:300] for line in lines if line.strip()]
            why = said[-1] if said else f"it ended with status {process.returncode}"
        if why:
            raise RefusedError(f"the model does not answer in a fresh process: {why}")
        time.sleep(0.05)


def validate_infrastructure(
    model_uri: str, images: np.ndarray, expected: np.ndarray, environment: Mapping[str, str]
) -> dict[str, float]:
    """Load a model in a fresh process, ask it there and over HTTP, and measure it.

    Args:
        model_uri: of the logged model.
        images: to ask about: uint8, shape (N, size, size, C).
        expected: what it answered in training, shape (N, classes).
        environment: variables that the process needs to reach the tracking server.

    Returns:
        `compared_images`, `largest_difference`, `served_images`, `served_difference`, `refused_requests`, and what
        was measured: `load_seconds`, `memory_mebibytes`, `latency_ms_batch_<n>` of a call in the process and
        `http_latency_ms_batch_<n>` of a request.

    Raises:
        RefusedError: it does not load, is not served, answers something else, or takes what is no batch of images.
    """
    with served(model_uri, images, environment) as model:
        difference = _difference("in a fresh process", model.answers, expected)
        found = {"compared_images": float(len(images)), "largest_difference": difference, **model.measured}
        return found | validate_serving(model, images, expected)


def validate_serving(model: Served, images: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    """Ask a served model over HTTP: sound requests must be answered as recorded, malformed ones refused with 400.

    Args:
        model: that is served.
        images: to ask about.
        expected: what it answered in training, shape (N, classes).

    Raises:
        RefusedError: it answers something else.
    """
    asked, malformed = images[:SERVED_IMAGES], malformed_requests(images)
    status, said = model.post(as_json(asked))
    if status != 200:
        raise RefusedError(f"over HTTP the model answers a sound request with status {status}: {first_line(said)}")
    try:
        rows = json.loads(said)["predictions"]
        # by class name; of a model that an earlier version of this code has registered, without names
        answers = np.asarray([list(row.values()) if isinstance(row, dict) else row for row in rows], np.float64)
    except (ValueError, KeyError, TypeError):
        raise RefusedError(f"over HTTP the model answers no array of predictions: {first_line(said)}") from None
    found = {
        "served_images": float(len(asked)),
        "served_difference": _difference("over HTTP", answers, expected[: len(asked)]),
        "refused_requests": float(len(malformed)),
    }
    for what, body in malformed.items():
        status, said = model.post(body)
        if status != 400:
            answered = f"over HTTP the model answers {what} with status {status}"
            raise RefusedError(f"{answered} ({first_line(said)}), where 400 is due")
    for size in fresh_process.BATCHES:
        body = as_json(images[np.arange(size) % len(images)])
        found[f"http_latency_ms_batch_{size}"] = fresh_process.milliseconds(partial(model.post, body))
    return found


def as_json(images: np.ndarray) -> bytes:
    """The request for a batch of images, as anyone would write it."""
    return json.dumps({"inputs": images.tolist()}).encode()


def malformed_requests(images: np.ndarray) -> dict[str, bytes]:
    """Requests that the signature does not allow: what is wrong → body."""
    image = images[:1]
    return {
        "images of another size": as_json(image[:, :-1]),
        "images of more channels": as_json(np.repeat(image, 2, axis=-1)),
        "an image that is no batch": as_json(image[0]),
        "pixels above 255": as_json(image.astype(int) + 256),
        "pixels that are text": as_json(np.full(image.shape, "red")),
        "no inputs": json.dumps({"pictures": image.tolist()}).encode(),
        "no JSON": b"images",
    }


def _difference(where: str, answers: np.ndarray, expected: np.ndarray) -> float:
    if answers.shape != expected.shape or not np.isfinite(answers).all():
        raise RefusedError(f"{where} the model answers with shape {answers.shape}, or with NaN")
    difference = float(np.abs(answers - expected).max())
    if difference > TOLERANCE:
        raise RefusedError(
            f"{where} the answers to {len(expected)} test images differ by up to {difference:.2g} "
            f"from the recorded ones; {TOLERANCE:.0e} is allowed"
        )
    return difference
