"""A pretrained start: the weights that an encoder has before it is pretrained, and the digest that names them."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from components.shared.digests import file_digest
from components.shared.errors import UserError, first_line

_ADDRESS = re.compile(r"(models|runs):/+.")
# in a folder of a step, and of an MLflow model
_FILES = ("encoder.keras", "classifier.keras", "data/model.keras")


def is_in_mlflow(where: str) -> bool:
    """Whether `encoder.weights` is an address that MLflow knows, not a path."""
    return _ADDRESS.match(where) is not None


def find_start(path: Path, where: str) -> Path:
    """The `.keras` file at a path, or in the folder there.

    Args:
        path: of the file, or of a folder that a step or MLflow has written.
        where: `encoder.weights`, for the message.

    Raises:
        UserError: there is none.
    """
    files = [path] if path.is_file() else [path / name for name in _FILES if (path / name).is_file()]
    if not files:
        raise UserError(
            f"encoder.weights = {where}: no such .keras file, or folder with one; check the path, or leave it null"
        )
    return files[0]


def start_digest(where: str | None) -> str | None:
    """SHA-256 of the file that `encoder.weights` names: one replaced under its old name is another start.

    Raises:
        UserError: there is none.
    """
    if where is None:
        return None
    with _file(where) as path:
        return file_digest(path)


def load_start(where: str, shapes: list[tuple[int, ...]], image_shape: tuple[int, int, int]) -> list[np.ndarray]:
    """The weights of the encoder in a Keras model: of the model itself, or of a network within it.

    Args:
        where: `encoder.weights`: a `.keras` file, a folder that a step or MLflow has written, or an address that
            MLflow knows by `models:/` or `runs:/`.
        shapes: of the weights of the encoder that shall start with them.
        image_shape: height, width and channels of its images.

    Raises:
        UserError: there is no such model, or it is another network or one for images of another size or of
            other channels.
    """
    import keras

    from models.methods.shared.heads import WITH_LAYERS

    with _file(where) as path:
        try:
            model = keras.saving.load_model(path, compile=False)
        except Exception as error:  # the archive, its JSON and its HDF5 each have their own exceptions
            raise UserError(f"encoder.weights = {where}: Keras can't load it: {first_line(error)}") from None
    found = [part for part in (model, *model.layers) if isinstance(part, keras.Model)]
    image_size, _, channels = image_shape
    taken = {part.input_shape[-1] for part in found if len(part.input_shape) == 4}
    if taken and channels not in taken:
        other = taken.pop()
        raise UserError(
            f"encoder.weights = {where}: was trained with data.channels={other}; set that (it is {channels}), or "
            "start from other weights"
        )
    # below the layers of a projection head that a fine-tuning has kept
    below = [part.layers[1] for part in found[1:] if part.name == WITH_LAYERS]
    alike = [part for part in (*found, *below) if [tuple(weight.shape) for weight in part.weights] == shapes]
    if not alike:
        names = ", ".join(f"{part.name} of {part.count_params():,} weights" for part in found)
        raise UserError(
            f"encoder.weights = {where}: holds {names}, not the {sum(map(math.prod, shapes)):,} weights of the "
            "options encoder and data.image_size; set these as they were, or start from other weights"
        )
    sizes = {part.input_shape[1] for part in alike} - {None}
    if sizes and image_size not in sizes:
        size = sizes.pop()
        raise UserError(
            f"encoder.weights = {where}: was trained on {size}×{size} pixels; set data.image_size={size} (it is "
            f"{image_size}), or start from other weights"
        )
    weights: list[np.ndarray] = alike[0].get_weights()
    return weights


@contextmanager
def _file(where: str) -> Iterator[Path]:
    if not is_in_mlflow(where):
        yield find_start(Path(where), where)
        return
    # only here: other starts need no registry
    import mlflow
    from mlflow.exceptions import MlflowException

    from components.shared.registry.versions import open_registry, resolve

    open_registry(where)
    with tempfile.TemporaryDirectory(prefix="weights-") as folder:
        try:
            local = mlflow.artifacts.download_artifacts(artifact_uri=resolve(where), dst_path=folder)
        except (MlflowException, OSError) as error:
            raise UserError(f"encoder.weights = {where}: MLflow does not give it: {first_line(error)}") from None
        yield find_start(Path(local), where)
