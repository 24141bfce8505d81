"""Embeddings brought to a common scale: rows of unit length, columns of unit variance."""

from __future__ import annotations

from keras import ops


def l2_normalize(z):
    """Scale each row to unit length, in float32; a row of zeros stays zero.

    Args:
        z: shape (N, D), any scale from 1e-30 to 1e30 without overflow or vanishing gradient.

    Returns:
        Float32, shape (N, D).
    """
    z = _to_unit_range(z, axis=-1)
    squares = ops.sum(ops.square(z), axis=-1, keepdims=True)
    return z * ops.rsqrt(ops.maximum(squares, 1e-12))


def standardize(z):
    """Shift and scale each column to mean 0 and variance 1 over the rows, in float32.

    Args:
        z: shape (N, D), any scale from 1e-30 to 1e30.

    Returns:
        Float32, shape (N, D); a column that never changes becomes 0.
    """
    z = _to_unit_range(z, axis=0)
    z = z - ops.mean(z, axis=0, keepdims=True)
    # below the floor the spread is float32's rounding of equal numbers
    return z * ops.rsqrt(ops.maximum(ops.mean(ops.square(z), axis=0, keepdims=True), 1e-10))


def _to_unit_range(z, axis):
    """Divide by the largest entry along an axis, for what is invariant to it: squares then can't leave float32."""
    z = ops.cast(z, "float32")
    # the final result does not depend on this factor, so no gradient needs to flow through it
    largest = ops.stop_gradient(ops.max(ops.abs(z), axis=axis, keepdims=True))
    return z / ops.where(largest > 0, largest, ops.ones_like(largest))
