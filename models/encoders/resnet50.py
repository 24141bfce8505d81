"""ResNet-50: bottleneck blocks 3, 4, 6, 3; features are the mean of the last block, 2,048 wide."""

from __future__ import annotations

from typing import Literal

import keras

from models.encoders.shared.residual import bottleneck, residual
from models.encoders.shared.stem import ResidualOptions
from models.options import options


@options
class Options(ResidualOptions):
    """The widths are the published ones."""

    name: Literal["resnet50"]


def build(options: Options, image_size: int, channels: int = 3) -> keras.Model:
    """The network, without normalisation of the images."""
    return residual(options, image_size, channels, (3, 4, 6, 3), bottleneck)
