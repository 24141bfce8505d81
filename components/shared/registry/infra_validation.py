"""Infrastructure validation: does a logged model load, answer and serve as its user will need it to?

It is asked in a process of its own, through MLflow and over HTTP, and must answer what was recorded in training.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import numpy as np

from components.shared.errors import RefusedError
from components.shared.registry.fresh_process import BATCHES, FreshProcess, fresh_process, milliseconds

# float32 on the same kind of processor repeats to about 1e-6; another one, or another order of sums, to 1e-5
TOLERANCE = 1e-4
SERVED_IMAGES = 32


def validate_infrastructure(
    model_uri: str,
    images: np.ndarray,
    expected: np.ndarray,
    environment: Mapping[str, str],
    say: Callable[[str], None],
) -> dict[str, float]:
    """Load a model in a fresh process, ask it there and over HTTP, and measure it.

    Args:
        model_uri: of the logged model.
        images: to ask about: uint8, shape (N, size, size, 3).
        expected: what it answered in training, shape (N, classes).
        environment: variables that the process needs to reach the tracking server.
        say: called with a line about each part that is done.

    Returns:
        `compared_images`, `largest_difference`, `served_images`, `served_difference`, `refused_requests`, and what
        was measured: `load_seconds`, `memory_mebibytes`, `latency_ms_batch_<n>` of a call in the process and
        `http_latency_ms_batch_<n>` of a request.

    Raises:
        RefusedError: it does not load, is not served, answers something else, or takes what is no batch of images.
    """
    try:
        with fresh_process(model_uri, images, dict(environment)) as process:
            difference = _difference("in a fresh process", process.answers, expected)
            found = {"compared_images": float(len(images)), "largest_difference": difference, **process.measured}
            say(
                f"loaded by MLflow in a fresh process in {found['load_seconds']:.1f} s; "
                f"{len(images)} images answered as recorded"
            )
            found |= validate_serving(process, images, expected)
            say(
                f"served over HTTP; {found['served_images']:.0f} images answered as recorded, "
                f"{found['refused_requests']:.0f} malformed requests refused"
            )
            return found
    except RuntimeError as error:
        raise RefusedError(f"the model does not answer in a fresh process: {error}") from None


def validate_serving(process: FreshProcess, images: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    """Ask a served model over HTTP: sound requests must be answered as recorded, malformed ones refused with 400.

    Args:
        process: that serves it.
        images: to ask about.
        expected: what it answered in training, shape (N, classes).

    Raises:
        RefusedError: it answers something else.
    """
    asked = images[:SERVED_IMAGES]
    answers = _predictions(*_post(process, as_json(asked)))
    found = {
        "served_images": float(len(asked)),
        "served_difference": _difference("over HTTP", answers, expected[: len(asked)]),
    }
    malformed = malformed_requests(images)
    for what, (body, word) in malformed.items():
        status, said = _post(process, body)
        if status != 400 or word not in said:
            raise RefusedError(
                f"over HTTP the model answers {what} with status {status} ({_short(said)}), "
                f"where 400{' and the shape ' + word if word else ''} is due"
            )
    found["refused_requests"] = float(len(malformed))
    for size in BATCHES:
        body = as_json(images[np.arange(size) % len(images)])
        found[f"http_latency_ms_batch_{size}"] = milliseconds(lambda body=body: _post(process, body))
    return found


def as_json(images: np.ndarray) -> bytes:
    """The request for a batch of images, as anyone would write it."""
    return json.dumps({"inputs": images.tolist()}).encode()


def malformed_requests(images: np.ndarray) -> dict[str, tuple[bytes, str]]:
    """Requests that the signature does not allow: what is wrong → (body, what the refusal must name)."""
    image = images[:1]
    shape = str((-1, *images.shape[1:]))
    return {
        "images of another size": (as_json(image[:, :-1]), shape),
        "images without colours": (as_json(image[..., :1]), shape),
        "an image that is no batch": (as_json(image[0]), shape),
        "pixels above 255": (as_json(image.astype(int) + 256), ""),
        "pixels that are text": (as_json(np.full(image.shape, "red")), ""),
        "no inputs": (json.dumps({"pictures": image.tolist()}).encode(), ""),
        "no JSON": (b"images", ""),
    }


def _post(process: FreshProcess, body: bytes) -> tuple[int, str]:
    try:
        return process.post(body)
    except RuntimeError as error:
        raise RefusedError(f"over HTTP the model does not answer: {error}") from None


def _predictions(status: int, said: str) -> np.ndarray:
    if status != 200:
        raise RefusedError(f"over HTTP the model answers a sound request with status {status}: {_short(said)}")
    try:
        return np.asarray(json.loads(said)["predictions"], dtype=np.float64)
    except (ValueError, KeyError, TypeError):
        raise RefusedError(f"over HTTP the model answers no array of predictions: {_short(said)}") from None


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


def _short(said: str) -> str:
    return " ".join(said.split())[:160] or "nothing"
