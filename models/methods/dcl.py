"""DCL: SimCLR whose denominator leaves out the positive, for small batches."""

from __future__ import annotations

from models.losses import dcl
from models.methods.base import Method, Setup, halves
from models.temperature import Temperature


class DCL(Method):
    """Decoupled contrastive learning, Yeh et al. 2021, arXiv:2110.06848.

    Options: `temperature` (> 0), `learnable_temperature`.
    """

    def __init__(self, setup: Setup):
        super().__init__(setup)
        self.temperature = Temperature(setup.options["temperature"], setup.options["learnable_temperature"])

    def contrastive_loss(self, outputs, labels):
        """The decoupled loss; labels play no part."""
        return dcl(*halves(outputs["z"]), self.temperature.value())
