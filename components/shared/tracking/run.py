"""Each step as one MLflow run: parameters, curves, pictures, lineage, and what the machine did meanwhile.

A server that is away when a step starts is an error; one that is lost later costs the step nothing, see `journal`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS

from components.shared.artifacts import Dataset, require_writable
from components.shared.errors import UserError, first_line
from components.shared.tracking.addresses import local_path
from components.shared.tracking.client import connect, patience
from components.shared.tracking.journal import Journal, Kind
from components.shared.tracking.lineage import lineage
from components.shared.tracking.live import draw
from components.shared.tracking.loggers import Logger, open_loggers, require_loggers
from components.shared.tracking.models import Network
from components.shared.tracking.pipeline_run import PARENT, PipelineRun, experiment_of, given_run
from components.shared.tracking.system_metrics import SystemMetrics

# of a dataset's digest as many characters as MLflow takes
_DIGEST = 36
# seconds that the end of a step waits for a lost server; and when someone wants the step to end
PATIENCE, PATIENCE_WHEN_KILLED = 60.0, 5.0


class Run:
    """What a step may log.

    Args:
        run_id: of MLflow; empty where another process does the tracking, and nothing is logged here.
        place: the step's folder.
        pipeline: the run that it is nested in.
        seed: of the replicate that it is about.
        loggers: opens what curves go to besides MLflow.
    """

    def __init__(
        self,
        run_id: str = "",
        place: Path = Path(),
        pipeline: PipelineRun | None = None,
        seed: int | None = None,
        loggers: Callable[[], Iterable[Logger]] = tuple,
    ):
        self.id, self.pipeline, self.seed = run_id, pipeline or PipelineRun(), seed
        self._open_loggers = loggers
        self.journal = Journal(run_id, place)
        self._loggers: list[Logger] = []
        self.system: SystemMetrics | None = None

    def _log(self, kind: Kind, **content: Any) -> None:
        if self.id:
            self._log_system()
            self.journal.log(kind, **content)

    def _log_system(self) -> None:
        for sample in self.system.take() if self.system is not None else ():
            self.journal.log("metrics", **sample._asdict())

    def watch_system(self) -> None:
        """Log what the machine does, from now on."""
        self.system = SystemMetrics(self.id)

    def end_system(self) -> None:
        """Log what was seen of the machine up to now, and no more."""
        if self.system is not None:
            self.system.stop()
            self._log_system()

    def metrics(
        self, values: Mapping[str, float], step: int | None = None, of: Mapping[str, str] | None = None
    ) -> None:
        """Log numbers; `step` is the epoch of a curve. NaN and infinity are logged as they are.

        `of` is what `model` gave: they are then that model's too, on its dataset.
        """
        numbers = {key: float(value) for key, value in values.items()}
        self._log("metrics", values=numbers, time=_milliseconds(), step=step or 0, of=of)

    def curve(self, values: Mapping[str, float], epoch: int) -> None:
        """Log numbers of an epoch and draw them, in TensorBoard and W&B too after `begin_curves`."""
        self.metrics(values, step=epoch)
        if self.id and self.seed is not None:
            draw(epoch, self.seed, values)
        self._tell(lambda logger: logger.log(values, epoch))

    def begin_curves(self) -> None:
        """Let TensorBoard and W&B have a run too, where they are asked for: curves follow.

        Raises:
            UserError: W&B does not take it.
        """
        self._loggers.extend(self._open_loggers())

    def end_curves(self, failed: bool) -> None:
        """No curves follow."""
        self._tell(lambda logger: logger.close(failed))
        self._loggers.clear()

    def _tell(self, call: Callable[[Logger], None]) -> None:
        for logger in list(self._loggers):
            try:
                call(logger)
            except Exception as error:  # each has its own, and MLflow has the curves
                print(f"warning: {logger.name}: {first_line(error)}; it gets no more curves", file=sys.stderr)
                self._loggers.remove(logger)

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters, dotted names."""
        self._log("params", values={key: str(value) for key, value in values.items()})

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags."""
        self._log("tags", values={key: str(value) for key, value in values.items()})

    def file(self, path: Path, folder: str | None = None) -> None:
        """Attach a file of the step's output, or all files of a folder, which must stay as they are."""
        self._log("file", path=os.path.relpath(path, self.journal.place), folder=folder)

    def model(self, path: Path, name: str, outputs: int, dataset: Dataset, classifier: bool) -> dict[str, str]:
        """Log a `.keras` file of the step's output as a model of MLflow that this run has made.

        Args:
            path: of the file, from uint8 images (N, H, W, C) to float32 (N, outputs), which must stay as it is.
            name: of the model.
            outputs: how many numbers it gives for an image.
            dataset: that it learned from, and that metrics of it are about.
            classifier: they are probabilities of the dataset's classes, not features.

        Returns:
            What ties metrics to it, see `metrics`.
        """
        manifest = dataset.manifest
        names = manifest.class_names if classifier else None
        network = Network(name=name, image_shape=manifest.image_shape, outputs=outputs, class_names=names)
        self._log("model", path=os.path.relpath(path, self.journal.place), network=network.model_dump())
        return {"model": name, "dataset": manifest.name, "digest": manifest.digest[:_DIGEST]}

    def uses(self, run_id: str, name: str) -> None:
        """Say that the run goes on from a model that another run has logged, where the server knows it."""
        self._log("uses", run=run_id, name=name)

    def show_tables(self, names: Sequence[str]) -> None:
        """Let MLflow's evaluation view show files that are attached, written as `mlflow.log_table` does."""
        if names:
            self.tags({MLFLOW_LOGGED_ARTIFACTS: json.dumps([{"path": name, "type": "table"} for name in names])})

    def dataset(self, dataset: Dataset, context: str) -> None:
        """Log a dataset (name, digest, source) as the run's input."""
        manifest = dataset.manifest
        with warnings.catch_warnings():
            # MLflow registers its source of local files twice and then warns that it had a choice
            warnings.filterwarnings("ignore", message="The specified dataset source can be interpreted")
            described = mlflow.data.from_numpy(
                dataset.labels("train"),
                source=manifest.source,
                name=manifest.name,
                digest=manifest.digest[:_DIGEST],
            )
        self._log("dataset", dataset=described.to_dict(), context=context)


