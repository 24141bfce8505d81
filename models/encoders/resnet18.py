"""ResNet-18: two basic blocks at each of four widths; features are the mean of the last block, 512 wide."""

from __future__ import annotations

from typing import Literal

import keras

from models.encoders.shared.residual import basic, residual
from models.encoders.shared.stem import ResidualOptions
from models.options import options


@options
class Options(ResidualOptions):
    """The widths are the published ones."""

    name: Literal["resnet18"]


def build(options: Options, image_size: int, channels: int = 3) -> keras.Model:
    """The network, without normalisation of the images."""
    return residual(options, image_size, channels, (2, 2, 2, 2), basic)
