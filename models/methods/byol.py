"""BYOL: predict the momentum encoder's embedding of the other view; no negatives."""

from __future__ import annotations

from typing import Literal

from models.losses.cosine import negative_cosine
from models.losses.views import over_pairs, split_views
from models.methods.shared.momentum import MomentumMethod, MomentumOptions
from models.methods.shared.predicting import PredictingMethod, PredictingOptions
from models.options import options


def byol(p, z):
    """Squared distance between normalised predictions and targets: 2 − 2·cosine.

    Args:
        p, z: as for `negative_cosine`.

    Returns:
        Scalar float32 in [0, 4]. The method adds the same with the views swapped.

    Raises:
        ValueError: the shapes differ.

    Source: Grill et al. 2020, arXiv:2006.07733, eq. 2.
    """
    return 2.0 + 2.0 * negative_cosine(p, z)


@options
class Options(PredictingOptions, MomentumOptions):
    """Published: symmetric."""

    name: Literal["byol"]


class BYOL(PredictingMethod, MomentumMethod):
    """Grill et al. 2020, arXiv:2006.07733."""

    advice = (
        "turn on batch_norm in both heads, raise method.momentum.start, or lower method.optimizer.learning_rate"
    )

    def contrastive_loss(self, outputs, labels):
        """Distance of predictions from the other view's targets; the sum of both ways, as published."""
        predictions, targets = (split_views(outputs[name], self.views) for name in ("p", "targets"))
        found = over_pairs(byol, predictions, targets, self.symmetric)
        return 2.0 * found if self.symmetric else found
