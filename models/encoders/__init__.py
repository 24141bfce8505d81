"""Encoders by name: networks from float images in [0, 1] to feature vectors, in built-in Keras layers only.

A new encoder is one module here and one line in `ENCODERS`.
"""

from __future__ import annotations

import keras

from models.encoders.conv import conv
from models.encoders.normalization import PixelStatistics, normalized
from models.encoders.resnet import resnet18, resnet34, resnet50
from models.encoders.resnet_v2 import resnet50v2

ENCODERS = {
    "conv": conv,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "resnet50v2": resnet50v2,
}


def build(
    name: str,
    image_size: int,
    width: int = 128,
    stem: str = "auto",
    normalization: str = "none",
    statistics: PixelStatistics | None = None,
) -> keras.Model:
    """Build an encoder with fresh weights.

    Args:
        name: a key of `ENCODERS`.
        image_size: height and width of the images, pixels.
        width: number of filters of `conv`; the ResNets have their published widths.
        stem: of the ResNets: `small` (3×3, stride 1, no pooling), `large` (as published) or `auto`, small below 64
            pixels.
        normalization: of the images: `none`, `symmetric` ([−1, 1]) or `statistics`.
        statistics: of the training images (`models.encoders.normalization.pixel_statistics`), where the
            normalisation asks for them. They are no weights: who copies weights builds with the same statistics.

    Returns:
        A model from float images in [0, 1], shape (N, image_size, image_size, 3), to features, shape (N, D).

    Raises:
        ValueError: a name is unknown, the image is too small for the network, or the statistics are missing.
    """
    if name not in ENCODERS:
        raise ValueError(f"encoder must be one of {', '.join(ENCODERS)}, not {name!r}")
    return normalized(ENCODERS[name](image_size, width, stem), normalization, statistics)


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
