"""What all encoders have."""

from __future__ import annotations

from typing import ClassVar, Literal

from models.options import options


@options
class EncoderOptions:
    """How every encoder starts, and what becomes of the images' values before its first convolution.

    `weights`: where pretraining takes the first weights from, a `.keras` file or an address of MLflow; None for
    random ones. Those of the baseline are random all the same. `normalization`: `none` leaves [0, 1], `symmetric`
    maps it to [−1, 1], `statistics` subtracts the training images' mean and divides by their standard deviation,
    channel by channel. `any_size`: whether one network takes images of any size, as views may have another one.
    """

    any_size: ClassVar[bool] = True

    name: str
    weights: str | None
    normalization: Literal["none", "symmetric", "statistics"]
