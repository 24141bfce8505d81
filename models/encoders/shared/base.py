"""What all encoders have."""

from __future__ import annotations

from typing import Literal

from models.options import options


@options
class EncoderOptions:
    """What becomes of the images' values inside the network, before its first convolution.

    `normalization`: `none` leaves [0, 1], `symmetric` maps it to [−1, 1], `statistics` subtracts the training
    images' mean and divides by their standard deviation, channel by channel.
    """

    name: str
    normalization: Literal["none", "symmetric", "statistics"]
