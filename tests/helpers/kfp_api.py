"""A server that speaks the REST API of Kubeflow Pipelines 2 (v2beta1), with a memory, and with faults on request.

KFP's own client talks to it, so that no request and no answer is of a shape that the API does not know. Errors look
as the API server's gateway writes them, those of an upload as its upload service does.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.helpers.kfp_state import CODES, KfpApi, RefusedError
from tests.helpers.servers import answering

GRPC = {status: code for code, status in CODES.items()} | {429: 8, 503: 14}


@contextlib.contextmanager
def kfp_server(tls: ssl.SSLContext | None = None) -> Iterator[KfpApi]:
    """Serve on a free port of loopback until the block ends, with `tls` over https."""
    api, lock = KfpApi(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # else each answer's body waits 40 ms for its head to be acknowledged
        disable_nagle_algorithm = True

        def handle_any(self) -> None:
            address = urlsplit(self.path)
            with lock:
                fault = api.fault(f"{self.command} {address.path}")
            length = int(self.headers.get("Content-Length") or 0)
            if fault == "cut request":
                self.rfile.read(min(length, 64))
                self._cut(address.path)
                return
            body = self.rfile.read(length)
            if fault == "page":
                self._send(address.path, 200, b"<html>Log in</html>", "text/html")
            elif fault == "redirect":
                self._send(
                    address.path, 302, b"", "text/html", {"Location": "https://login.example.org/auth?state=1"}
                )
            elif isinstance(fault, int):
                self._refuse(address.path, RefusedError(GRPC.get(fault, 13), f"made to fail with {fault}"), fault)
            else:
                query = {name: values[0] for name, values in parse_qs(address.query).items()}
                with lock:
                    self._serve(address.path, query, body, fault)

        do_GET = do_POST = do_DELETE = handle_any  # noqa: N815

        def _serve(self, path: str, query: dict[str, str], body: bytes, fault: Any) -> None:
            try:
                if api.token is not None and self.headers.get("Authorization") != f"Bearer {api.token}":
                    # as an echoing proxy would: what was sent must not be shown to anyone
                    raise RefusedError(16, f"Unauthenticated: {self.headers.get('Authorization')}")
                log = api.log(path)
                answer = api.answer(self.command, path, query, body, self.headers) if log is None else {}
            except RefusedError as error:
                self._refuse(path, error, CODES[error.code])
                return
            data = json.dumps(answer).encode() if log is None else log.encode()
            if fault == "cut answer":
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[: len(data) // 2])
                self._cut(path)
                return
            self._send(path, 200, data, "application/json" if log is None else "text/plain", slow=fault == "slow")

        def _refuse(self, path: str, error: RefusedError, status: int) -> None:
            if path.endswith("/upload_version"):
                told = {"error_message": str(error), "error_details": str(error)}
            else:
                details = {
                    "@type": "type.googleapis.com/google.rpc.Status",
                    "code": error.code,
                    "message": str(error),
                }
                told = {"error": str(error), "code": error.code, "message": str(error), "details": [details]}
            self._send(path, status, json.dumps(told).encode(), "application/json")

        def _send(
            self, path: str, status: int, data: bytes, kind: str, more: Any = None, slow: bool = False
        ) -> None:
            api.calls.append((self.command, path, status))
            # longer than a test lets it take, which on a busy machine is enough for all other answers
            time.sleep(4 if slow else 0)
            with contextlib.suppress(OSError):
                self.send_response(status)
                for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(more or {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

        def _cut(self, path: str) -> None:
            api.calls.append((self.command, path, 0))
            # a reset, not an orderly end
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with answering(Handler, tls) as api.url:
        yield api
