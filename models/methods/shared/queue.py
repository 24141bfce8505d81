"""A queue of embeddings of earlier batches: more candidates than a batch holds."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from models.losses.scaling import l2_normalize


class Queue(keras.layers.Layer):
    """First in, first out, of fixed size; rows have unit length.

    Its rows and the place of the next one are weights that no optimiser changes, so they are saved and restored
    with the model. It starts with random directions.

    Args:
        size: number of rows, ≥ 1.
        width: of a row.
        seed: of the random directions.

    Source: He et al. 2019, arXiv:1911.05722, section 3.2.
    """

    def __init__(self, size: int, width: int, seed: int = 0):
        super().__init__(name="queue", dtype="float32")
        rows = np.random.default_rng(seed).standard_normal((size, width))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        self.size = size
        self.rows = self.add_weight(
            name="rows",
            shape=(size, width),
            trainable=False,
            initializer=lambda shape, dtype: ops.cast(rows, dtype),
        )
        self.next = self.add_weight(name="next", shape=(), dtype="int32", trainable=False, initializer="zeros")
        self.built = True

    def enqueue(self, embeddings) -> None:
        """Put new rows in the place of the oldest.

        Args:
            embeddings: shape (N, width), any scale; of more than `size` rows the last ones stay.
        """
        new = ops.stop_gradient(l2_normalize(embeddings))[-self.size :]
        n = ops.shape(new)[0]
        places = ops.mod(ops.convert_to_tensor(self.next) + ops.arange(n, dtype="int32"), self.size)
        self.rows.assign(ops.scatter_update(self.rows, places[:, None], new))
        self.next.assign(ops.mod(ops.convert_to_tensor(self.next) + n, self.size))

    def nearest(self, embeddings):
        """The row most similar to each embedding.

        Args:
            embeddings: shape (N, width), any scale.

        Returns:
            Float32, shape (N, width), of unit length; no gradient flows through it.
        """
        similarities = ops.matmul(l2_normalize(embeddings), ops.transpose(self.rows))
        return ops.stop_gradient(ops.take(self.rows, ops.argmax(similarities, axis=1), axis=0))
