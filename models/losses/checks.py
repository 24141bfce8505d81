"""What every loss asks of its inputs."""

from __future__ import annotations

import math


def check_temperature(temperature):
    """Refuse a temperature that is not > 0, where it is a plain number."""
    # a learned temperature is a variable; only plain numbers can be checked here
    if isinstance(temperature, (int, float)) and not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature must be > 0, not {temperature}")


def check_weights(**weights):
    """Refuse weights of terms that are not ≥ 0."""
    for name, weight in weights.items():
        if not (weight >= 0 and math.isfinite(weight)):
            raise ValueError(f"{name} must be ≥ 0, not {weight}")


def check_rows(z):
    """Refuse embeddings that are no matrix."""
    if len(z.shape) != 2:
        raise ValueError(f"embeddings must have the shape (N, D), not {tuple(z.shape)}")


def check_pair(a, b, what):
    """Refuse two batches of embeddings of different shapes; `what` names them."""
    if len(a.shape) != 2 or tuple(a.shape) != tuple(b.shape):
        raise ValueError(f"{what} must have the same shape (N, D), not {tuple(a.shape)} and {tuple(b.shape)}")
