"""Each step as one MLflow run: parameters, curves, pictures, lineage.

The tracking server is `MLFLOW_TRACKING_URI`, or a SQLite file `mlflow.db` with artifacts in `mlartifacts/`. A
server that is away when a step starts is an error; one that is lost later is waited for, see `delivery`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from components.shared.errors import UserError, first_line, masked
from components.shared.repository import in_repository
from components.shared.tracking.delivery import ASKING, Delivery, requests_within

DEFAULT_URI = "sqlite:///mlflow.db"
ARTIFACTS = "mlartifacts"
# seconds that the end of a step waits for a lost server; its variable; and when someone wants the step to end
PATIENCE, PATIENCE_VARIABLE, PATIENCE_WHEN_KILLED = 60.0, "TRACKING_PATIENCE_SECONDS", 5.0
# what MLflow's page itself sets when one chooses "Model training"; without it runs are shown as those of an agent
_TRAINING_PAGE = {"mlflow.experimentKind": "custom_model_development"}


def connect() -> str:
    """Point MLflow at the tracking server; returns its address.

    Raises:
        UserError: the server does not answer, or does not know the user.
    """
    # a step must not hang for minutes because the tracking server is away; the value is MLflow's own setting
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    # the tables of a new SQLite file are nothing to report
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    import mlflow

    uri = os.environ.get("MLFLOW_TRACKING_URI") or default_uri()
    _check_place(uri)
    mlflow.set_tracking_uri(uri)
    try:
        mlflow.search_experiments(max_results=1)
    except Exception as error:
        raise UserError(f"MLFLOW_TRACKING_URI = {masked(uri)}: {_why_not(error)}") from None
    return uri


def default_uri() -> str:
    """The repository's own SQLite file, seen from here; outside of a repository, one here."""
    try:
        return f"sqlite:///{in_repository('mlflow.db')}"
    except UserError:
        return DEFAULT_URI


def _check_place(uri: str) -> None:
    """Refuse a SQLite file that can't be written; MLflow would try for two minutes, and then say less."""
    name = uri.removeprefix("sqlite:///")
    if name == uri or not name or ":memory:" in name or "?" in name:
        return
    file = Path(name).absolute()
    # folders that are not there yet are made
    place = next(path for path in (file, *file.parents) if path.exists())
    if not os.access(place, os.W_OK) or not (place == file or place.is_dir()):
        raise UserError(
            f"MLFLOW_TRACKING_URI = {uri}: {place} can't be written; set it to a server, or to a file that can"
        )


def _why_not(error: Exception) -> str:
    said = str(error)
    user = os.environ.get("MLFLOW_TRACKING_USERNAME")
    if getattr(error, "error_code", "") == "UNAUTHENTICATED" or "error code 401" in said:
        whom = f"user {user}, or its password" if user else "a request without a user"
        return f"the server refuses {whom} (401); set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    if "Invalid Host header" in said:
        return "the server does not serve this host name (403); add it to its MLFLOW_SERVER_ALLOWED_HOSTS"
    if getattr(error, "error_code", "") == "PERMISSION_DENIED" or "error code 403" in said:
        return (
            f"user {user or '(none)'} may not read here (403); ask for the permission, or set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD of another user"
        )
    return f"can't be used: {first_line(error)}; start the server or unset it"


class Run:
    """One step's MLflow run. Once it has started, a lost server never costs the step; see `delivery`."""

    def __init__(self, run_id: str):
        self.id = run_id
        self.delivery = Delivery(run_id)
        self._pictures: tempfile.TemporaryDirectory | None = None

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers; `step` is the epoch of a curve. NaN and infinity are logged as they are."""
        numbers = {key: float(value) for key, value in values.items()}
        self.delivery.send("metrics", values=numbers, time=_milliseconds(), step=step or 0)

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters, dotted names."""
        self.delivery.send("params", values={key: str(value) for key, value in values.items()})

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags."""
        self.delivery.send("tags", values=dict(values))

    def file(self, path: Path, folder: str | None = None) -> None:
        """Attach a file, which must stay as it is until the step ends."""
        self.delivery.send("file", path=str(path), folder=folder)

    def folder(self, path: Path, folder: str | None = None) -> None:
        """Attach all files of a folder, which must stay as they are until the step ends."""
        self.delivery.send("folder", path=str(path), folder=folder)

    def picture(self, figure: Any, name: str) -> None:
        """Attach a Matplotlib figure as a PNG."""
        if self._pictures is None:
            self._pictures = tempfile.TemporaryDirectory(prefix="pictures-")
        path = Path(self._pictures.name) / name
        figure.savefig(path)
        self.file(path)

    def dataset(self, dataset: Any, context: str) -> None:
        """Log a dataset (name, digest, source) as the run's input."""
        import mlflow

        manifest = dataset.manifest
        with warnings.catch_warnings():
            # MLflow registers its source of local files twice and then warns that it had a choice
            warnings.filterwarnings("ignore", message="The specified dataset source can be interpreted")
            described = mlflow.data.from_numpy(
                dataset.labels("train"), source=manifest.source, name=manifest.name, digest=manifest.digest[:36]
            )
        self.delivery.send("dataset", dataset=described.to_dict(), context=context)

    def end(self, status: str, patience: float) -> None:
        """End the run; what was not sent by then is sent for up to `patience` seconds, else kept for later."""
        import mlflow

        delivery = self.delivery
        if delivery.waiting:
            delivery.drain()
        if delivery.away:
            delivery.send("end", status=status, time=_milliseconds())
        try:
            # also tells MLflow's fluent functions that no run is active
            with requests_within(ASKING if delivery.away else None):
                mlflow.end_run(status)
        except Exception:
            if not delivery.away:
                delivery.send("end", status=status, time=_milliseconds())
        delivery.wait(patience)
        if delivery.waiting:
            _tell_unsent(delivery, patience)
        if self._pictures is not None:
            self._pictures.cleanup()


