"""SwAV: predict one view's prototypes from the other view."""

from __future__ import annotations

from models.losses import swav
from models.methods.base import Method, Setup, halves
from models.prototypes import prototypes, scores


class SwAV(Method):
    """Caron et al. 2020, arXiv:2006.09882, with two full-size views (no multi-crop).

    Options: `temperature` (> 0), `prototypes` (their number), `epsilon` (> 0) and `iterations` of the balanced
    assignment, `freeze_prototypes` (fraction of the training during which they are held still).
    """

    advice = "lower method.epsilon or the number of method.prototypes, or raise method.freeze_prototypes"

    def __init__(self, setup: Setup):
        super().__init__(setup)
        options = setup.options
        self.prototypes = prototypes(options["projection"]["width"], options["prototypes"])
        self.temperature = float(options["temperature"])
        self.epsilon, self.iterations = float(options["epsilon"]), int(options["iterations"])
        self.freeze = float(options["freeze_prototypes"])

    def contrastive_loss(self, outputs, labels):
        """Cross entropy of each view's scores with the other's assignment; labels play no part."""
        found = scores(self.prototypes, outputs["z"], trained=self.done > self.freeze)
        return swav(*halves(found), self.temperature, self.epsilon, self.iterations)
