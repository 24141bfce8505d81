"""SimCLR: each view must find its other view among all other images' views."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from models.augmentation import Augmentation
from models.losses import nt_xent
from models.methods.base import ContrastiveModel


class SimCLR(ContrastiveModel):
    """Chen et al. 2020, arXiv:2002.05709.

    Options: `temperature` (> 0), `projection` (`hidden` and `width` units).
    """

    def __init__(
        self, encoder: keras.Model, options: Mapping[str, Any], policy: Augmentation, classes: int, seed: int
    ):
        super().__init__(encoder, options, policy, classes, seed)
        self.temperature = float(options["temperature"])

    def contrastive_loss(self, z1, z2, labels):
        """NT-Xent; labels play no part."""
        return nt_xent(z1, z2, self.temperature)
