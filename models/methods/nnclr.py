"""NNCLR: the positive is not the other view but its nearest neighbour among earlier images."""

from __future__ import annotations

from functools import partial

from keras import ops

from models.losses import nnclr
from models.methods.base import Setup, both_ways, halves
from models.methods.predicting import PredictingMethod
from models.queue import Queue
from models.scaling import l2_normalize
from models.temperature import Temperature


class NNCLR(PredictingMethod):
    """Dwibedi et al. 2021, arXiv:2104.14548.

    Options: those of `PredictingMethod` (without a head the projections themselves must find the neighbours),
    `temperature` (> 0), `learnable_temperature`, `queue_size`, `straight_through`: the gradient of a neighbour goes
    to the projection that it replaces, as in the Keras example; the paper lets none through.
    """

    def __init__(self, setup: Setup):
        super().__init__(setup)
        options = setup.options
        self.temperature = Temperature(options["temperature"], options["learnable_temperature"])
        # as wide as the projection, which is what it keeps
        self.queue = Queue(options["queue_size"], options["projection"]["width"], setup.seed)
        self.straight_through = bool(options["straight_through"])

    def contrastive_loss(self, outputs, labels):
        """Neighbours of one view against the predictions of the other; the queue takes the first views after."""
        z = halves(outputs["z"])
        neighbours = (self._neighbours(z[0]), self._neighbours(z[1]))
        loss = partial(nnclr, temperature=self.temperature.value())
        found = both_ways(loss, neighbours, halves(outputs["p"]), self.symmetric)
        self.queue.enqueue(z[0])
        return found

    def _neighbours(self, z):
        nearest = self.queue.nearest(z)
        if not self.straight_through:
            return nearest
        z = l2_normalize(z)
        return z + ops.stop_gradient(nearest - z)
