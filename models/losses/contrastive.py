"""What the losses with a softmax over other images share, and those that several methods use."""

from __future__ import annotations

from keras import ops

from models.losses.checks import check_pair, check_temperature
from models.losses.scaling import l2_normalize
from models.losses.views import over_pairs, split_views


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


def normalized_views(views, temperature):
    """All views below each other, rows of unit length, (V·N, D), and N; refuses what doesn't fit."""
    for other in views[1:]:
        check_pair(views[0], other, "the two views" if len(views) == 2 else "the views")
    check_temperature(temperature)
    return ops.concatenate([l2_normalize(view) for view in views], axis=0), ops.shape(views[0])[0]


def mean_positive(z, views, temperature):
    """Mean similarity over all pairs of views of an image, of what `normalized_views` made of so many."""

    def positives(one, other):
        return ops.mean(ops.sum(one * other, axis=-1) / temperature)

    rows = split_views(z, views)
    return over_pairs(positives, rows, rows, both_ways=False)


def log_sum_exp_without(similarities, excluded):
    """Row-wise log Σ exp over the candidates for which `excluded` is 0."""
    # −1e9 vanishes in the softmax and, unlike −inf, has a gradient
    return ops.logsumexp(similarities - 1e9 * excluded, axis=-1)
