"""Making views alone, with TensorFlow: what the project and the plain recipe are both asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf


def over_batches(views: Callable[[Any], list[Any]], images: np.ndarray, batch: int) -> Callable[[int], None]:
    """What makes the views of so many batches, one after the other.

    Args:
        views: from a batch of images to its views; compiled here.
        images: uint8, shape (N, H, W, C), at least one batch.
        batch: images at a time.
    """
    # sums, so that nothing of a view is left out as unused
    compiled = tf.function(lambda data: [tf.reduce_sum(view) for view in views(data)])

    def train(steps: int) -> None:
        for index in range(steps):
            start = index % (len(images) // batch) * batch
            np.asarray(compiled(tf.constant(images[start : start + batch]))[0])

    return train
