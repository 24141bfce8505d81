"""The small convolutional encoder of the Keras SimCLR and NNCLR examples."""

from __future__ import annotations

from typing import Literal

import keras
from keras import layers

from models.encoders.shared.base import EncoderOptions
from models.options import options, within


@options
class Options(EncoderOptions):
    """`width`: number of filters of each layer and of features."""

    any_size = False
    name: Literal["conv"]
    width: int = within(ge=4, le=1024)


def build(options: Options, image_size: int, channels: int = 3) -> keras.Model:
    """Four 3×3 convolutions with stride 2, then one dense layer, all with ReLU.

    Args:
        options: the width.
        image_size: pixels, at least 31 (four unpadded strides leave one pixel).
        channels: of the images.

    Returns:
        A model from (N, image_size, image_size, channels) to (N, width). 856,064 weights at 96 pixels, RGB and
            width 128.

    Raises:
        ValueError: the image is smaller than 31 pixels.

    Source: Béres, "Semi-supervised image classification using contrastive pretraining with SimCLR", keras.io, 2021.
    """
    if image_size < 31:
        raise ValueError(f"the conv encoder needs images of at least 31 pixels, not {image_size}; use resnet18")
    return keras.Sequential(
        [
            keras.Input((image_size, image_size, channels)),
            *(layers.Conv2D(options.width, 3, strides=2, activation="relu") for _ in range(4)),
            layers.Flatten(),
            layers.Dense(options.width, activation="relu"),
        ],
        name="conv",
    )
