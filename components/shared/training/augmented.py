"""Features of changed copies of images, for a classifier on frozen features that has few labels to learn from."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np

from models.augmentation import Augmentation, augment
from models.classifier import predict

_AT_ONCE = 512


def augmented_features(
    encoder: keras.Model,
    images: np.ndarray,
    policy: Augmentation,
    copies: int,
    seed: int,
    on_batch: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Features of randomly changed copies of images.

    Args:
        encoder: from uint8 images to features.
        images: uint8, shape (N, H, W, C), memory-mapped or not.
        policy: of the changes.
        copies: of each image.
        seed: decides the changes.
        on_batch: called with the number of copies in each batch that is done.

    Returns:
        Float32, shape (copies, N, D). The copies are rounded to whole grey levels, as if they were files.
    """
    generator = keras.random.SeedGenerator(seed)
    found = np.zeros((copies, len(images), encoder.output_shape[-1]), "float32")
    for copy in range(copies):
        for start in range(0, len(images), _AT_ONCE):
            rows = slice(start, start + _AT_ONCE)
            changed = np.asarray(augment(np.asarray(images[rows]), policy, generator))
            found[copy, rows] = predict(encoder, np.rint(255 * changed).astype("uint8"), _AT_ONCE, on_batch)
    return found
