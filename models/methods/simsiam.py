"""SimSiam: predict the other view's embedding; only a stopped gradient keeps it from collapsing."""

from __future__ import annotations

from typing import Any

from keras import ops

from models.heads import head
from models.losses import negative_cosine
from models.methods.base import Method, Setup, both_ways, halves


class SimSiam(Method):
    """Chen and He 2020, arXiv:2011.10566.

    Options: `prediction` (a head), `symmetric` (published: both ways).
    """

    advice = "turn on batch_norm in both heads and output_norm in the projection, or lower the learning rate"

    def __init__(self, setup: Setup):
        super().__init__(setup)
        options = setup.options
        self.prediction_head = head("prediction_head", options["projection"]["width"], **options["prediction"])
        self.symmetric = bool(options["symmetric"])

    def embed(self, views, features) -> dict[str, Any]:
        """Projections `z` and predictions `p` of them."""
        outputs = super().embed(views, features)
        return {**outputs, "p": self.prediction_head(outputs["z"], training=True)}

    def contrastive_loss(self, outputs, labels):
        """Minus the cosine of predictions with the other view's projections, held still."""
        targets = halves(ops.stop_gradient(outputs["z"]))
        return both_ways(negative_cosine, halves(outputs["p"]), targets, self.symmetric)
