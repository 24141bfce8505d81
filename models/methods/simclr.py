"""SimCLR: each view must find its other view among all other images' views."""

from __future__ import annotations

from functools import partial
from typing import Literal

from keras import ops

from models.losses.contrastive import cross_view_nt_xent, log_sum_exp_without, mean_positive, normalized_views
from models.losses.views import over_pairs, split_views
from models.methods.shared.base import Method, Setup
from models.methods.shared.contrastive import ContrastiveOptions
from models.methods.shared.temperature import Temperature
from models.options import options


def nt_xent(z1, z2, temperature, more=()):
    """Normalised temperature-scaled cross entropy over two or more views of a batch.

    Each of the 2N embeddings must pick its other view among the 2N − 1 others. Of V views each of the V·N must pick
    each of its V − 1 other views among all V·N − 1 others, and its losses are averaged.

    Args:
        z1, z2: embeddings of the two views, shape (N, D), any scale (normalised here).
        temperature: > 0; smaller makes the softmax peakier. 0.1 is usual for small images.
        more: embeddings of a third view and further ones, each of shape (N, D).

    Returns:
        Scalar float32, in nats. Uniform embeddings give log(V·N − 1), of two views log(2N − 1).

    Raises:
        ValueError: temperature is not > 0, or the shapes differ.

    Source: Chen et al. 2020, arXiv:2002.05709, eq. 1; of more than two views Khosla et al. 2020, arXiv:2004.11362,
    eq. 2 (L_out, the mean over the anchors) with each image a class of its own.
    """
    views = (z1, z2, *more)
    z, n = normalized_views(views, temperature)
    similarities = ops.matmul(z, ops.transpose(z)) / temperature
    candidates = log_sum_exp_without(similarities, ops.eye(len(views) * n))
    return ops.mean(candidates) - mean_positive(z, len(views), temperature)


@options
class Options(ContrastiveOptions):
    """`negatives`: `all` 2N − 2 other views, as published, or `cross_view`: only the N − 1 of the other view.

    Of more than two `views`, `all` asks for all positives among all views (`nt_xent`); `cross_view` takes the mean
    over all pairs of views.
    """

    name: Literal["simclr"]
    negatives: Literal["all", "cross_view"]


class SimCLR(Method):
    """Chen et al. 2020, arXiv:2002.05709."""

    def __init__(self, setup: Setup[Options]):
        super().__init__(setup)
        self.temperature = Temperature(setup.options.temperature, setup.options.learnable_temperature)
        self.cross_view = setup.options.negatives == "cross_view"

    def contrastive_loss(self, outputs, labels):
        """NT-Xent; labels play no part."""
        views, temperature = split_views(outputs["z"], self.views), self.temperature.value()
        if self.cross_view:
            return over_pairs(partial(cross_view_nt_xent, temperature=temperature), views, views, both_ways=False)
        z1, z2, *more = views
        return nt_xent(z1, z2, temperature, more)
