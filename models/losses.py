"""Contrastive losses: pure functions on (N, D) arrays, computed in float32 whatever comes in."""

from __future__ import annotations

from keras import ops


def nt_xent(z1, z2, temperature):
    """Normalised temperature-scaled cross entropy over two views of a batch.

    Each of the 2N embeddings must pick its other view among the 2N − 1 others.

    Args:
        z1, z2: embeddings of the two views, shape (N, D), any scale (normalised here).
        temperature: > 0; smaller makes the softmax peakier. 0.1 is usual for small images.

    Returns:
        Scalar float32, in nats. Uniform embeddings give log(2N − 1).

    Raises:
        ValueError: temperature is not > 0, or the shapes differ.

    Source: Chen et al. 2020, arXiv:2002.05709, eq. 1.
    """
    _check_views(z1, z2)
    _check_temperature(temperature)
    z = ops.concatenate([l2_normalize(z1), l2_normalize(z2)], axis=0)
    similarities = ops.matmul(z, ops.transpose(z)) / temperature
    # an embedding is no candidate for itself; −1e9 vanishes in the softmax and, unlike −inf, has a gradient
    candidates = similarities - 1e9 * ops.eye(ops.shape(z)[0], dtype="float32")
    n = ops.shape(z1)[0]
    positives = ops.sum(z[:n] * z[n:], axis=-1) / temperature
    return ops.mean(ops.logsumexp(candidates, axis=-1)) - ops.mean(positives)


def l2_normalize(z):
    """Scale each row to unit length, in float32; a row of zeros stays zero.

    Args:
        z: shape (N, D), any scale from 1e-30 to 1e30 without overflow or vanishing gradient.

    Returns:
        Float32, shape (N, D).
    """
    z = ops.cast(z, "float32")
    # squares of very small or large entries leave float32; the result does not depend on this factor,
    # so no gradient needs to flow through it
    largest = ops.stop_gradient(ops.max(ops.abs(z), axis=-1, keepdims=True))
    z = z / ops.where(largest > 0, largest, ops.ones_like(largest))
    squares = ops.sum(ops.square(z), axis=-1, keepdims=True)
    return z * ops.rsqrt(ops.maximum(squares, 1e-12))


def _check_temperature(temperature):
    # a learned temperature is a variable; only plain numbers can be checked here
    if isinstance(temperature, (int, float)) and not temperature > 0:
        raise ValueError(f"temperature must be > 0, not {temperature}")


def _check_views(z1, z2):
    if len(z1.shape) != 2 or tuple(z1.shape) != tuple(z2.shape):
        raise ValueError(f"the two views must have the same shape (N, D), not {z1.shape} and {z2.shape}")
