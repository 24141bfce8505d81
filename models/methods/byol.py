"""BYOL: predict the momentum encoder's embedding of the other view; no negatives."""

from __future__ import annotations

from models.losses import byol
from models.methods.base import both_ways, halves
from models.methods.momentum import MomentumMethod
from models.methods.predicting import PredictingMethod


class BYOL(PredictingMethod, MomentumMethod):
    """Grill et al. 2020, arXiv:2006.07733.

    Options: those of `PredictingMethod` (published: symmetric) and of `MomentumMethod`.
    """

    advice = (
        "turn on batch_norm in both heads, raise method.momentum.start, or lower method.optimizer.learning_rate"
    )

    def contrastive_loss(self, outputs, labels):
        """Distance of predictions from the other view's targets; the sum of both ways, as published."""
        predictions, targets = halves(outputs["p"]), halves(outputs["targets"])
        found = both_ways(byol, predictions, targets, self.symmetric)
        return 2.0 * found if self.symmetric else found
