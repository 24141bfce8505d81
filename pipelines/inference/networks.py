"""Keras models that take images: loaded, with the parts that give class probabilities or features."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import mlflow
import numpy as np

from components.shared.errors import UserError, first_line
from components.shared.sources.pixels import MODES


@dataclass(frozen=True)
class ReadyModel:
    """A loaded model.

    Attributes:
        name: for people, such as "contrastive-sample version 3" or "encoder/encoder.keras".
        network: a Keras model from uint8 images, shape (N, size, size, channels).
        size: height and width of the images it was trained on, in pixels.
        class_names: in the order of its outputs; None where it does not say.
    """

    name: str
    network: Any
    size: int
    class_names: list[str] | None

    @property
    def channels(self) -> int:
        """Of the images: 1 for grey, 3 for RGB, 4 for those of four channels."""
        found: int = self.network.input_shape[-1]
        return found

    def classifier(self) -> ReadyModel:
        """The same, checked to give class probabilities, shape (N, classes).

        Raises:
            UserError: its outputs are no probabilities.
        """
        if not self.gives_probabilities():
            last = _last_layer(self.network)
            raise UserError(
                f"{self.name}: its last layer ({last.name}) is no softmax, so it gives no probabilities; "
                "choose a classifier, or write its features with `contrastive embed`"
            )
        return self

    def gives_probabilities(self) -> bool:
        """Whether it is a classifier."""
        return _is_softmax(_last_layer(self.network))

    def labels(self) -> list[str]:
        """Names of the classes; their numbers, from 0, where they are not known."""
        outputs = self.network.output_shape[-1]
        if self.class_names is not None and len(self.class_names) == outputs:
            return self.class_names
        return [str(number) for number in range(outputs)]

    def encoder(self) -> ReadyModel:
        """The model that gives features, shape (N, D): of a classifier, what its head is given.

        Raises:
            UserError: it is a classifier whose head can't be told from the rest, or its outputs are no vectors.
        """
        if self.gives_probabilities():
            return replace(self, network=_without_head(self.network, self.size, self.name))
        if len(self.network.output_shape) != 2:
            raise UserError(f"{self.name}: gives {self.network.output_shape}, not features of shape (N, D)")
        return self


def load(path: Path, name: str, class_names: list[str] | None) -> ReadyModel:
    """A model from a `.keras` file, or from an MLflow model folder of the flavor `keras`.

    Raises:
        UserError: it can't be loaded, or does not take images of one size.
    """
    try:
        if path.is_dir():
            network = mlflow.keras.load_model(str(path), load_model_kwargs={"compile": False})
        else:
            network = keras.saving.load_model(path, compile=False)
    except Exception as error:  # the archive, its JSON and its HDF5 each have their own exceptions
        raise UserError(f"{name}: Keras can't load it: {first_line(error)}") from None
    shape = network.input_shape if isinstance(network, keras.Model) else None
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[-1] not in MODES:
        raise UserError(f"{name}: takes {shape}, not images (N, size, size, 1, 3 or 4); choose another model")
    sizes = [shape[1:3], *((x.height, x.width) for x in network.layers if isinstance(x, keras.layers.Resizing))]
    height, width = next((size for size in sizes if size != (None, None)), (None, None))
    if height is None or height != width:
        raise UserError(f"{name}: does not tell the size of its images (it takes {shape}); choose another model")
    return ReadyModel(name, network, height, class_names)


def _last_layer(network: Any) -> Any:
    """The layer that makes the outputs, also inside models that are layers of others."""
    while getattr(network, "layers", None):
        network = network.layers[-1]
    return network


def _is_softmax(layer: Any) -> bool:
    return isinstance(layer, keras.layers.Softmax) or (
        getattr(layer, "activation", None) is keras.activations.softmax
    )


def _without_head(network: Any, size: int, name: str) -> Any:
    """A network without its last layer, checked: the head must make the whole's answers of what it gives."""
    refusal = UserError(f"{name}: its features can't be told from its head; give the encoder itself with --model")
    layers = [layer for layer in network.layers if not isinstance(layer, keras.layers.InputLayer)]
    # of a model that ends with a layer Softmax, what it is given are no features but the classes' scores
    if not isinstance(layers[-1], keras.layers.Dense | keras.Sequential):
        raise refusal
    inputs = keras.Input(network.input_shape[1:], dtype=network.inputs[0].dtype)
    noise = np.random.default_rng(0).integers(0, 256, (2, size, size, network.input_shape[-1]), np.uint8)
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
