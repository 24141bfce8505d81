"""Barlow Twins: each dimension agrees with itself across views and with no other dimension."""

from __future__ import annotations

from functools import partial
from typing import Literal

from keras import ops

from models.losses.checks import check_pair, check_weights
from models.losses.scaling import standardize
from models.losses.views import over_pairs, split_views
from models.methods.shared.base import Method, MethodOptions, Setup
from models.options import options, within


def barlow_twins(z1, z2, off_diagonal):
    """Drive the cross-correlation of the two views' dimensions to the identity.

    Args:
        z1, z2: embeddings of the two views, shape (N, D), any scale (standardised over the batch here); N ≥ 2.
        off_diagonal: λ ≥ 0, weight of the redundancy between dimensions; 0.005 is usual.

    Returns:
        Scalar float32 ≥ 0: 0 for identical views of uncorrelated dimensions, D for views without correlation.

    Raises:
        ValueError: off_diagonal is negative, or the shapes differ.

    Source: Zbontar et al. 2021, arXiv:2103.03230, eq. 1 and 2.
    """
    check_pair(z1, z2, "the two views")
    check_weights(off_diagonal=off_diagonal)
    n = ops.cast(ops.shape(z1)[0], "float32")
    correlations = ops.matmul(ops.transpose(standardize(z1)), standardize(z2)) / n
    own = ops.eye(z1.shape[1])
    squares = ops.square(correlations - own)
    return ops.sum(squares * own) + off_diagonal * ops.sum(squares * (1.0 - own))


@options
class Options(MethodOptions):
    """`off_diagonal`: weight of the redundancy between dimensions."""

    name: Literal["barlow_twins"]
    off_diagonal: float = within(ge=0)


class BarlowTwins(Method):
    """Zbontar et al. 2021, arXiv:2103.03230."""

    def __init__(self, setup: Setup[Options]):
        super().__init__(setup)
        self.off_diagonal = setup.options.off_diagonal

    def contrastive_loss(self, outputs, labels):
        """Distance of the cross-correlation from the identity; labels play no part."""
        views = split_views(outputs["z"], self.views)
        return over_pairs(partial(barlow_twins, off_diagonal=self.off_diagonal), views, views, both_ways=False)
