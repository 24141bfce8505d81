"""Keras models that take images: loaded, with the parts that give class probabilities or features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import mlflow
import numpy as np

from components.shared.errors import UserError, first_line


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


def load_keras(path: Path, class_names: list[str] | None) -> ReadyModel:
    """A model from a `.keras` file.

    Raises:
        UserError: it can't be loaded, or does not take images.
    """
    try:
        network = keras.saving.load_model(path, compile=False)
    except Exception as error:  # the archive, its JSON and its HDF5 each have their own exceptions
        raise UserError(f"{path}: Keras can't load it: {first_line(error)}") from None
    return _ready(str(path), network, class_names)


def load_logged(folder: Path, name: str, class_names: list[str] | None) -> ReadyModel:
    """A model from an MLflow model folder of the flavor `keras`.

    Raises:
        UserError: it can't be loaded, or does not take images.
    """
    try:
        network = mlflow.keras.load_model(str(folder), load_model_kwargs={"compile": False})
    except Exception as error:
        raise UserError(f"{name}: Keras can't load it: {first_line(error)}") from None
    return _ready(name, network, class_names)


def _ready(name: str, network: Any, class_names: list[str] | None) -> ReadyModel:
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
    return isinstance(layer, keras.layers.Softmax) or (
        getattr(layer, "activation", None) is keras.activations.softmax
    )


def _is_head(layer: Any) -> bool:
    """Whether a layer is a classifier's head: dense layers, the last one with softmax."""
    parts = layer.layers if isinstance(layer, keras.Sequential) else [layer]
    dense = (keras.layers.Dense, keras.layers.Dropout)
    return all(isinstance(part, dense) for part in parts) and _is_softmax(parts[-1])


def _without_head(network: Any, size: int, name: str) -> Any:
    """A network without its last layer, checked: the head must make the whole's answers of what it gives."""
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
    same = np.allclose(keras.ops.convert_to_numpy(again), keras.ops.convert_to_numpy(whole), atol=1e-4)
    if not same or len(encoder.output_shape) != 2:
        raise refusal
    return encoder
