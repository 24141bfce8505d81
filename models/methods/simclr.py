"""SimCLR: each view must find its other view among all other images' views."""

from __future__ import annotations

from models.losses import cross_view_nt_xent, nt_xent
from models.methods.base import Method, Setup, halves
from models.temperature import Temperature


class SimCLR(Method):
    """Chen et al. 2020, arXiv:2002.05709.

    Options: `temperature` (> 0), `learnable_temperature`, `negatives`: `all` 2N − 2 other views, as published, or
    `cross_view`: only the N − 1 of the other view.
    """

    def __init__(self, setup: Setup):
        super().__init__(setup)
        self.temperature = Temperature(setup.options["temperature"], setup.options["learnable_temperature"])
        self.loss_function = {"all": nt_xent, "cross_view": cross_view_nt_xent}[setup.options["negatives"]]

    def contrastive_loss(self, outputs, labels):
        """NT-Xent; labels play no part."""
        return self.loss_function(*halves(outputs["z"]), self.temperature.value())
