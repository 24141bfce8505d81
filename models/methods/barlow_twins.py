"""Barlow Twins: each dimension agrees with itself across views and with no other dimension."""

from __future__ import annotations

from models.losses import barlow_twins
from models.methods.base import Method, Setup, halves


class BarlowTwins(Method):
    """Zbontar et al. 2021, arXiv:2103.03230.

    Options: `off_diagonal` (≥ 0), weight of the redundancy between dimensions.
    """

    def __init__(self, setup: Setup):
        super().__init__(setup)
        self.off_diagonal = float(setup.options["off_diagonal"])

    def contrastive_loss(self, outputs, labels):
        """Distance of the cross-correlation from the identity; labels play no part."""
        return barlow_twins(*halves(outputs["z"]), self.off_diagonal)
