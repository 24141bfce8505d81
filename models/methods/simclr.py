"""SimCLR: each view must find its other view among all other images' views."""

from __future__ import annotations

from typing import Literal

from keras import ops

from models.losses.contrastive import cross_view_nt_xent, log_sum_exp_without, normalized_views
from models.methods.shared.base import Method, Setup, split_views
from models.methods.shared.contrastive import ContrastiveOptions
from models.options import options
from models.temperature import Temperature


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
    z, n = normalized_views(z1, z2, temperature)
    similarities = ops.matmul(z, ops.transpose(z)) / temperature
    positives = ops.sum(z[:n] * z[n:], axis=-1) / temperature
    return ops.mean(log_sum_exp_without(similarities, ops.eye(2 * n))) - ops.mean(positives)


@options
class Options(ContrastiveOptions):
    """`negatives`: `all` 2N − 2 other views, as published, or `cross_view`: only the N − 1 of the other view."""

    name: Literal["simclr"]
    negatives: Literal["all", "cross_view"]


class SimCLR(Method):
    """Chen et al. 2020, arXiv:2002.05709."""

    def __init__(self, setup: Setup[Options]):
        super().__init__(setup)
        self.temperature = Temperature(setup.options.temperature, setup.options.learnable_temperature)
        self.loss_function = {"all": nt_xent, "cross_view": cross_view_nt_xent}[setup.options.negatives]

    def contrastive_loss(self, outputs, labels):
        """NT-Xent; labels play no part."""
        return self.loss_function(*split_views(outputs["z"]), self.temperature.value())
