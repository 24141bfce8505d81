"""Images, and slow transcriptions, that the tests of augmentation hold the product against."""

from __future__ import annotations

import math

import numpy as np

from tests.helpers.options import STILL, augmentation

NOTHING = augmentation(**STILL)


def floats(count=3, height=7, width=10, low=0.0, high=1.0, seed=0):
    """Images higher or wider than square, so that a mix-up of the axes shows."""
    return np.random.default_rng(seed).uniform(low, high, (count, height, width, 3)).astype("float32")


def array(*values):
    return np.array(values, "float32")


def apart(found, expected):
    return float(np.abs(np.asarray(found) - expected).max())


def slow_sample(image, row, column):
    """Bilinear sample of one image between its pixels; beyond the edge the edge goes on."""
    height, width = image.shape[:2]
    row, column = min(max(row, 0), height - 1), min(max(column, 0), width - 1)
    top, left = math.floor(row), math.floor(column)
    below, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, across = row - top, column - left
    upper = image[top, left] * (1 - across) + image[top, right] * across
    lower = image[below, left] * (1 - across) + image[below, right] * across
    return upper * (1 - down) + lower * down


def slow_crop(image, top, left, height, width, size=None):
    rows, columns, channels = image.shape
    out = np.empty((size or rows, size or columns, channels))
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            row = (top + (i + 0.5) / out.shape[0] * height) * rows - 0.5
            column = (left + (j + 0.5) / out.shape[1] * width) * columns - 0.5
            out[i, j] = slow_sample(image, row, column)
    return out


def uniform_on(values, low, high):
    """Whether a sample's quantiles are those of a uniform distribution (20,000 values: 5 standard errors)."""
    share = np.linspace(0.05, 0.95, 19)
    inside = low - 1e-6 <= values.min() and values.max() <= high + 1e-6
    return inside and np.abs(np.quantile(values, share) - (low + share * (high - low))).max() < 0.018 * (high - low)


def raw_images(count=6, size=12, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3)).astype(np.uint8)
