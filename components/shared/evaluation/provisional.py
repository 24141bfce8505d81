"""Stand-ins of functions that `statistics` gets; goes when it has them."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtr, ndtri

from components.shared.evaluation.statistics import GainBound, gain_bound


def accuracy_bound(right: np.ndarray, alpha: float) -> GainBound:
    """Lower bound of an accuracy."""
    return gain_bound(right, np.zeros((1, right.shape[1]), bool), alpha)


def paired_bound(new: np.ndarray, old: np.ndarray, alpha: float) -> GainBound:
    """Lower bound of one artefact's accuracy minus another's."""
    difference = new.astype(float) - old
    error = float(difference.std(ddof=1)) / math.sqrt(len(new))
    gain = float(difference.mean())
    return GainBound(gain, gain - float(ndtri(1 - alpha)) * error, error, len(new) - 1)


def slice_p_value(contender: np.ndarray, baseline: np.ndarray, max_drop: float) -> tuple[float, float]:
    """Drop, and its one-sided p-value against a drop of `max_drop`."""
    bound = gain_bound(contender, baseline, 0.5)
    drop = -bound.gain
    if bound.standard_error == 0:
        return drop, 0.0 if drop > max_drop else 1.0
    return drop, float(ndtr((max_drop - drop) / bound.standard_error))


def holm(p_values: list[float], alpha: float) -> np.ndarray:
    """Which are refused, by Holm's step-down."""
    p = np.asarray(p_values, float)
    refused = np.zeros(len(p), bool)
    for rank, index in enumerate(np.argsort(p)):
        if p[index] > alpha / (len(p) - rank):
            break
        refused[index] = True
    return refused
