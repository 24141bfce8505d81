"""VICReg: views agree, dimensions keep their variance and do not correlate."""

from __future__ import annotations

from models.losses import vicreg
from models.methods.base import Method, Setup, halves


class VICReg(Method):
    """Bardes et al. 2021, arXiv:2105.04906.

    Options: `invariance`, `variance`, `covariance` (≥ 0), weights of the three terms.
    """

    advice = "raise method.variance, or lower method.optimizer.learning_rate"

    def __init__(self, setup: Setup):
        super().__init__(setup)
        self.weights_of_terms = tuple(float(setup.options[n]) for n in ("invariance", "variance", "covariance"))

    def contrastive_loss(self, outputs, labels):
        """The three terms; labels play no part."""
        return vicreg(*halves(outputs["z"]), *self.weights_of_terms)