class Untracked(Run):
    """In place of a run where another process does the tracking."""

    def __init__(self) -> None:
        super().__init__("")
        self.lost = True

    def dataset(self, dataset: Any, context: str) -> None:
        """Nothing is logged."""


@contextmanager
def tracked(
    step: str, params: Mapping[str, Any], digest: str, inputs: Mapping[str, str], name: str
) -> Iterator[Run]:
    """Track one step.

    Args:
        step: the step's name, also the run's.
        params: its parameters, nested plain values.
        digest: of the parameters.
        inputs: input folder → its digest.
        name: the dataset's name; the experiment is `contrastive-<name>`.

    Raises:
        UserError: the server does not answer or refuses the run, or `TRACKING_PATIENCE_SECONDS` is no number.
    """
    patience = _patience()
    connect()
    import mlflow

    try:
        experiment = experiment_id(f"contrastive-{name}")
        mlflow.start_run(experiment_id=experiment, run_name=step)
    except mlflow.exceptions.MlflowException as error:
        raise UserError(f"MLflow refused to start a run: {first_line(error)}") from None
    active = mlflow.active_run()
    run = Run(active.info.run_id)
    try:
        with _terminated_as_exit():
            run.params(flatten(params))
            inputs_tags = {f"input.{key}": value for key, value in inputs.items()}
            run.tags({"step": step, "params.digest": digest, **inputs_tags, **lineage()})
            yield run
    except (KeyboardInterrupt, SystemExit):
        run.end("KILLED", min(patience, PATIENCE_WHEN_KILLED))
        raise
    except BaseException:
        run.end("FAILED", patience)
        raise
    run.end("FINISHED", patience)


def _patience() -> float:
    text = os.environ.get(PATIENCE_VARIABLE, "")
    try:
        seconds = float(text or PATIENCE)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86400:
        raise UserError(f"{PATIENCE_VARIABLE} = {text}: a number of seconds from 0 to 86400 is wanted")
    return seconds


@contextmanager
def _terminated_as_exit() -> Iterator[None]:
    """Let SIGTERM, by which a cluster ends a pod, leave through the code that ends the run."""
    usable = threading.current_thread() is threading.main_thread()
    if not usable or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def leave(number: int, frame: Any) -> None:
        # a second one ends the process at once
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000


def _tell_unsent(delivery: Delivery, patience: float) -> None:
    number = len(delivery.waiting)
    lost = f"warning: MLflow did not answer within {patience:.0f} s: {number} calls of run {delivery.run_id}"
    try:
        kept = delivery.keep()
    except OSError as error:
        print(f"{lost} are lost ({first_line(error)}); the step's output is whole", file=sys.stderr)
        return
    print(
        f"{lost} are kept in {kept}; `python -m pipelines resend` sends them when it answers again. "
        "The step's output is whole",
        file=sys.stderr,
    )


def experiment_id(name: str) -> str:
    """Id of the experiment, created on first use; two steps starting at once share it."""
    import mlflow
    from mlflow.exceptions import MlflowException

    found = mlflow.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    local = str(mlflow.get_tracking_uri()).startswith("sqlite:")
    place = Path(ARTIFACTS).resolve().as_uri() if local else None
    try:
        return str(mlflow.create_experiment(name, place, tags=_TRAINING_PAGE))
    except MlflowException:
        found = mlflow.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)


def if_there(ask: Callable[..., Any], *what: str) -> Any:
    """What MLflow answers to `ask(*what)`, None where it has no such run, model or version."""
    from mlflow.exceptions import MlflowException

    try:
        return ask(*what)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted names: {"a": {"b": 1}} becomes {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def lineage() -> dict[str, str]:
    """Tags that say which code, data and pipeline run this is."""
    tags = {"git.commit": os.environ.get("GIT_COMMIT") or _git("rev-parse", "HEAD") or "unknown"}
    # these change while the pipeline runs; they tell what was made, not by which code
    if _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!dvc.lock", ":!metrics.json"):
        tags["git.dirty"] = "true"
    pointer = Path("data.dvc")
    if pointer.exists():
        outs = (yaml.safe_load(pointer.read_text()) or {}).get("outs") or [{}]
        tags["dvc.data"] = str(outs[0].get("md5", "unknown"))
    run = os.environ.get("PIPELINE_RUN_ID") or os.environ.get("DVC_EXP_NAME")
    tags["pipeline.run"] = run or f"repro-{tags['git.commit'][:8]}"
    return tags


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
