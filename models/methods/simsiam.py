"""SimSiam: predict the other view's embedding; only a stopped gradient keeps it from collapsing."""

from __future__ import annotations

from keras import ops

from models.losses import negative_cosine
from models.methods.base import both_ways, halves
from models.methods.predicting import PredictingMethod


class SimSiam(PredictingMethod):
    """Chen and He 2020, arXiv:2011.10566.

    Options: those of `PredictingMethod` (published: symmetric).
    """

    advice = "turn on batch_norm in both heads and output_norm in the projection, or lower the learning rate"

    def contrastive_loss(self, outputs, labels):
        """Minus the cosine of predictions with the other view's projections, held still."""
        targets = halves(ops.stop_gradient(outputs["z"]))
        return both_ways(negative_cosine, halves(outputs["p"]), targets, self.symmetric)
