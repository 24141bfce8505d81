"""Pretraining methods by name, all alike: heads, a loss, and what they keep between steps.

A new method is one module here, one line in `METHODS`, one file in `conf/method/` and one test.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from models.augmentation import Augmentation
from models.methods.barlow_twins import BarlowTwins
from models.methods.base import Method, Setup
from models.methods.byol import BYOL
from models.methods.dcl import DCL
from models.methods.dino import DINO
from models.methods.moco import MoCo
from models.methods.nnclr import NNCLR
from models.methods.simclr import SimCLR
from models.methods.simsiam import SimSiam
from models.methods.supcon import SupCon
from models.methods.swav import SwAV
from models.methods.vicreg import VICReg

METHODS: dict[str, type[Method]] = {
    "simclr": SimCLR,
    "dcl": DCL,
    "nnclr": NNCLR,
    "moco": MoCo,
    "byol": BYOL,
    "simsiam": SimSiam,
    "barlow_twins": BarlowTwins,
    "vicreg": VICReg,
    "swav": SwAV,
    "dino": DINO,
    "supcon": SupCon,
}


def build(
    name: str,
    encoder: keras.Model,
    options: Mapping[str, Any],
    policy: Augmentation,
    classes: int,
    seed: int,
    steps: int = 1,
) -> Method:
    """Build a method around an encoder.

    Args:
        name: a key of `METHODS`.
        encoder: as from `models.encoders.build`; it is trained in place.
        options: the method's own hyperparameters, as in `conf/method/<name>.yaml`.
        policy: augmentation of the views.
        classes: number of classes of the online probe.
        seed: decides the augmentation.
        steps: of the whole training; momentum schedules span them.

    Raises:
        ValueError: the name is unknown, or the options contradict each other.
    """
    if name not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, not {name!r}")
    return METHODS[name](Setup(encoder, options, policy, classes, seed, steps))
