"""Finished models for use: from the registry, an MLflow folder or a `.keras` file."""

from __future__ import annotations

import os
import re
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.exceptions import MlflowException
from PIL import Image

from components.shared.artifacts import Manifest, Result, read_record
from components.shared.errors import UserError, first_line
from components.shared.registry.uris import parse_uri
from components.shared.registry.versions import open_registry, resolve
from components.shared.training.backend import start_backend

if TYPE_CHECKING:
    from pipelines.inference.networks import ReadyModel

_ADDRESS = re.compile(r"(models|runs):/+.")
_FILES = ("classifier.keras", "encoder.keras")


def load_ready(where: str) -> ReadyModel:
    """Load a model that was trained here.

    Args:
        where: `models:/<name>@<alias>`, `models:/<name>/<number>` or another address that MLflow knows by
            `models:/` or `runs:/`; or the path of a `.keras` file, of a step's folder or of an MLflow model folder.

    Raises:
        UserError: there is nothing there, it can't be loaded, or it does not take images.
    """
    if _ADDRESS.match(where):
        return _from_registry(where)
    path = Path(where)
    if path.is_dir():
        if (path / "MLmodel").is_file():
            return _from_mlflow(path, where)
        found = [path / name for name in _FILES if (path / name).is_file()]
        if not found:
            raise UserError(f"{where}: holds neither {_FILES[0]} nor {_FILES[1]}; run the step that writes it")
        path = found[0]
    if not path.exists():
        raise UserError(f"{where}: no such model; give models:/<name>@<alias>, or the path of a .keras file")
    return _networks().load_keras(path, _names_beside(path))


def _from_registry(uri: str) -> ReadyModel:
    # files of a version come within a second; MLflow draws several bars for them
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    open_registry(uri)
    resolved = resolve(uri)
    version = parse_uri(resolved)
    with tempfile.TemporaryDirectory(prefix="model-") as folder:
        try:
            local = mlflow.artifacts.download_artifacts(artifact_uri=resolved, dst_path=folder)
        except (MlflowException, OSError) as error:
            raise UserError(f"{uri}: MLflow does not give it: {first_line(error)}; check the address") from None
        return _from_mlflow(
            Path(local), f"{version.name} version {version.version}" if version and version.version else uri
        )


def _from_mlflow(folder: Path, name: str) -> ReadyModel:
    """Load an MLflow model folder of the flavor `keras`."""
    try:
        described = mlflow.models.Model.load(str(folder / "MLmodel"))
    except Exception as error:  # its YAML and its fields each have their own exceptions
        raise UserError(f"{name}: not an MLflow model: {first_line(error)}") from None
    if "keras" not in described.flavors:
        raise UserError(f"{name}: holds {', '.join(described.flavors)}, not a Keras model; choose another one")
    names = (described.metadata or {}).get("class_names")
    return _networks().load_logged(
        folder, name, [str(label) for label in names] if isinstance(names, list) else None
    )


def _networks() -> Any:
    """The module that handles Keras models, imported only when there is one, after a quiet start of its backend."""
    start_backend()
    from pipelines.inference import networks

    return networks


def _names_beside(path: Path) -> list[str] | None:
    """Class names for a model in a step's folder, from the dataset beside it that it was trained on."""
    folder = path.resolve().parent
    try:
        trained_on = read_record(folder, Result).dataset_digest
        manifest = read_record(folder.parent / "dataset", Manifest)
    except UserError:
        return None
    return manifest.class_names if manifest.digest == trained_on else None


def quiet() -> None:
    """Keep libraries' remarks off the error stream, where the skipped files are named; call it first."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # large photographs are fine; what may be an attack is an error of its own
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
