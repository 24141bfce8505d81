"""What the losses with a softmax over other images share, and those that several methods use."""

from __future__ import annotations

from keras import ops

from models.losses.checks import check_pair, check_temperature
from models.scaling import l2_normalize


def cross_view_nt_xent(z1, z2, temperature):
    """NT-Xent with the N embeddings of the other view as the only candidates, in both directions.

    Args:
        z1, z2, temperature: as for `nt_xent`.

    Returns:
        Scalar float32, in nats. Uniform embeddings give log N.

    Raises:
        ValueError: temperature is not > 0, or the shapes differ.

    Source: Sohn 2016, "Improved deep metric learning with multi-class N-pair loss objective", in both directions as
    Radford et al. 2021, arXiv:2103.00020, figure 3.
    """
    check_pair(z1, z2, "the two views")
    check_temperature(temperature)
    similarities = ops.matmul(l2_normalize(z1), ops.transpose(l2_normalize(z2))) / temperature
    rows = ops.mean(ops.logsumexp(similarities, axis=1))
    columns = ops.mean(ops.logsumexp(similarities, axis=0))
    return (rows + columns) / 2 - ops.mean(ops.diagonal(similarities))


def normalized_views(z1, z2, temperature):
    """Both views below each other, rows of unit length, (2N, D), and N; refuses what doesn't fit."""
    check_pair(z1, z2, "the two views")
    check_temperature(temperature)
    return ops.concatenate([l2_normalize(z1), l2_normalize(z2)], axis=0), ops.shape(z1)[0]


def log_sum_exp_without(similarities, excluded):
    """Row-wise log Σ exp over the candidates for which `excluded` is 0."""
    # −1e9 vanishes in the softmax and, unlike −inf, has a gradient
    return ops.logsumexp(similarities - 1e9 * excluded, axis=-1)
