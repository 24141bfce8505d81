"""Encoders by name: networks from float images in [0, 1] to feature vectors, in built-in Keras layers only.

A new encoder is one module here and one line in `ENCODERS`.
"""

from __future__ import annotations

import keras

from models.encoders.conv import conv
from models.encoders.resnet import resnet18, resnet50

ENCODERS = {"conv": conv, "resnet18": resnet18, "resnet50": resnet50}


def build(name: str, image_size: int, width: int = 128) -> keras.Model:
    """Build an encoder with fresh weights.

    Args:
        name: a key of `ENCODERS`.
        image_size: height and width of the images, pixels.
        width: number of filters of `conv`; the ResNets have their published widths.

    Returns:
        A model from float images in [0, 1], shape (N, image_size, image_size, 3), to features, shape (N, D).

    Raises:
        ValueError: the name is unknown, or the image is too small for the network.
    """
    if name not in ENCODERS:
        raise ValueError(f"encoder must be one of {', '.join(ENCODERS)}, not {name!r}")
    return ENCODERS[name](image_size, width)


def deployable(encoder: keras.Model, head: keras.Model | None = None) -> keras.Model:
    """The same network from raw images: resizing and scaling inside, float32, no code of ours needed to load it.

    Args:
        encoder: as from `build`.
        head: optional model from features to class probabilities.

    Returns:
        A model from uint8 images, shape (N, H, W, 3), any size, to features or class probabilities in float32. An
        image of another shape counts by its centre square, resized; one of the encoder's size is left as it is.
    """
    size = encoder.input_shape[1]
    images = keras.Input((None, None, 3), dtype="uint8", name="images")
    pixels = keras.layers.Rescaling(1 / 255, name="scale")(images)
    # the centre square, bicubic without aliasing: what the images of the dataset went through
    pixels = keras.layers.Resizing(
        size, size, interpolation="bicubic", antialias=True, crop_to_aspect_ratio=True, name="resize"
    )(pixels)
    # bicubic overshoots at sharp edges
    pixels = keras.layers.ReLU(max_value=1.0, name="clip")(pixels)
    outputs = encoder(pixels)
    if head is not None:
        outputs = head(outputs)
    return keras.Model(images, outputs, name="classifier" if head is not None else "encoder")
