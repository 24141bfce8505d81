"""Finished models for use: from the registry, an MLflow folder or a `.keras` file."""

from __future__ import annotations

import os
import re
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.shared.artifacts import Manifest, Result, read_record
from components.shared.errors import UserError, first_line
from components.shared.registry.versions import open_registry, resolve
from components.shared.training.backend import start_backend

_ADDRESS = re.compile(r"(models|runs):/+.")
_FILES = ("classifier.keras", "encoder.keras")


@dataclass(frozen=True)
class ReadyModel:
    """A loaded model.

    Attributes:
        name: for people, such as "contrastive-sample version 3" or "encoder/encoder.keras".
        network: a Keras model from uint8 images, shape (N, size, size, 3).
        size: height and width of the images it was trained on, in pixels.
        class_names: in the order of its outputs; None where it does not say.
    """

    name: str
    network: Any
    size: int
    class_names: list[str] | None

    def classifier(self) -> Any:
        """The network from images to class probabilities, shape (N, classes).

        Raises:
            UserError: its outputs are no probabilities.
        """
        last = _last_layer(self.network)
        if not _is_softmax(last):
            raise UserError(
                f"{self.name}: its last layer ({last.name}) is no softmax, so it gives no probabilities; "
                "choose a classifier, or write its features with `contrastive embed`"
            )
        return self.network

    def labels(self) -> list[str]:
        """Names of the classes; their numbers, from 0, where they are not known."""
        outputs = self.network.output_shape[-1]
        if self.class_names is not None and len(self.class_names) == outputs:
            return self.class_names
        return [str(number) for number in range(outputs)]

    def encoder(self) -> Any:
        """The network from images to features, shape (N, D): of a classifier, what its head is given.

        Raises:
            UserError: it is a classifier whose head can't be told from the rest, or its outputs are no vectors.
        """
        if _is_softmax(_last_layer(self.network)):
            return _without_head(self.network, self.size, self.name)
        if len(self.network.output_shape) != 2:
            raise UserError(f"{self.name}: gives {self.network.output_shape}, not features of shape (N, D)")
        return self.network


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
    return _ready(str(path), _load_keras(path), _names_beside(path))


def _from_registry(uri: str) -> ReadyModel:
    # files of a version come within a second; MLflow draws several bars for them
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    open_registry(uri)
    import mlflow
    from mlflow.exceptions import MlflowException

    resolved = resolve(uri)
    version = re.fullmatch(r"models:/+([^/@]+)/(\d+)", resolved)
    with tempfile.TemporaryDirectory(prefix="model-") as folder:
        try:
            local = mlflow.artifacts.download_artifacts(artifact_uri=resolved, dst_path=folder)
        except (MlflowException, OSError) as error:
            raise UserError(f"{uri}: MLflow does not give it: {first_line(error)}; check the address") from None
        return _from_mlflow(Path(local), f"{version[1]} version {version[2]}" if version else uri)


def _from_mlflow(folder: Path, name: str) -> ReadyModel:
    """Load an MLflow model folder of the flavour `keras`."""
    import mlflow

    try:
        described = mlflow.models.Model.load(str(folder / "MLmodel"))
    except Exception as error:  # its YAML and its fields each have their own exceptions
        raise UserError(f"{name}: not an MLflow model: {first_line(error)}") from None
    if "keras" not in described.flavors:
        raise UserError(f"{name}: holds {', '.join(described.flavors)}, not a Keras model; choose another one")
    start_backend()
    try:
        network = mlflow.keras.load_model(str(folder), load_model_kwargs={"compile": False})
    except Exception as error:
        raise UserError(f"{name}: Keras can't load it: {first_line(error)}") from None
    names = (described.metadata or {}).get("class_names")
    return _ready(name, network, [str(label) for label in names] if isinstance(names, list) else None)


def _load_keras(path: Path) -> Any:
    start_backend()
    import keras

    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # the archive, its JSON and its HDF5 each have their own exceptions
        raise UserError(f"{path}: Keras can't load it: {first_line(error)}") from None


def _names_beside(path: Path) -> list[str] | None:
    """Class names for a model in a step's folder, from the dataset beside it that it was trained on."""
    folder = path.resolve().parent
    try:
        trained_on = read_record(folder, Result).dataset_digest
        manifest = read_record(folder.parent / "dataset", Manifest)
    except UserError:
        return None
    return manifest.class_names if manifest.digest == trained_on else None


def _ready(name: str, network: Any, class_names: list[str] | None) -> ReadyModel:
    import keras

    shape = network.input_shape if isinstance(network, keras.Model) else None
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[-1] != 3:
        raise UserError(f"{name}: takes {shape}, not images (N, size, size, 3); choose another model")
    size = shape[1:3]
    for layer in network.layers:
        if size == (None, None) and isinstance(layer, keras.layers.Resizing):
            size = (layer.height, layer.width)
    if size[0] is None or size[0] != size[1]:
        raise UserError(f"{name}: does not tell the size of its images (it takes {shape}); choose another model")
    return ReadyModel(name, network, size[0], class_names)


def _last_layer(network: Any) -> Any:
    """The layer that makes the outputs, also inside models that are layers of others."""
    while getattr(network, "layers", None):
        network = network.layers[-1]
    return network


def _is_softmax(layer: Any) -> bool:
    import keras

    return isinstance(layer, keras.layers.Softmax) or (
        getattr(layer, "activation", None) is keras.activations.softmax
    )


def _is_head(layer: Any) -> bool:
    """Whether a layer is a classifier's head: dense layers, the last one with softmax."""
    import keras

    parts = layer.layers if isinstance(layer, keras.Sequential) else [layer]
    dense = (keras.layers.Dense, keras.layers.Dropout)
    return all(isinstance(part, dense) for part in parts) and _is_softmax(parts[-1])


def _without_head(network: Any, size: int, name: str) -> Any:
    """A network without its last layer, checked: the head must make the whole's answers of what it gives."""
    import keras
    from keras import ops

    refusal = UserError(f"{name}: its features can't be told from its head; give the encoder itself with --model")
    layers = [layer for layer in network.layers if not isinstance(layer, keras.layers.InputLayer)]
    if not _is_head(layers[-1]):
        raise refusal
    inputs = keras.Input(network.input_shape[1:], dtype=network.inputs[0].dtype)
    noise = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    try:
        encoder = keras.Sequential([inputs, *layers[:-1]])
        again = layers[-1](encoder(noise, training=False), training=False)
        whole = network(noise, training=False)
    except (ValueError, TypeError):
        raise refusal from None
    # layers that do not simply follow one upon the other give something else
    same = np.allclose(ops.convert_to_numpy(again), ops.convert_to_numpy(whole), atol=1e-4)
    if not same or len(encoder.output_shape) != 2:
        raise refusal
    return encoder


def quiet() -> None:
    """Keep libraries' remarks off the error stream, where the files that were skipped are told; call it first."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from PIL import Image

    # large photographs are fine; what may be an attack is an error of its own
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
