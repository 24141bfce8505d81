"""Curves of trainings for TensorBoard and Weights & Biases, where a variable asks for them, beside MLflow."""

from __future__ import annotations

import importlib.util
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from components.shared.artifacts import require_writable
from components.shared.errors import UserError, first_line
from components.shared.repository import in_lasting_repository
from components.shared.tracking.lineage import pipeline_name

# a folder for TensorBoard, a project of W&B; in the environment, as where MLflow is: they change no result
TENSORBOARD, WANDB = "CONTRASTIVE_TENSORBOARD", "CONTRASTIVE_WANDB"


class Logger(Protocol):
    """Where curves go besides MLflow."""

    name: str

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Show numbers of an epoch."""

    def close(self, failed: bool) -> None:
        """Nothing follows."""


def require_loggers() -> None:
    """Refuse a logger that is asked for and can't be had, before anything is trained.

    Raises:
        UserError: a package is missing, or the folder can't be written.
    """
    for variable, package in ((TENSORBOARD, "tensorflow"), (WANDB, "wandb")):
        asked = os.environ.get(variable)
        if asked and importlib.util.find_spec(package) is None:
            raise UserError(f"{variable} = {asked}: {package} is not installed; install it, or unset the variable")
    if folder := os.environ.get(TENSORBOARD):
        require_writable(_lasting(folder), "what TensorBoard shows")


def open_loggers(title: str, experiment: str, run_id: str, params: Mapping[str, Any]) -> Iterator[Logger]:
    """Those that the variables ask for.

    Args:
        title: of the training.
        experiment: that it belongs to.
        run_id: of MLflow.
        params: of the step, by dotted names.

    Raises:
        UserError: W&B does not take the run.
    """
    if folder := os.environ.get(TENSORBOARD):
        yield _TensorBoard(_lasting(folder) / experiment / f"{title.replace(' ', '-')}-{run_id[:8]}")
    if project := os.environ.get(WANDB):
        yield _WandB(project, title, run_id, params)


def _lasting(folder: str) -> Path:
    """Seen from the repository's top, which outlasts DVC's temporary copies of it; from here outside of one."""
    try:
        return in_lasting_repository(folder)
    except UserError:
        return Path(folder)


class _TensorBoard:
    """An event file, which TensorFlow writes without the package that shows it.

    `tf.summary` asks for that package, and would take a graphics card that another backend works on.
    """

    name = "TensorBoard"

    def __init__(self, folder: Path):
        import tensorflow as tf

        self._event, self._summary = tf.compat.v1.Event, tf.compat.v1.Summary
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        self._file = tf.io.TFRecordWriter(str(folder / name))
        self._write(file_version="brain.Event:2")

    def log(self, values: Mapping[str, float], step: int) -> None:
        numbers = [self._summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(step=step, summary=self._summary(value=numbers))

    def close(self, failed: bool) -> None:
        self._file.close()

    def _write(self, **content: Any) -> None:
        self._file.write(self._event(wall_time=time.time(), **content).SerializeToString())
        # so that the page shows them as they come
        self._file.flush()


class _WandB:
    """A run of Weights & Biases, in the group of its pipeline."""

    name = "W&B"

    def __init__(self, project: str, title: str, run_id: str, params: Mapping[str, Any]):
        import wandb

        try:
            self._run = wandb.init(
                project=project,
                name=title,
                group=pipeline_name(),
                config={**params, "mlflow_run": run_id},
                dir=str(_lasting(os.environ.get("WANDB_DIR") or ".")),
            )
        except Exception as error:  # of the network, of an account, of a name
            raise UserError(
                f"{WANDB} = {project}: W&B does not take the run: {first_line(error)}; `wandb login`, or "
                "WANDB_MODE=offline"
            ) from None

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))
