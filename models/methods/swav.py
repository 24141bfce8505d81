"""SwAV: predict one view's prototypes from the other view."""

from __future__ import annotations

from typing import Literal

from models.losses.assignment import cross_entropy, sinkhorn
from models.losses.checks import check_pair, check_temperature
from models.losses.views import over_pairs, split_views
from models.methods.shared.base import Method, MethodOptions, Setup
from models.methods.shared.prototypes import prototypes, scores
from models.options import options, within


def swav(scores1, scores2, temperature, epsilon=0.05, iterations=3, more=()):
    """Predict the prototype assignment of one view from the other, both ways, and from further views.

    Args:
        scores1, scores2: cosine of each view's embeddings with the prototypes, shape (N, K).
        temperature: > 0, of the prediction; 0.1 is usual.
        epsilon, iterations: of `sinkhorn`.
        more: scores of a third view and further ones, each of shape (N, K), which predict both assignments and have
            none, as the paper's small crops.

    Returns:
        Scalar float32, in nats: the mean over all that is predicted. Equal scores give log K.

    Raises:
        ValueError: temperature or epsilon is not > 0, or the shapes differ.

    Source: Caron et al. 2020, arXiv:2006.09882, eq. 1 and 2, averaged over the two directions; with `more` eq. 6.
    """
    for other in (scores2, *more):
        check_pair(scores1, other, "the views' scores" if more else "the two views' scores")
    check_temperature(temperature)
    targets = [sinkhorn(scores, epsilon, iterations) for scores in (scores1, scores2)]

    def loss(scores, target):
        return cross_entropy(target, scores, temperature)

    return over_pairs(loss, (scores1, scores2, *more), targets)


@options
class Options(MethodOptions):
    """`prototypes`: their number. `epsilon`, `iterations`: of the balanced assignment.

    `freeze_prototypes`: fraction of the training during which they are held still.
    """

    name: Literal["swav"]
    temperature: float = within(gt=0)
    prototypes: int = within(ge=2)
    epsilon: float = within(gt=0)
    iterations: int = within(ge=1)
    freeze_prototypes: float = within(ge=0, le=1)


class SwAV(Method):
    """Caron et al. 2020, arXiv:2006.09882, with full-size views: of more than two, the first two are assigned."""

    advice = "lower method.epsilon or the number of method.prototypes, or raise method.freeze_prototypes"

    def __init__(self, setup: Setup[Options]):
        super().__init__(setup)
        options = setup.options
        self.prototypes = prototypes(options.projection.width, options.prototypes)
        self.temperature = options.temperature
        self.epsilon, self.iterations = options.epsilon, options.iterations
        self.freeze = options.freeze_prototypes

    def contrastive_loss(self, outputs, labels):
        """Cross entropy of each view's scores with the other's assignment; labels play no part."""
        found = scores(self.prototypes, outputs["z"], trained=self.done > self.freeze)
        one, two, *more = split_views(found, self.views)
        return swav(one, two, self.temperature, self.epsilon, self.iterations, more)
