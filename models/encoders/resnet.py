"""Residual networks: the original ones, which normalise after each convolution."""

from __future__ import annotations

import keras
from keras import layers

from models.encoders.stem import small_stem


def resnet18(image_size: int, width: int = 128, stem: str = "auto") -> keras.Model:
    """ResNet-18: two basic blocks at each of four widths; features are the mean of the last block, 512 wide.

    Args:
        image_size: pixels.
        width: not used; the widths are the published 64, 128, 256, 512.
        stem: `small` is 3×3 with stride 1 and no pooling, `large` the published 7×7 with stride 2 and max-pooling,
            `auto` small below 64 pixels.

    Source: He et al. 2015, arXiv:1512.03385, table 1; small stem: Chen et al. 2020, arXiv:2002.05709, B.9.
    """
    return _resnet("resnet18", image_size, stem, (2, 2, 2, 2), _basic)


def resnet34(image_size: int, width: int = 128, stem: str = "auto") -> keras.Model:
    """ResNet-34: basic blocks 3, 4, 6, 3; features are the mean of the last block, 512 wide.

    Args:
        image_size: pixels.
        width: not used; the widths are the published ones.
        stem: as for `resnet18`.

    Source: as `resnet18`.
    """
    return _resnet("resnet34", image_size, stem, (3, 4, 6, 3), _basic)


def resnet50(image_size: int, width: int = 128, stem: str = "auto") -> keras.Model:
    """ResNet-50: bottleneck blocks 3, 4, 6, 3; features are the mean of the last block, 2,048 wide.

    A block's stride is in its 3×3 convolution, as in torchvision, not in its first 1×1 as in the paper.

    Args:
        image_size: pixels.
        width: not used; the widths are the published ones.
        stem: as for `resnet18`.

    Source: as `resnet18`.
    """
    return _resnet("resnet50", image_size, stem, (3, 4, 6, 3), _bottleneck)


def _resnet(name, image_size, stem, depths, block):
    images = keras.Input((image_size, image_size, 3))
    if small_stem(stem, image_size):
        x = _convolution(images, 64, 3, 1)
    else:
        x = _convolution(images, 64, 7, 2)
        x = layers.MaxPooling2D(3, 2, padding="same")(x)
    for stage, depth in enumerate(depths):
        for index in range(depth):
            x = block(x, 64 * 2**stage, stride=2 if stage > 0 and index == 0 else 1)
    return keras.Model(images, layers.GlobalAveragePooling2D()(x), name=name)


def _basic(x, width, stride):
    y = _convolution(x, width, 3, stride)
    y = _convolution(y, width, 3, 1, activate=False)
    return _join(x, y, stride)


def _bottleneck(x, width, stride):
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
