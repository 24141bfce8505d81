"""SimSiam: predict the other view's embedding; only a stopped gradient keeps it from collapsing."""

from __future__ import annotations

from typing import Literal

from keras import ops

from models.losses.cosine import negative_cosine
from models.losses.views import over_pairs, split_views
from models.methods.shared.predicting import PredictingMethod, PredictingOptions
from models.options import options


@options
class Options(PredictingOptions):
    """Published: symmetric."""

    name: Literal["simsiam"]


class SimSiam(PredictingMethod):
    """Chen and He 2020, arXiv:2011.10566."""

    advice = "turn on batch_norm in both heads and output_norm in the projection, or lower the learning rate"

    def contrastive_loss(self, outputs, labels):
        """Minus the cosine of predictions with the other view's projections, held still."""
        predictions = split_views(outputs["p"], self.views)
        targets = split_views(ops.stop_gradient(outputs["z"]), self.views)
        return over_pairs(negative_cosine, predictions, targets, self.symmetric)