@contextmanager
def tracked(
    step: str,
    params: Mapping[str, Any],
    digest: str,
    inputs: Mapping[str, str],
    name: str,
    seed: int | None = None,
    partial: Path | None = None,
    out: Path | None = None,
    nested: bool = True,
) -> Iterator[Run]:
    """Track one step, as a run that is nested in its pipeline's.

    Kubeflow's own MLflow tracking makes both before the step starts; they are then used. So is, on a cluster, the
    run of an earlier try of the step.

    Args:
        step: the step's name, also the run's.
        params: its parameters, nested plain values.
        digest: of the parameters.
        inputs: input folder → its digest.
        name: the dataset's name; the experiment is `contrastive-<name>`.
        seed: of the replicate that the run is about; in its name and its tag `replicate`.
        partial: the step's folder while it is written: `tracking.json` is put there if the server is lost.
        out: what that folder is called in the end.
        nested: False for a run that belongs to no pipeline.

    Raises:
        UserError: the server does not answer or refuses the run, `TRACKING_PATIENCE_SECONDS` is no number, or a
            logger is asked for that can't be had.
    """
    waiting = patience(PATIENCE)
    require_loggers()
    connect()
    experiment, started = f"contrastive-{name}", _milliseconds()
    replicate = {} if seed is None else {"replicate": str(seed)}
    title = step if seed is None else f"{step} {seed}"
    try:
        made, pipeline = _begun(name, started, title, nested)
    except MlflowException as error:
        raise UserError(f"MLflow refused to start a run: {first_line(error)}") from None
    run_id = made.info.run_id

    def loggers() -> Iterator[Logger]:
        return open_loggers(title, experiment, run_id, flatten(params))

    run = Run(run_id, partial or Path(), pipeline, seed, loggers)
    pipeline.begin()
    run.watch_system()
    status = "FAILED"
    try:
        with _terminated_as_exit():
            if (artifacts := local_path(made.info.artifact_uri)) is not None:
                require_writable(artifacts, "what MLflow keeps of the step")
            run.params(flatten(params))
            inputs_tags = {f"input.{key}": value for key, value in inputs.items()}
            run.tags({"step": step, **replicate, "params.digest": digest, **inputs_tags, **lineage()})
            yield run
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status, waiting = "KILLED", min(waiting, PATIENCE_WHEN_KILLED)
        raise
    finally:
        run.end_curves(failed=status != "FINISHED")
        run.end_system()
        ended = _milliseconds()
        if run.journal.end(status, ended, waiting):
            pipeline.end(status)
        else:
            lost = f"warning: MLflow did not take all of run {run.id} within {waiting:.0f} s"
            if status == "FINISHED" and partial is not None:
                try:
                    run.journal.keep(
                        experiment=experiment, step=step, started=started, ended=ended, pipeline=pipeline.id
                    )
                    lost += f"; `contrastive resend {out}` sends the rest"
                except OSError as error:
                    lost += f", nor can it be kept ({error.strerror})"
                lost += ". The step's output is whole"
            print(lost, file=sys.stderr)


def _begun(name: str, started: int, title: str, nested: bool) -> tuple[mlflow.entities.Run, PipelineRun]:
    """The run of a step, and that of its pipeline; a step that a cluster tries again goes on in its first try's."""
    client = mlflow.MlflowClient()
    pipeline = PipelineRun.of(name) if nested else PipelineRun()
    given = given_run()
    known = client.get_run(given) if given else pipeline.earlier_try(title, name)
    if known is None:
        tags = {**resolve_tags(), **({PARENT: pipeline.id} if nested else {})}
        return client.create_run(experiment_of(name), started, tags, title), pipeline
    if known.info.status != "RUNNING":
        client.update_run(known.info.run_id, status="RUNNING")
    return known, pipeline


def under(section: str, values: Mapping[str, float]) -> dict[str, float]:
    """Numbers by the names that put them into a section of MLflow's page: {"loss": 1} becomes {"train/loss": 1}."""
    return {f"{section}/{name}": value for name, value in values.items()}


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted names: {"a": {"b": 1}} becomes {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


@contextmanager
def _terminated_as_exit() -> Iterator[None]:
    """Let SIGTERM, by which a cluster ends a pod, leave through the code that ends the run."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: Any) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000
