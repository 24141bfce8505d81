"""A classifier's file as an MLflow model: signature, a real example, class names, pinned requirements."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from components.shared.artifacts import Dataset
from components.shared.errors import RefusedError, UserError, first_line
from components.shared.registry.uris import parse_uri
from components.shared.training.backend import start_backend

_REQUIRED = ("keras", "tensorflow", "tensorflow-cpu", "numpy", "mlflow")


def log_classifier(path: Path, data: Dataset, run_id: str) -> str:
    """Log a classifier to an MLflow run, its file as it is, byte for byte.

    Args:
        path: `classifier.keras`, from uint8 images (N, H, W, 3) to probabilities (N, classes).
        data: the dataset it was trained on; the example is its first training image.
        run_id: of the step.

    Returns:
        The logged model's address, `models:/m-…`.

    Raises:
        RefusedError: Keras can't load the file, or it takes or gives something else.
        UserError: MLflow does not take it.
    """
    _check(path, data)
    size = data.manifest.image_size
    # without names: MLflow hands named tensors to the model as a dictionary, which it does not take
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("uint8"), (-1, size, size, 3))]),
        outputs=Schema([TensorSpec(np.dtype("float32"), (-1, data.classes))]),
    )
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    client = mlflow.MlflowClient()
    try:
        run = client.get_run(run_id)
        made = client.create_logged_model(run.info.experiment_id, "classifier", run_id, params=run.data.params)
        logged = Model.log(
            artifact_path=None,
            model_id=made.model_id,
            run_id=run_id,
            flavor=_KerasFlavor,
            flavor_name=mlflow.keras.__name__,
            model=_File(path),
            signature=signature,
            input_example=np.array(data.images("train")[:1]),
            pip_requirements=requirements(),
            # kept with the model's files, whatever becomes of the version's tags; also longer than a tag may be
            metadata={"class_names": data.manifest.class_names},
            # the model is served for real afterwards, in a process of its own
            validate_serving_input=False,
        )
    except (MlflowException, OSError) as error:
        raise UserError(f"MLflow did not take the model: {first_line(error)}; run again") from None
    return str(logged.model_uri)


def describe_logged_model(
    model_uri: str, run_id: str, metrics: Mapping[str, float], tags: Mapping[str, str]
) -> None:
    """Let MLflow's page show numbers and tags beside a logged model; a version of a registered one is left alone.

    Args:
        model_uri: `models:/m-…`, or `models:/<name>/<version>`.
        run_id: of the step.
        metrics: numbers of the model.
        tags: what else there is to say.

    Raises:
        UserError: MLflow does not answer.
    """
    parsed = parse_uri(model_uri)
    if parsed is None or parsed.model_id is None:
        return
    try:
        if metrics:
            mlflow.log_metrics(dict(metrics), run_id=run_id, model_id=parsed.model_id)
        mlflow.MlflowClient().set_logged_model_tags(parsed.model_id, dict(tags))
    except (MlflowException, OSError) as error:
        raise UserError(
            f"MLflow does not take what was found of the model: {first_line(error)}; run again"
        ) from None


def requirements() -> list[str]:
    """The installed versions of what the model needs to answer, pinned."""
    pinned = []
    for name in _REQUIRED:
        try:
            pinned.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            continue
    return pinned


class _KerasFlavor:
    """`mlflow.keras`, with which an input example can be saved: its own fails where the folder is not there yet."""

    @staticmethod
    def save_model(path: str, validate_serving_input: bool, **arguments: Any) -> None:
        Path(path).mkdir(parents=True, exist_ok=True)
        mlflow.keras.save_model(path=path, **arguments)


@dataclass(frozen=True)
class _File:
    """A saved model, which MLflow saves by copying: the file in the registry is the one that was judged."""

    path: Path

    def save(self, path: str) -> None:
        """Copy the file to where MLflow wants the model."""
        shutil.copyfile(self.path, path)


def _check(path: Path, data: Dataset) -> None:
    start_backend()
    import keras

    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:  # the archive, its JSON and its HDF5 each have their own exceptions
        raise RefusedError(f"{path}: Keras can't load it: {first_line(error)}") from None
    if tuple(model.output_shape) != (None, data.classes):
        raise RefusedError(
            f"{path}: gives {model.output_shape}, not probabilities of the dataset's {data.classes} classes"
        )
