"""ResNet-34: basic blocks 3, 4, 6, 3; features are the mean of the last block, 512 wide."""

from __future__ import annotations

from typing import Literal

import keras

from models.encoders.shared.residual import basic, residual
from models.encoders.shared.stem import ResidualOptions
from models.options import options


@options
class Options(ResidualOptions):
    """The widths are the published ones."""

    name: Literal["resnet34"]


def build(options: Options, image_size: int, channels: int = 3) -> keras.Model:
    """The network, without normalisation of the images."""
    return residual(options, image_size, channels, (3, 4, 6, 3), basic)
