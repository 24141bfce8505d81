"""Infrastructure validation against servers that misbehave, and processes that do not start."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from components.shared.registry import fresh_process as program
from components.shared.registry import infra_validation as module
from components.shared.registry.fresh_process import milliseconds
from components.shared.registry.infra_validation import (
    RefusedError,
    Served,
    malformed_requests,
    served,
    validate_infrastructure,
    validate_serving,
)
from tests.helpers.waiting import until

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (40, 8, 8, 3), np.uint8)
EXPECTED = RNG.dirichlet(np.ones(4), 40).astype(np.float32)
MEASURED = {"load_seconds": 1.0, "memory_mebibytes": 100.0}


def sound(inputs: object) -> tuple[int, str]:
    """What MLflow's server answers, for the images above: their predictions, or 400."""
    try:
        images = np.array(inputs, dtype=np.uint8)
    except (ValueError, OverflowError) as error:
        return 400, f"Invalid input. {error}"
    if images.shape[1:] != IMAGES.shape[1:]:
        return 400, f"Shape of input {images.shape} does not match expected shape (-1, 8, 8, 3)."
    known = [int(np.flatnonzero((image == IMAGES).all(axis=(1, 2, 3)))[0]) for image in images]
    return 200, json.dumps({"predictions": EXPECTED[known].tolist()})


