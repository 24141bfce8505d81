"""NNCLR: the positive is not the other view but its nearest neighbour among earlier images."""

from __future__ import annotations

from functools import partial
from typing import Literal

from keras import ops

from models.losses.contrastive import cross_view_nt_xent
from models.losses.scaling import l2_normalize
from models.losses.views import over_pairs, split_views
from models.methods.shared.base import Setup
from models.methods.shared.contrastive import ContrastiveOptions
from models.methods.shared.predicting import PredictingMethod, PredictingOptions
from models.methods.shared.queue import Queue
from models.methods.shared.temperature import Temperature
from models.options import options, within


def nnclr(nn1, z2, temperature):
    """Contrast between the nearest neighbours of one view and the other view, in both directions.

    Args:
        nn1: for each image the nearest neighbour of its first view in the queue, shape (N, D), any scale.
        z2: embeddings (predictions) of the second view, shape (N, D), any scale.
        temperature: > 0; 0.1 is usual.

    Returns:
        Scalar float32, in nats. Uniform embeddings give log N. The method adds the same with the views swapped.

    Raises:
        ValueError: temperature is not > 0, or the shapes differ.

    Source: Dwibedi et al. 2021, arXiv:2104.14548, eq. 3 and its symmetric form in section 3.2.
    """
    return cross_view_nt_xent(nn1, z2, temperature)


@options
class Options(PredictingOptions, ContrastiveOptions):
    """`straight_through`: a neighbour's gradient goes to the projection that it replaces, as in the Keras example.

    The paper lets none through. Without a `prediction` head the projections themselves must find the neighbours.
    """

    name: Literal["nnclr"]
    queue_size: int = within(ge=1)
    straight_through: bool


class NNCLR(PredictingMethod):
    """Dwibedi et al. 2021, arXiv:2104.14548."""

    def __init__(self, setup: Setup[Options]):
        super().__init__(setup)
        options = setup.options
        self.temperature = Temperature(options.temperature, options.learnable_temperature)
        # as wide as the projection, which is what it keeps
        self.queue = Queue(options.queue_size, options.projection.width, setup.seed)
        self.straight_through = options.straight_through

    def contrastive_loss(self, outputs, labels):
        """Neighbours of one view against the predictions of the other; the queue takes the first views after."""
        z, predictions = split_views(outputs["z"], self.views), split_views(outputs["p"], self.views)
        neighbours = [self._neighbours(view) for view in z]
        loss = partial(nnclr, temperature=self.temperature.value())
        found = over_pairs(loss, neighbours, predictions, self.symmetric)
        self.queue.enqueue(z[0])
        return found

    def _neighbours(self, z):
        nearest = self.queue.nearest(z)
        if not self.straight_through:
            return nearest
        z = l2_normalize(z)
        return z + ops.stop_gradient(nearest - z)
