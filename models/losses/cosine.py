"""Agreement of predictions with targets, without negatives: SimSiam and BYOL."""

from __future__ import annotations

from keras import ops

from models.losses.checks import check_pair
from models.scaling import l2_normalize


def negative_cosine(p, z):
    """Minus the cosine between predictions and targets, as in SimSiam.

    Args:
        p: predictions, shape (N, D), any scale.
        z: targets, shape (N, D), any scale; the caller stops their gradient.

    Returns:
        Scalar float32 in [−1, 1]; −1 where each prediction points to its target.

    Raises:
        ValueError: the shapes differ.

    Source: Chen and He 2020, arXiv:2011.10566, eq. 1.
    """
    check_pair(p, z, "predictions and targets")
    return -ops.mean(ops.sum(l2_normalize(p) * l2_normalize(z), axis=-1))
