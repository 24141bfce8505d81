"""The pre-activation residual network: normalisation and ReLU come before each convolution."""

from __future__ import annotations

from typing import Literal

import keras
from keras import layers

from models.encoders.shared.stem import ResidualOptions, small_stem
from models.options import options


@options
class Options(ResidualOptions):
    """The widths are the published ones."""

    name: Literal["resnet50v2"]


def build(options: Options, image_size: int, channels: int = 3) -> keras.Model:
    """ResNet-50 V2: bottleneck blocks 3, 4, 6, 3; features are the mean of the last block, 2,048 wide.

    With the large stem it is `keras.applications.ResNet50V2` without its classifier, weight by weight: the stride
    is in the last block of a stage, the shortcut and the last convolution of a block have biases, and initial
    weights, padding and batch normalisation are Keras's.

    Args:
        options: the stem.
        image_size: pixels.
        channels: of the images.

    Source: He et al. 2016, arXiv:1603.05027, figure 4e.
    """
    images = keras.Input((image_size, image_size, channels))
    if small_stem(options.stem, image_size):
        x = layers.Conv2D(64, 3, padding="same")(images)
    else:
        x = layers.Conv2D(64, 7, 2)(layers.ZeroPadding2D(3)(images))
        x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x))
    for stage, depth in enumerate((3, 4, 6, 3)):
        for index in range(depth):
            last = index == depth - 1 and stage < 3
            x = _block(x, 64 * 2**stage, stride=2 if last else 1, widens=index == 0)
    return keras.Model(images, layers.GlobalAveragePooling2D()(_activated(x)), name="resnet50v2")


def _block(x, width, stride, widens):
    activated = _activated(x)
    if widens:
        shortcut = layers.Conv2D(4 * width, 1, stride)(activated)
    else:
        shortcut = layers.MaxPooling2D(1, stride)(x) if stride > 1 else x
    y = _activated(layers.Conv2D(width, 1, use_bias=False)(activated))
    y = _activated(layers.Conv2D(width, 3, stride, use_bias=False)(layers.ZeroPadding2D(1)(y)))
    return layers.Add()([shortcut, layers.Conv2D(4 * width, 1)(y)])


def _activated(x):
    return layers.ReLU()(layers.BatchNormalization(epsilon=1.001e-5)(x))
