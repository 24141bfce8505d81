"""DCL: SimCLR whose denominator leaves out the positive, for small batches."""

from __future__ import annotations

from typing import Literal

from keras import ops

from models.losses.contrastive import log_sum_exp_without, normalized_views
from models.methods.shared.base import Method, Setup, split_views
from models.methods.shared.contrastive import ContrastiveOptions
from models.options import options
from models.temperature import Temperature


def dcl(z1, z2, temperature):
    """Decoupled contrastive loss: NT-Xent without the positive in the denominator.

    The gradient of an easy positive then no longer fades, which helps with small batches.

    Args:
        z1, z2, temperature: as for `nt_xent`; N ≥ 2, or there is nothing to tell apart.

    Returns:
        Scalar float32, in nats; may be negative. Uniform embeddings give log(2N − 2).

    Raises:
        ValueError: temperature is not > 0, the shapes differ, or N is 1.

    Source: Yeh et al. 2021, arXiv:2110.06848, eq. 6 (the mean instead of the sum over views and images).
    """
    z, n = normalized_views(z1, z2, temperature)
    if z1.shape[0] == 1:
        raise ValueError("the decoupled loss needs at least 2 images a batch, not 1")
    similarities = ops.matmul(z, ops.transpose(z)) / temperature
    same_image = ops.tile(ops.eye(n), (2, 2))
    positives = ops.sum(z[:n] * z[n:], axis=-1) / temperature
    return ops.mean(log_sum_exp_without(similarities, same_image)) - ops.mean(positives)


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
        return dcl(*split_views(outputs["z"]), self.temperature.value())
