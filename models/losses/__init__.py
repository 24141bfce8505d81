"""Losses of self-supervised pretraining: pure functions on (N, D) arrays, in float32 whatever comes in.

One that a single method uses stands with that method; here are those that several share. All can be imported from
here by name, each with what it needs alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_MODULES = {
    "nt_xent": "models.methods.simclr",
    "cross_view_nt_xent": "models.losses.contrastive",
    "dcl": "models.methods.dcl",
    "nnclr": "models.methods.nnclr",
    "sup_con": "models.methods.supcon",
    "moco": "models.methods.moco",
    "moco_v3": "models.methods.moco",
    "negative_cosine": "models.losses.cosine",
    "byol": "models.methods.byol",
    "barlow_twins": "models.methods.barlow_twins",
    "vicreg": "models.methods.vicreg",
    "sinkhorn": "models.losses.assignment",
    "swav": "models.methods.swav",
    "dino": "models.methods.dino",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
