"""Which first layers a residual network gets."""

from __future__ import annotations

from typing import Literal

from models.encoders.shared.base import EncoderOptions
from models.options import options

# below it, 7×7 with stride 2 and max-pooling would leave too little of the image: several points of accuracy
LARGE_FROM = 64


@options
class ResidualOptions(EncoderOptions):
    """`stem`: `small` is 3×3 with stride 1 and no pooling, `large` the published 7×7 with stride 2 and max-pooling.

    `auto` is small below 64 pixels.
    """

    stem: Literal["auto", "small", "large"]


def small_stem(stem: str, image_size: int) -> bool:
    """Whether the network starts with 3×3, stride 1 and no max-pooling, instead of its published layers.

    Args:
        stem: as in `ResidualOptions`.
        image_size: pixels.
    """
    return stem == "small" or (stem == "auto" and image_size < LARGE_FROM)