@contextlib.contextmanager
def answering(inputs_answered):
    """A server whose `/invocations` answers with what a function makes of the request's inputs."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                status, said = inputs_answered(json.loads(body)["inputs"])
            except (json.JSONDecodeError, KeyError) as error:
                status, said = 400, f"Invalid input. {error!r}"
            if status:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(said.encode())

        def log_message(self, *arguments):
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield Served(EXPECTED, MEASURED, server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()


def test_answers_by_class_name_are_answers():
    def named(inputs):
        status, said = sound(inputs)
        if status != 200:
            return status, said
        rows = json.loads(said)["predictions"]
        return status, json.dumps({"predictions": [dict(zip("abcd", row, strict=True)) for row in rows]})

    with answering(named) as process:
        assert validate_serving(process, IMAGES, EXPECTED)["served_difference"] < 1e-6


def test_a_sound_server_is_measured():
    with answering(sound) as process:
        found = validate_serving(process, IMAGES, EXPECTED)
    assert found["served_images"] == 32
    assert found["served_difference"] < 1e-6
    assert found["refused_requests"] == len(malformed_requests(IMAGES)) == 7
    assert found["http_latency_ms_batch_1"] > 0
    assert found["http_latency_ms_batch_32"] > 0


def with_predictions(change):
    """A server that is sound but for what it predicts."""

    def answer(inputs):
        status, said = sound(inputs)
        if status == 200:
            said = json.dumps({"predictions": change(np.array(json.loads(said)["predictions"])).tolist()})
        return status, said

    return answer


def nan_once(predictions):
    predictions[0, 0] = np.nan
    return predictions


def for_sound(status, said):
    """A server that gives one answer to sound requests."""
    return lambda inputs: (status, said) if sound(inputs)[0] == 200 else sound(inputs)


def for_malformed(status, said):
    """A server that gives one answer to images of a wrong shape."""
    return lambda inputs: (status, said) if "Shape" in sound(inputs)[1] else sound(inputs)


def unchecked_pixels(inputs):
    """A server that takes any pixels."""
    status, said = sound(inputs)
    return (200, "{}") if "Invalid" in said else (status, said)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (with_predictions(lambda p: p + 2e-4), "over HTTP the answers to 32 test images differ by up to 0.0002"),
        (with_predictions(nan_once), "over HTTP the model answers with shape (32, 4), or with NaN"),
        (with_predictions(lambda p: p[:, :2]), "over HTTP the model answers with shape (32, 2)"),
        (with_predictions(lambda p: p[:1]), "over HTTP the model answers with shape (1, 4)"),
        (for_sound(500, "it broke\nbadly"), "answers a sound request with status 500: it broke"),
        (for_sound(200, "<html>"), "no array of predictions: <html>"),
        (for_sound(200, '{"answers": []}'), "no array of predictions"),
        (for_sound(0, ""), "over HTTP the model does not answer: RemoteDisconnected"),
        (for_malformed(200, '{"predictions": [[1]]}'), "answers images of another size with status 200"),
        (for_malformed(500, "internal error"), "answers images of another size with status 500"),
        (unchecked_pixels, "answers pixels above 255 with status 200"),
    ],
)
def test_a_server_that_misbehaves_is_unfit(answer, words):
    with answering(answer) as process, pytest.raises(RefusedError, match=re.escape(words)) as caught:
        validate_serving(process, IMAGES, EXPECTED)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (EXPECTED + 2e-4, "in a fresh process the answers to 40 test images differ by up to 0.0002"),
        (np.where(np.arange(4) == 1, np.nan, EXPECTED), "shape (40, 4), or with NaN"),
        (EXPECTED[:, :3], "in a fresh process the model answers with shape (40, 3)"),
    ],
)
def test_a_process_that_answers_differently_is_unfit(monkeypatch, answers, words):
    @contextlib.contextmanager
    def other_answers(uri, images, environment):
        yield Served(answers, MEASURED, 9)

    monkeypatch.setattr(module, "served", other_answers)
    with pytest.raises(RefusedError, match=re.escape(words)):
        validate_infrastructure("models:/any", IMAGES, EXPECTED, {})


def test_a_model_that_does_not_load_is_unfit_with_its_last_words(tmp_path):
    with pytest.raises(RefusedError, match=r"does not answer in a fresh process: .*no-such-model"):
        validate_infrastructure(str(tmp_path / "no-such-model"), IMAGES, EXPECTED, {})


def test_a_process_that_is_never_ready_is_ended():
    with pytest.raises(RefusedError, match="not ready in time"), served("m", IMAGES, {}, seconds=0.3):
        pytest.fail("it was not ready")
    assert not started_here()


def test_a_process_that_is_killed_is_the_reason(monkeypatch, tmp_path):
    killed = tmp_path / "killed.py"
    killed.write_text("import os; os.kill(os.getpid(), 9)\n")
    monkeypatch.setattr(program, "__file__", str(killed))
    with pytest.raises(RefusedError, match="it ended with status -9"), served("m", IMAGES, {}):
        pytest.fail("it was killed")


def test_the_server_ends_with_whoever_started_it():
    """The pipeline may be killed without a word; its end of the pipe then closes."""
    command = [sys.executable, "-I", program.__file__, "models:/any"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(timeout=20) == 3


def test_what_the_block_raises_ends_the_process_and_those_it_started(monkeypatch, tmp_path):
    ready = tmp_path / "ready.py"
    ready.write_text(
        "import pathlib, subprocess, numpy\n"
        "other = subprocess.Popen(['sleep', '60'])\n"
        "numpy.savez('partial.npz', answers=numpy.zeros(1), port=other.pid)\n"
        "pathlib.Path('partial.npz').rename('ready.npz')\n"
        "other.wait()\n"
    )
    monkeypatch.setattr(program, "__file__", str(ready))
    with pytest.raises(ZeroDivisionError), served("m", IMAGES, {}) as process:
        other = Path(f"/proc/{process.port}/stat")
        assert other.exists()
        assert started_here()
        raise ZeroDivisionError
    assert not started_here()
    # SIGKILL is sent, not yet obeyed: a busy machine may take a moment
    until(lambda: is_gone(other), 10)


def is_gone(stat: Path) -> bool:
    """Gone, or killed and not yet collected by whoever inherits it."""
    try:
        return ") Z " in stat.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def started_here() -> list[int]:
    """Children of this process that run the program, or what stands for it."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(status.read_text().rsplit(")", 1)[1].split()[1]) == os.getpid():
                words = status.with_name("cmdline").read_bytes().split(b"\0")
                found += [int(status.parent.name)] if b"-I" in words else []
    return found


def test_the_time_of_a_call_is_a_median_without_the_first_ones():
    pauses = iter([0.2, 0.1, *[0.002] * 4, 0.1, 0.002, 0.002])
    assert 2 <= milliseconds(lambda: time.sleep(next(pauses))) < 90


def test_memory_is_this_process_own():
    """`getrusage` of a process starts from what its parent held; this must not."""
    held = np.ones(2**26)
    lines = "import runpy, sys; print(runpy.run_path(sys.argv[1])['_memory']()['memory_mebibytes'])"
    said = subprocess.run([sys.executable, "-c", lines, program.__file__], capture_output=True, check=True)
    assert held.nbytes / 2**20 == 512
    assert 5 < float(said.stdout) < 200


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_of_any_number_of_channels_malformed_requests_are_none_that_the_signature_allows(channels):
    images = np.zeros((2, 8, 8, channels), np.uint8)
    shapes = {what: np.shape(json.loads(body)["inputs"]) for what, body in malformed_requests(images).items()
              if "image" in what}  # fmt: skip
    assert len(shapes) == 3
    assert (1, 8, 8, channels) not in shapes.values()
