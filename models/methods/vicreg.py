"""VICReg: views agree, dimensions keep their variance and do not correlate."""

from __future__ import annotations

from functools import partial
from typing import Literal

from keras import ops

from models.losses.checks import check_pair, check_weights
from models.losses.views import over_pairs, split_views
from models.methods.shared.base import Method, MethodOptions, Setup
from models.options import options, within


def vicreg(z1, z2, invariance=25.0, variance=25.0, covariance=1.0):
    """Pull two views together while each dimension keeps its spread and dimensions stay uncorrelated.

    Args:
        z1, z2: embeddings of the two views, shape (N, D); their scale matters; N ≥ 2.
        invariance, variance, covariance: weights λ, μ, ν ≥ 0 of the three terms.

    Returns:
        Scalar float32 ≥ 0.

    Raises:
        ValueError: a weight is negative, the shapes differ, or N is 1.

    Source: Bardes et al. 2021, arXiv:2105.04906, eq. 1–6, scaled as the authors' code, for which 25, 25, 1 were
    found: the invariance (eq. 5) is also averaged over the D dimensions, and the variance over the two views.
    """
    check_pair(z1, z2, "the two views")
    check_weights(invariance=invariance, variance=variance, covariance=covariance)
    if z1.shape[0] == 1:
        raise ValueError("VICReg needs at least 2 images a batch, not 1")
    z1, z2 = ops.cast(z1, "float32"), ops.cast(z2, "float32")
    similarity = ops.mean(ops.square(z1 - z2))
    covariances = [_covariance(z) for z in (z1, z2)]
    # ε keeps the root's gradient finite for a dimension that never changes
    hinge = sum(ops.mean(ops.relu(1.0 - ops.sqrt(ops.diagonal(c) + 1e-4))) for c in covariances)
    others = 1.0 - ops.eye(z1.shape[1])
    redundancy = sum(ops.sum(ops.square(c * others)) / z1.shape[1] for c in covariances)
    return invariance * similarity + variance * hinge / 2.0 + covariance * redundancy


def _covariance(z):
    centred = z - ops.mean(z, axis=0, keepdims=True)
    return ops.matmul(ops.transpose(centred), centred) / (ops.cast(ops.shape(z)[0], "float32") - 1.0)


@options
class Options(MethodOptions):
    """Weights of the three terms; 25, 25 and 1 are the published ones."""

    name: Literal["vicreg"]
    invariance: float = within(ge=0)
    variance: float = within(ge=0)
    covariance: float = within(ge=0)


class VICReg(Method):
    """Bardes et al. 2021, arXiv:2105.04906."""

    advice = "raise method.variance, or lower method.optimizer.learning_rate"

    def __init__(self, setup: Setup[Options]):
        super().__init__(setup)
        options = setup.options
        self.weights_of_terms = {name: getattr(options, name) for name in ("invariance", "variance", "covariance")}

    def contrastive_loss(self, outputs, labels):
        """The three terms; labels play no part."""
        views = split_views(outputs["z"], self.views)
        return over_pairs(partial(vicreg, **self.weights_of_terms), views, views, both_ways=False)
