"""What an encoder does to the images' values before its first convolution."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import keras
import numpy as np


class PixelStatistics(NamedTuple):
    """Mean and variance of each channel, of images in [0, 1]."""

    mean: tuple[float, ...]
    variance: tuple[float, ...]


def pixel_statistics(parts: Iterable[np.ndarray], chunk_bytes: int = 1 << 24) -> PixelStatistics:
    """Mean and variance of each channel over all pixels, as if all parts were one array.

    Args:
        parts: uint8 images, each (N, H, W, C), memory-mapped or not.
        chunk_bytes: how much is read at a time; the result does not depend on it.

    Returns:
        Statistics of the images divided by 255. The variance is at least that of one grey level, so that a blank
        channel's noise is not blown up.

    Raises:
        ValueError: there is no image.
    """
    # of as many channels as the images turn out to have
    count, total, squares = 0, np.zeros(1, np.int64), np.zeros(1, np.int64)
    for images in parts:
        rows = max(1, chunk_bytes // max(1, int(np.prod(images.shape[1:]))))
        for start in range(0, len(images), rows):
            chunk = np.asarray(images[start : start + rows])
            count += chunk.size // chunk.shape[-1]
            # whole numbers, so that the order of the additions does not matter; 255² fits 16 bits
            total = total + _channel_sums(chunk)
            squares = squares + _channel_sums(np.square(chunk, dtype=np.uint16))
    if not count:
        raise ValueError("there is no image to take the mean and the variance of")
    mean = total / count
    variance = np.maximum(squares / count - mean**2, 1.0)
    return PixelStatistics(tuple((mean / 255).tolist()), tuple((variance / 255**2).tolist()))


def _channel_sums(values):
    # over the images first: a sum over all but the last axis is ten times slower
    return values.sum(axis=0, dtype=np.int64).sum(axis=(0, 1))


def normalized(network: keras.Model, normalization: str, statistics: PixelStatistics | None) -> keras.Model:
    """Put a normalisation before a network.

    Its numbers are part of the architecture, not weights: a copy built alike has them whatever weights are put into
    it, and so has a saved one.

    Args:
        network: from images (N, H, W, C).
        normalization: `none` leaves the network as it is; `symmetric` maps [0, 1] to [−1, 1]; `statistics`
            subtracts the mean and divides by the standard deviation.
        statistics: of the training images, for `statistics` only.

    Raises:
        ValueError: the normalisation lacks its statistics.
    """
    if normalization == "none":
        return network
    # in full precision, whatever the network computes in
    if normalization == "symmetric":
        layer = keras.layers.Rescaling(2.0, offset=-1.0, dtype="float32")
    elif statistics is None:
        raise ValueError("normalization = statistics needs the training images' statistics (`pixel_statistics`)")
    else:
        mean, variance = (list(values) for values in statistics)
        layer = keras.layers.Normalization(mean=mean, variance=variance, dtype="float32")
    return keras.Sequential([keras.Input(network.input_shape[1:]), layer, network], name=network.name)
