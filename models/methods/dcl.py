"""DCL: SimCLR whose denominator leaves out the positive, for small batches."""

from __future__ import annotations

from typing import Literal

from keras import ops

from models.losses.contrastive import log_sum_exp_without, mean_positive, normalized_views
from models.losses.views import split_views
from models.methods.shared.base import Method, Setup
from models.methods.shared.contrastive import ContrastiveOptions
from models.methods.shared.temperature import Temperature
from models.options import options


def dcl(z1, z2, temperature, more=()):
    """Decoupled contrastive loss: NT-Xent without the positives in the denominator.

    The gradient of an easy positive then no longer fades, which helps with small batches.

    Args:
        z1, z2, temperature, more: as for `nt_xent`; N ≥ 2, or there is nothing to tell apart.

    Returns:
        Scalar float32, in nats; may be negative. Uniform embeddings give log(V·N − V), of two
        views log(2N − 2).

    Raises:
        ValueError: temperature is not > 0, the shapes differ, or N is 1.

    Source: Yeh et al. 2021, arXiv:2110.06848, eq. 6 (the mean instead of the sum over views and images). Of more
    than two views, as for `nt_xent`, each one's mean over its V − 1 positives, none of them in the denominator.
    """
    views = (z1, z2, *more)
    z, n = normalized_views(views, temperature)
    if z1.shape[0] == 1:
        raise ValueError("the decoupled loss needs at least 2 images a batch, not 1")
    similarities = ops.matmul(z, ops.transpose(z)) / temperature
    same_image = ops.tile(ops.eye(n), (len(views), len(views)))
    return ops.mean(log_sum_exp_without(similarities, same_image)) - mean_positive(z, len(views), temperature)


@options
class Options(ContrastiveOptions):
    """Those of a contrastive softmax."""

    name: Literal["dcl"]


class DCL(Method):
    """Decoupled contrastive learning, Yeh et al. 2021, arXiv:2110.06848."""

    def __init__(self, setup: Setup[Options]):
        super().__init__(setup)
        self.temperature = Temperature(setup.options.temperature, setup.options.learnable_temperature)

    def contrastive_loss(self, outputs, labels):
        """The decoupled loss; labels play no part."""
        z1, z2, *more = split_views(outputs["z"], self.views)
        return dcl(z1, z2, self.temperature.value(), more)
