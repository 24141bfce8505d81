"""Real servers on loopback for tests: started on a free port, waited for, stopped with their children."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Server:
    """A running server: its address, its process, and the file with what it prints."""

    url: str
    process: subprocess.Popen
    log: Path

    def stop(self) -> None:
        """End the server and all processes it started; calling it again does nothing."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def answering(handler: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Answer by a handler, in threads of this process, until the block ends; yields the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def free_port() -> int:
    """A port of loopback that nobody listened on a moment ago."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def serving(
    command: Sequence[str], port: int, health: str, log: Path, env: Mapping[str, str] | None = None, seconds=120
) -> Iterator[Server]:
    """Run a command that serves on a port until the block ends; `health` is a path that then answers 200."""
    url = f"http://127.0.0.1:{port}"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            cwd=log.parent,
            start_new_session=True,
        )
    server = Server(url, process, log)
    try:
        _wait(server, url + health, seconds)
        yield server
    finally:
        server.stop()


def _wait(server: Server, url: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError as error:
            if server.process.poll() is not None or time.monotonic() > end:
                said = server.log.read_text(errors="replace")[-3000:]
                raise RuntimeError(f"{url} does not answer ({error}); the server said:\n{said}") from None
        time.sleep(0.1)


@contextlib.contextmanager
def mlflow_server(
    folder: Path,
    *options: str,
    port: int | None = None,
    store: str | None = None,
    artifacts: str | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """A tracking server that serves its artifacts, by default on SQLite and files in `folder`.

    Args:
        folder: for its database, artifacts and log; made if it is not there.
        options: more options of `mlflow server`, such as "--app-name", "basic-auth".
        port: to listen on, to start one again where it was; None takes a free one.
        store: `--backend-store-uri`.
        artifacts: `--artifacts-destination`.
        env: more environment variables.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    command = [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", store or f"sqlite:///{folder / 'mlflow.db'}"),
        *("--artifacts-destination", artifacts or str(folder / "artifacts")),
        *options,
    ]
    # else MLflow starts ten more processes, for evaluations of language models
    env = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **(env or {})}
    with serving(command, port, "/health", folder / "server.log", env) as server:
        yield server
