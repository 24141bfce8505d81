"""A trained network as MLflow's LoggedModel: of its run, its dataset, and the runs that go on from it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus
from pydantic import BaseModel, ConfigDict

from components.shared.digests import file_digest
from components.shared.tracking.client import if_there
from components.shared.training.backend import start_backend

# the name of a pretraining's; a classifier's is that of its step
ENCODER = "encoder"
# tag of a model: of its file
_DIGEST = "digest"
_NEWEST = [{"field_name": "creation_time", "ascending": False}]
_REQUIRED = ("keras", "tensorflow", "tensorflow-cpu", "numpy", "pandas", "mlflow")


class Network(BaseModel):
    """What MLflow is told of a `.keras` file.

    Attributes:
        name: of the model, by which the page lists it and `runs:/<run id>/<name>` finds it.
        image_shape: height, width and channels of the uint8 images that it takes.
        outputs: how many numbers it gives for each.
        class_names: of these, None where they are features.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    image_shape: tuple[int, int, int]
    outputs: int
    class_names: list[str] | None = None


def log_network(run_id: str, path: Path, network: Network) -> None:
    """Log a `.keras` file as a model of a run, byte for byte.

    Done again with the same file, it finishes what was begun, or does nothing.

    Raises:
        MlflowException, OSError: the server does not take it, or there is no such file.
    """
    client = MlflowClient()
    run = client.get_run(run_id)
    kind = "encoder" if network.class_names is None else "classifier"
    model, digest = find_network(run_id, network.name), file_digest(path)
    # another file is that of a later try of the step
    if model is None or model.tags.get(_DIGEST) != digest:
        model = client.create_logged_model(
            run.info.experiment_id, network.name, run_id, {_DIGEST: digest}, run.data.params, kind
        )
    if model.status == LoggedModelStatus.READY:
        return
    # quietly, before MLflow imports Keras
    start_backend()
    # imported here: it takes a while, and most steps have no network to log
    from mlflow.models import Model, infer_signature

    example = np.zeros((1, *network.image_shape), np.uint8), np.zeros((1, network.outputs), np.float32)
    with tempfile.TemporaryDirectory(prefix="model-") as place:
        folder = f"{place}/model"
        mlflow.keras.save_model(
            # MLflow saves it by copying
            SimpleNamespace(save=partial(shutil.copyfile, path)),
            folder,
            mlflow_model=Model(model.artifact_location, run_id, model_id=model.model_id),
            signature=infer_signature(*example),
            pip_requirements=requirements(),
            metadata={"class_names": network.class_names} if network.class_names else None,
        )
        client.log_model_artifacts(model.model_id, folder)
    if model.model_id not in {output.model_id for output in run.outputs.model_outputs}:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def find_network(run_id: str, name: str) -> LoggedModel | None:
    """The last model that a run has logged by a name; None where the server knows no such run or model."""
    client = MlflowClient()
    run = if_there(client.get_run, run_id)
    if run is None:
        return None
    wanted = f"source_run_id = '{run_id}' AND name = '{name}'"
    found: Sequence[LoggedModel] = client.search_logged_models(
        [run.info.experiment_id], wanted, max_results=1, order_by=_NEWEST
    )
    return found[0] if found else None


def requirements(*more: str) -> list[str]:
    """The installed versions of what a network needs to answer, and of more, pinned."""
    pinned = []
    for name in (*_REQUIRED, *more):
        try:
            pinned.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            continue
    return pinned
