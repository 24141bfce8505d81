"""BYOL: predict the momentum encoder's embedding of the other view; no negatives."""

from __future__ import annotations

from typing import Any

from models.heads import head
from models.losses import byol
from models.methods.base import Setup, both_ways, halves
from models.methods.momentum import MomentumMethod


class BYOL(MomentumMethod):
    """Grill et al. 2020, arXiv:2006.07733.

    Options: those of `MomentumMethod`, `prediction` (a head), `symmetric` (published: both ways).
    """

    advice = (
        "turn on batch_norm in both heads, raise method.momentum.start, or lower method.optimizer.learning_rate"
    )

    def __init__(self, setup: Setup):
        super().__init__(setup)
        options = setup.options
        self.prediction_head = head("prediction_head", options["projection"]["width"], **options["prediction"])
        self.symmetric = bool(options["symmetric"])

    def embed(self, views, features) -> dict[str, Any]:
        """Projections `z`, predictions `p` of them, and `targets`."""
        outputs = super().embed(views, features)
        return {**outputs, "p": self.prediction_head(outputs["z"], training=True)}

    def contrastive_loss(self, outputs, labels):
        """Distance of predictions from the other view's targets; the sum of both ways, as published."""
        predictions, targets = halves(outputs["p"]), halves(outputs["targets"])
        found = both_ways(byol, predictions, targets, self.symmetric)
        return 2.0 * found if self.symmetric else found
