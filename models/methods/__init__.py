"""Pretraining methods by name, all alike: a projection head, a loss, and what they keep between steps.

A new method is one module here, one line in `METHODS`, one file in `conf/method/` and one test.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from models.augmentation import Augmentation
from models.methods.base import ContrastiveModel
from models.methods.simclr import SimCLR

METHODS: dict[str, type[ContrastiveModel]] = {"simclr": SimCLR}


def build(
    name: str, encoder: keras.Model, options: Mapping[str, Any], policy: Augmentation, classes: int, seed: int
) -> ContrastiveModel:
    """Build a method around an encoder.

    Args:
        name: a key of `METHODS`.
        encoder: as from `models.encoders.build`; it is trained in place.
        options: the method's own hyperparameters, as in `conf/method/<name>.yaml`.
        policy: augmentation of the views.
        classes: number of classes of the online probe.
        seed: decides the augmentation.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, not {name!r}")
    return METHODS[name](encoder, options, policy, classes, seed)
