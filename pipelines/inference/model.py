"""Finished models for use: from the registry, an MLflow folder or a `.keras` file."""

from __future__ import annotations

import json
import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
from PIL import Image

from components.shared.artifacts import Manifest, Result, read_record
from components.shared.errors import UserError, first_line
from components.shared.params.schema import load_params
from components.shared.registry.signature import MODEL_FILE, fetch, require_signed
from components.shared.registry.uris import ModelUri, parse_uri
from components.shared.registry.versions import open_registry, resolve
from components.shared.repository import in_repository
from components.shared.training.backend import start_backend

if TYPE_CHECKING:
    from pipelines.inference.networks import ReadyModel

_ADDRESS = re.compile(r"(models|runs):/+.")


@dataclass(frozen=True)
class Located:
    """The files of a trained model, here for as long as they are used.

    Attributes:
        path: of a `.keras` file or of an MLflow model's folder.
        name: for people.
        class_names: in the order of its outputs; None where nothing tells them.
        version: of the registry, where it comes from there.
    """

    path: Path
    name: str
    class_names: list[str] | None
    version: ModelUri | None = None

    @property
    def keras_file(self) -> Path:
        """The `.keras` file itself; not there where MLflow keeps the model in another form."""
        return self.path / MODEL_FILE if self.path.is_dir() else self.path

    def load(self) -> ReadyModel:
        """Load it.

        Raises:
            UserError: Keras can't, or it does not take images.
        """
        start_backend()
        # only here: its backend must have started quietly
        from pipelines.inference import networks

        return networks.load(self.path, self.name, self.class_names)


def load_ready(where: str) -> ReadyModel:
    """Load a model that was trained here.

    Args:
        where: see `located`.

    Raises:
        UserError: as `located`; or it can't be loaded, or does not take images.
    """
    with located(where) as found:
        return found.load()


@contextmanager
def located(where: str) -> Iterator[Located]:
    """A model's files, fetched from the registry until the block ends, or where they lie.

    Args:
        where: `models:/<name>@<alias>`, `models:/<name>/<number>` or another address that MLflow knows by
            `models:/` or `runs:/`; or the path of a `.keras` file or of an MLflow model folder.

    Raises:
        UserError: there is nothing there, or it comes from MLflow and is not signed as it must be.
    """
    # libraries' remarks off the error stream, where the skipped files are named: an image so large that it may be
    # an attack is an error of its own
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    path = Path(where)
    if _ADDRESS.match(where):
        with tempfile.TemporaryDirectory(prefix="model-") as folder:
            yield _from_registry(where, Path(folder))
    elif path.is_dir():
        yield _from_mlflow(path, where)
    elif path.exists():
        yield Located(path, where, _names_beside(path))
    else:
        raise UserError(f"{where}: no such model; give models:/<name>@<alias>, or the path of a .keras file")


def _from_registry(uri: str, folder: Path) -> Located:
    open_registry(uri)
    resolved = resolve(uri)
    version = parse_uri(resolved)
    registered = version if version and version.version else None
    name = f"{registered.name} version {registered.version}" if registered else uri
    try:
        local = fetch(resolved, folder)
    except UserError as error:
        raise UserError(f"{uri}: MLflow does not give it: {error}; check the address") from None
    require_signed(local, name, _signature_required())
    return _from_mlflow(local, name, registered)


def _signature_required() -> bool:
    """What params.yaml says, where there is one."""
    try:
        path = in_repository("params.yaml")
    except UserError:
        return False
    return path.exists() and load_params(path, "register").registry.require_signature


def _from_mlflow(folder: Path, name: str, version: ModelUri | None = None) -> Located:
    """An MLflow model folder of the flavor `keras`."""
    try:
        described = mlflow.models.Model.load(str(folder / "MLmodel"))
    except Exception as error:  # its YAML and its fields each have their own exceptions
        raise UserError(f"{name}: not an MLflow model: {first_line(error)}") from None
    if "keras" not in described.flavors:
        raise UserError(f"{name}: holds {', '.join(described.flavors)}, not a Keras model; choose another one")
    return Located(folder, name, (described.metadata or {}).get("class_names"), version)


def description_of(path: Path) -> Path:
    """Where `contrastive export` writes what it knows of an exported model."""
    return path.with_name(f"{path.name}.json")


def _names_beside(path: Path) -> list[str] | None:
    """Class names: of an exported model, or of one in a step's folder, from the dataset that it was trained on."""
    try:
        names: list[str] = json.loads(description_of(path).read_bytes())["class_names"]
        return names
    except (OSError, ValueError, KeyError, TypeError):
        pass
    folder = path.resolve().parent
    try:
        trained_on = read_record(folder, Result).dataset_digest
        manifest = read_record(folder.parent / "dataset", Manifest)
    except UserError:
        return None
    return manifest.class_names if manifest.digest == trained_on else None
