"""Encoders, found by the name of their module: from float images in [0, 1] to features, in built-in Keras layers.

A new encoder is one module here, with its `Options` and `build`, one file in `conf/encoder/` and one test.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from types import ModuleType

import keras

from models.encoders.shared.base import EncoderOptions
from models.encoders.shared.normalization import PixelStatistics, normalized

NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg))


def options_type(name: str) -> type[EncoderOptions]:
    """The options of an encoder.

    Raises:
        ValueError: the name is unknown.
    """
    found: type[EncoderOptions] = _module(name).Options
    return found


def build(
    options: EncoderOptions, image_size: int, statistics: PixelStatistics | None = None, channels: int = 3
) -> keras.Model:
    """Build an encoder with fresh weights.

    Args:
        options: the encoder's `Options`, which name it.
        image_size: height and width of the images, pixels.
        statistics: of the training images (`models.encoders.shared.normalization.pixel_statistics`), where the
            normalisation asks for them. They are no weights: who copies weights builds with the same statistics.
        channels: of the images.

    Returns:
        A model from float images in [0, 1], shape (N, image_size, image_size, channels), to features, shape (N, D).

    Raises:
        ValueError: the name is unknown, the image is too small for the network, or the statistics are missing.
    """
    return normalized(_module(options.name).build(options, image_size, channels), options.normalization, statistics)


def any_size(encoder: keras.Model) -> keras.Model:
    """The same layers and weights, in a network for images of any size; of those whose options say `any_size`."""

    def same(layer: keras.layers.Layer) -> keras.layers.Layer:
        within = isinstance(layer, keras.Model) and len(layer.input_shape) == len(encoder.input_shape)
        return any_size(layer) if within else layer

    images = keras.Input((None, None, encoder.input_shape[-1]))
    return keras.models.clone_model(encoder, input_tensors=images, clone_function=same)


def deployable(encoder: keras.Model, head: keras.Model | None = None) -> keras.Model:
    """The same network from raw images: resizing and scaling inside, float32, no code of ours needed to load it.

    Args:
        encoder: as from `build`.
        head: optional model from features to class probabilities.

    Returns:
        A model from uint8 images, shape (N, H, W, C), any size, to features or class probabilities in float32. An
        image of another shape counts by its centre square, resized; one of the encoder's size is left as it is.
    """
    _, size, _, channels = encoder.input_shape
    images = keras.Input((None, None, channels), dtype="uint8", name="images")
    pixels = keras.layers.Rescaling(1 / 255, name="scale")(images)
    # the centre square, bicubic without aliasing: what the images of the dataset went through
    resize = keras.layers.Resizing(
        size, size, interpolation="bicubic", antialias=True, crop_to_aspect_ratio=True, name="resize"
    )
    # Keras's layers for images take themselves to be training unless told otherwise, and hand that on to the layers
    # after them: a plain call of the model would then normalise by the batch, and change the kept statistics
    pixels = resize(pixels, training=False)
    # bicubic overshoots at sharp edges
    pixels = keras.layers.ReLU(max_value=1.0, name="clip")(pixels)
    outputs = encoder(pixels)
    if head is not None:
        outputs = head(outputs)
    return keras.Model(images, outputs, name="classifier" if head is not None else "encoder")


def _module(name: str) -> ModuleType:
    if name not in NAMES:
        raise ValueError(f"name = {name}: must be one of {', '.join(NAMES)}")
    return import_module(f"{__name__}.{name}")
