"""MLflow's page on the runs: the server's where there is one, else one served on this machine alone."""

from __future__ import annotations

import errno
import os
import socket
import sys

from components.shared.errors import UserError, without_account
from components.shared.tracking.client import connect, default_uri

_HOST = "127.0.0.1"
# without it the page opens on what it has for language models
_PAGE = "/#/experiments?workflowType=machine_learning"
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # the job runner is for evaluations of language models, which nothing here uses
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "PYTHONWARNINGS": "ignore",
}


def show_ui(port: int) -> None:
    """Print the page's address, and become MLflow's server where the runs lie in a file or database.

    Args:
        port: of this machine to serve on.

    Raises:
        UserError: the port can't be had, or the runs can't be read.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or default_uri()
    if uri.startswith(("http://", "https://")):
        print(f"MLflow: {without_account(uri)}{_PAGE}")
        return
    _check_free(port)
    # makes the tables of a new file; two servers, or a server and a step, that make them at once both fail
    connect()
    print(f"MLflow: http://{_HOST}:{port}{_PAGE}\nready in some ten seconds; Ctrl-C ends it", flush=True)
    # uvicorn has nothing to say but at the end, where it shows Ctrl-C as an error
    quiet = ("--uvicorn-opts", "--log-level critical")
    serve = ("ui", "--backend-store-uri", uri, "--host", _HOST, "--port", str(port), "--workers", "1", *quiet)
    os.execve(sys.executable, [sys.executable, "-m", "mlflow", *serve], {**os.environ, **_ENVIRONMENT})


def _check_free(port: int) -> None:
    with socket.socket() as tried:
        # as the server will: a port that was left a moment ago is free
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((_HOST, port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            why = "is taken, perhaps by another `make ui`" if taken else f"can't be had: {error.strerror}"
            raise UserError(
                f"port {port}: {why}; choose another one, such as `make ui PORT=5001` "
                "or `contrastive ui --port 5001`"
            ) from None
