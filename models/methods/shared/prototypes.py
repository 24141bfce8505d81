"""Prototypes: learned directions that embeddings are compared with, instead of with each other."""

from __future__ import annotations

import keras
from keras import ops

from models.losses.scaling import l2_normalize


def prototypes(width: int, count: int) -> keras.Model:
    """A set of `count` directions of `width` dimensions: a dense layer without bias, in float32."""
    return keras.Sequential(
        [keras.Input((width,)), keras.layers.Dense(count, use_bias=False, dtype="float32")], name="prototypes"
    )


def scores(directions: keras.Model, embeddings, trained=True):
    """Cosine of each embedding with each prototype.

    Args:
        directions: from `prototypes`; their length does not count.
        embeddings: shape (N, width), any scale.
        trained: whether a gradient reaches the prototypes; a bool or a scalar tensor. Holding them still at first
            keeps them from all moving to the same few embeddings.

    Returns:
        Float32, shape (N, count), in [−1, 1].

    Source: Caron et al. 2020, arXiv:2006.09882, section 3.1 and the authors' code (frozen for one epoch).
    """
    kernel = ops.convert_to_tensor(directions.layers[-1].kernel)
    unit = l2_normalize(ops.transpose(ops.where(trained, kernel, ops.stop_gradient(kernel))))
    return ops.matmul(l2_normalize(embeddings), ops.transpose(unit))
