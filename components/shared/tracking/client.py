"""The connection to MLflow: where it is, how long a request may take, and what is wrong when it does not answer.

The tracking server is `MLFLOW_TRACKING_URI`, or a SQLite file `mlflow.db` with artifacts in `mlartifacts/`
beside it, in the repository or, where that can't be written, in the user's folder of states.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from components.shared.artifacts import locked, nearest_existing
from components.shared.environment import environment
from components.shared.errors import UserError, first_line, redacted
from components.shared.repository import in_lasting_repository, state_folder
from components.shared.tracking.addresses import absolute_uri, sqlite_file
from components.shared.tracking.moved_folder import follow_folder

DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"
PATIENCE_VARIABLE = "TRACKING_PATIENCE_SECONDS"
# seconds between two tries of a server that is away
_PAUSE = 10.0
RETRIES, TIMEOUT = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"
# what MLflow's page itself sets when one chooses "Model training"; without it runs are shown as those of an agent
_TRAINING_PAGE = {"mlflow.experimentKind": "custom_model_development"}


def connect() -> str:
    """Point MLflow at the tracking server; returns its address.

    A server that is away is waited for as long as `TRACKING_PATIENCE_SECONDS` says, where that is set. A SQLite
    file that was moved or copied with its folder gets to know its artifacts there.

    Raises:
        UserError: the server does not answer, or does not know the user.
    """
    until = time.monotonic() + patience(0.0)
    limit_requests()
    # where git is not installed, GitPython would tell MLflow so in 40 lines
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    # the tables of a new SQLite file are nothing to report
    logging.getLogger("mlflow").setLevel(os.environ.get("MLFLOW_LOGGING_LEVEL", "WARNING"))
    uri = os.environ.get("MLFLOW_TRACKING_URI") or default_uri()
    _check_writable(uri)
    mlflow.set_tracking_uri(uri)
    told = False
    while True:
        try:
            with alone(uri):
                mlflow.search_experiments(max_results=1)
                if (file := sqlite_file(uri)) is not None:
                    follow_folder(file, ARTIFACTS)
            return uri
        except Exception as error:
            left = until - time.monotonic()
            if left <= 0 or not (uri.startswith("http") and _is_away(error)):
                raise UserError(f"MLFLOW_TRACKING_URI = {redacted(uri)}: {why_not(error)}") from None
        if not told:
            print(f"{redacted(uri)} does not answer; it is waited for, {left:.0f} s at most", file=sys.stderr)
        told = True
        time.sleep(min(_PAUSE, left))


@contextmanager
def alone(uri: str) -> Iterator[None]:
    """Let no other process into a SQLite file by this meanwhile: two that make its tables at once both fail."""
    file = sqlite_file(uri)
    if file is None:
        yield
        return
    with locked(nearest_existing(file.absolute().parent), wait=True):
        yield


def patience(default: float) -> float:
    """Seconds that a lost server is waited for: `TRACKING_PATIENCE_SECONDS`, or a default where that is not set.

    Raises:
        UserError: it is no number.
    """
    text = os.environ.get(PATIENCE_VARIABLE, "")
    try:
        seconds = float(text or default)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86400:
        raise UserError(f"{PATIENCE_VARIABLE} = {text}: a number of seconds from 0 to 86400 is wanted")
    return seconds


def _is_away(error: Exception) -> bool:
    """Whether a server did not answer as one, which may pass; a refusal does not."""
    refused = getattr(error, "error_code", "") in ("UNAUTHENTICATED", "PERMISSION_DENIED")
    return not refused and not re.search("error code 4|Invalid Host header", str(error))


def default_uri() -> str:
    """The repository's own SQLite file, seen from here; outside of a repository, one here.

    Where there is none and none can be made, it is one in the user's folder of states; but not for a task of
    Kubeflow, which would see no other's runs and no registry there.
    """
    try:
        file = in_lasting_repository(DATABASE)
    except UserError:
        file = Path(DATABASE)
    if not file.exists() and "PIPELINE_RUN_ID" not in os.environ:
        file = state_folder(file.parent) / DATABASE
    return f"sqlite:///{file}"


def limit_requests(retries: int = 2, seconds: int = 20) -> None:
    """Let a server that is away be an answer within seconds, not a hang, where the user has set nothing else."""
    os.environ.setdefault(RETRIES, str(retries))
    os.environ.setdefault(TIMEOUT, str(seconds))


@contextmanager
def requests_within(seconds: int | None, retries: int = 0) -> Iterator[None]:
    """Bound MLflow's requests in the block, whatever is set.

    Args:
        seconds: time-out of a request; None leaves what is set.
        retries: how often MLflow itself tries again.
    """
    limits = {RETRIES: str(retries)}
    if seconds is not None:
        limits[TIMEOUT] = str(seconds)
    # MLflow reads these settings at each request
    with environment(limits):
        yield


def experiment_id(name: str) -> str:
    """Id of the experiment, created on first use; two steps starting at once share it."""
    found = mlflow.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    file = sqlite_file(str(mlflow.get_tracking_uri()))
    # beside the database, wherever the step stands: who may write the one may write the other
    location = file.with_name(ARTIFACTS).resolve().as_uri() if file is not None else None
    try:
        return str(mlflow.create_experiment(name, location, tags=_TRAINING_PAGE))
    except MlflowException:
        found = mlflow.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)


def if_there(ask: Callable[..., Any], *what: str) -> Any:
    """What MLflow answers to `ask(*what)`, None where it has no such run, model or version."""
    try:
        return ask(*what)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def server_variables() -> dict[str, str]:
    """Environment variables that point a process in another folder at the servers that are used here."""
    servers = {"MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(), "MLFLOW_REGISTRY_URI": mlflow.get_registry_uri()}
    return {name: absolute_uri(uri) for name, uri in servers.items()}


def _check_writable(uri: str) -> None:
    """Refuse a SQLite file that can't be written; MLflow would try for two minutes, and then say less."""
    file = sqlite_file(uri)
    if file is None:
        return
    nearest = nearest_existing(file)
    if not os.access(nearest, os.W_OK, effective_ids=True) or not (nearest == file.absolute() or nearest.is_dir()):
        raise UserError(
            f"MLFLOW_TRACKING_URI = {uri}: {nearest} can't be written; set it to a server, or to a file that can"
        )


def why_not(error: Exception) -> str:
    """Why MLflow does not do what it was asked, and what to do about it, in a line."""
    said, user = str(error), os.environ.get("MLFLOW_TRACKING_USERNAME")
    if getattr(error, "error_code", "") == "UNAUTHENTICATED" or "error code 401" in said:
        why = f"the server refuses {f'user {user}, or its password' if user else 'a request without a user'} (401)"
    elif "Invalid Host header" in said:
        return "the server does not serve this host name (403); add it to its MLFLOW_SERVER_ALLOWED_HOSTS"
    elif is_forbidden(error) or "error code 403" in said:
        why = f"the account {user or 'in use'} may not do this (403)"
    else:
        return f"can't be used: {first_line(error)}; start the server, or check the address and run again"
    return f"{why}; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"


def is_forbidden(error: BaseException | None) -> bool:
    """Whether the server said that this account may not do that, itself or as the cause of what was raised."""
    while error is not None:
        if getattr(error, "error_code", "") == "PERMISSION_DENIED":
            return True
        error = error.__cause__
    return False
