"""Residual networks: the original ones, which normalise after each convolution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import layers

from models.encoders.shared.stem import ResidualOptions, small_stem

Block = Callable[[Any, int, int], Any]


def residual(
    options: ResidualOptions, image_size: int, channels: int, depths: Sequence[int], block: Block
) -> keras.Model:
    """A network of four stages, each twice as wide and half as large as the one before.

    Args:
        options: its name and its stem.
        image_size: pixels.
        channels: of the images.
        depths: blocks of each stage.
        block: `basic` or `bottleneck`.

    Returns:
        A model from (N, image_size, image_size, channels) to the mean of the last block.

    Source: He et al. 2015, arXiv:1512.03385, table 1; small stem: Chen et al. 2020, arXiv:2002.05709, B.9.
    """
    images = keras.Input((image_size, image_size, channels))
    if small_stem(options.stem, image_size):
        x = _convolution(images, 64, 3, 1)
    else:
        x = _convolution(images, 64, 7, 2)
        x = layers.MaxPooling2D(3, 2, padding="same")(x)
    for stage, depth in enumerate(depths):
        for index in range(depth):
            x = block(x, 64 * 2**stage, 2 if stage > 0 and index == 0 else 1)
    return keras.Model(images, layers.GlobalAveragePooling2D()(x), name=options.name)


def basic(x, width, stride):
    """Two 3×3 convolutions."""
    y = _convolution(x, width, 3, stride)
    y = _convolution(y, width, 3, 1, activate=False)
    return _join(x, y, stride)


def bottleneck(x, width, stride):
    """1×1, 3×3 and 1×1, the last four times as wide.

    The stride is in the 3×3 convolution, as in torchvision, not in the first 1×1 as in the paper.
    """
    y = _convolution(x, width, 1, 1)
    y = _convolution(y, width, 3, stride)
    y = _convolution(y, 4 * width, 1, 1, activate=False)
    return _join(x, y, stride)


def _join(x, y, stride):
    if stride != 1 or x.shape[-1] != y.shape[-1]:
        x = _convolution(x, y.shape[-1], 1, stride, activate=False)
    return layers.ReLU()(layers.Add()([x, y]))


def _convolution(x, width, kernel, stride, activate=True):
    # He et al. normalise after every convolution, which makes its bias useless
    x = layers.Conv2D(width, kernel, stride, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
    # torch's momentum of 0.1, in Keras's notation
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
    return layers.ReLU()(x) if activate else x
