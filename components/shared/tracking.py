"""Each step as one MLflow run: parameters, curves, pictures, lineage.

The tracking server is `MLFLOW_TRACKING_URI`, or a SQLite file `mlflow.db` with artifacts in `mlartifacts/`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from components.shared.errors import UserError

DEFAULT_URI = "sqlite:///mlflow.db"
ARTIFACTS = "mlartifacts"
# what MLflow's page itself sets when one chooses "Model training"; without it runs are shown as those of an agent
_TRAINING_PAGE = {"mlflow.experimentKind": "custom_model_development"}


def connect() -> str:
    """Point MLflow at the tracking server; returns its address.

    Raises:
        UserError: the server does not answer.
    """
    # a step must not hang for minutes because the tracking server is away; the value is MLflow's own setting
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    # the tables of a new SQLite file are nothing to report
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    import mlflow

    uri = os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    _check_place(uri)
    mlflow.set_tracking_uri(uri)
    try:
        mlflow.search_experiments(max_results=1)
    except Exception as error:
        first = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise UserError(
            f"MLFLOW_TRACKING_URI = {uri}: can't be used: {first}; start the server or unset it"
        ) from None
    return uri


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


class Run:
    """One step's MLflow run. Once it has started, a lost server costs the tracking, never the step."""

    def __init__(self, run_id: str):
        self.id = run_id
        self.lost = False

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers; `step` is the epoch of a curve. NaN and infinity are logged as they are."""
        self._try("log_metrics", dict(values), step=step)

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters, dotted names."""
        self._try("log_params", dict(values))

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags."""
        self._try("set_tags", dict(values))

    def file(self, path: Path, folder: str | None = None) -> None:
        """Attach a file."""
        self._try("log_artifact", str(path), artifact_path=folder)

    def folder(self, path: Path, folder: str | None = None) -> None:
        """Attach all files of a folder."""
        self._try("log_artifacts", str(path), artifact_path=folder)

    def picture(self, figure: Any, name: str) -> None:
        """Attach a Matplotlib figure as a PNG."""
        self._try("log_figure", figure, name)

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
        self._try("log_input", described, context=context)

    def _try(self, function: str, *args: Any, **kwargs: Any) -> None:
        if self.lost:
            return
        import mlflow

        try:
            getattr(mlflow, function)(*args, **kwargs)
        except Exception as error:
            first = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
            if getattr(error, "error_code", "") == "INVALID_PARAMETER_VALUE":
                print(f"warning: MLflow refused {function} ({first}); the rest is tracked", file=sys.stderr)
                return
            self.lost = True
            print(f"warning: MLflow no longer answers ({first}); the step goes on untracked", file=sys.stderr)


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
    """
    connect()
    import mlflow

    try:
        experiment = experiment_id(f"contrastive-{name}")
        mlflow.start_run(experiment_id=experiment, run_name=step)
    except mlflow.exceptions.MlflowException as error:
        raise UserError(f"MLflow refused to start a run: {str(error).splitlines()[0][:200]}") from None
    active = mlflow.active_run()
    run = Run(active.info.run_id)
    run.params(flatten(params))
    run.tags({"step": step, "params.digest": digest, **{f"input.{k}": v for k, v in inputs.items()}, **lineage()})
    try:
        yield run
    except BaseException:
        _end("FAILED", run)
        raise
    _end("FINISHED", run)


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
    # dvc.lock changes while the pipeline runs; it tells what was made, not by which code
    if _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!dvc.lock"):
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


def _end(status: str, run: Run) -> None:
    import mlflow

    try:
        mlflow.end_run(status)
    except Exception as error:
        if not run.lost:
            print(f"warning: the MLflow run could not be closed: {error}", file=sys.stderr)
