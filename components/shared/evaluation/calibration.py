"""Whether a confidence means what it says: temperature, calibration errors, accuracy over coverage. NumPy only.

Everywhere `probabilities` are float, shape (N, classes), rows that sum to 1, and `labels` the true classes, int,
shape (N,), 0 to classes − 1. What does not fit, or is empty, raises ValueError.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_softmax, softmax

COLDEST, HOTTEST = 0.25, 20.0
# a softmax in float32 can underflow to 0, whose logarithm would be infinite
_LEAST = float(np.finfo(np.float32).tiny)
# of Guo et al.
_BINS = 15


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature by which dividing the logits makes the log-loss least.

    Args:
        probabilities: of held-out images, shape (N, classes), not yet calibrated.
        labels: shape (N,).

    Returns:
        From `COLDEST` to `HOTTEST`; above 1 the model was too sure of itself. 1 where no temperature is better
        than another, as for uniform answers.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv:1706.04599, section 4.2.
    """
    logits = _logits(_checked(probabilities, labels))
    # shifted to keep the exponentials in range; probabilities do not feel it
    logits -= logits.max(axis=1, keepdims=True)
    true = logits[np.arange(len(labels)), labels]

    def slope(sharpness: float) -> float:
        # of the log-loss over 1 / temperature, in which it is convex: this only grows
        return float(((softmax(sharpness * logits, axis=1) * logits).sum(axis=1) - true).mean())

    softest, sharpest = 1 / HOTTEST, 1 / COLDEST
    if slope(softest) == slope(sharpest) == 0:
        return 1.0
    if slope(softest) >= 0:
        return HOTTEST
    if slope(sharpest) <= 0:
        return COLDEST
    return float(1 / brentq(slope, softest, sharpest, xtol=1e-9))


def rescale(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """What the probabilities become when their logits are divided by a temperature.

    Args:
        probabilities: shape (…, classes).
        temperature: above 0.

    Returns:
        float32 of the same shape; the order within each row stays.

    Raises:
        ValueError: the temperature is not a positive number.
    """
    if not (np.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature must be a positive number, not {temperature}")
    if temperature == 1:
        return np.asarray(probabilities, dtype=np.float32)
    return np.asarray(softmax(_logits(probabilities) / temperature, axis=-1), dtype=np.float32)


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log-likelihood of the true classes, nats, ≥ 0 and finite; log(classes) for uniform answers."""
    probabilities = _checked(probabilities, labels)
    return float(-log_softmax(_logits(probabilities), axis=1)[np.arange(len(labels)), labels].mean())


def calibrated_log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The log-loss, nats, at the temperature that makes it least: which of two trainings is the better one.

    A long training is often righter than a short one and too sure of itself, for which the plain log-loss would
    choose the short one. A temperature can put right how sure a model is, and nothing can how right it is.

    Args:
        probabilities: shape (M, classes).
        labels: shape (M,).
    """
    return log_loss(rescale(probabilities, fit_temperature(probabilities, labels)), labels)


def brier(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean squared distance from the true answer, over all classes: 0 to 2.

    Source: Brier 1950, doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2.
    """
    probabilities = _checked(probabilities, labels)
    true = probabilities[np.arange(len(labels)), labels]
    return float((np.square(probabilities).sum(axis=1) - 2 * true + 1).mean())


@dataclass(frozen=True)
class Reliability:
    """How right answers of about the same confidence are: bins of equal width from 0 to 1.

    Attributes:
        images: in each bin, int64, shape (bins,).
        confidence: mean over the bin's images, float64, shape (bins,); NaN where there is none.
        accuracy: fraction of right answers among them; NaN likewise.
    """

    images: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = _BINS) -> Reliability:
    """Sort answers by their confidence, the largest probability, into `bins` bins (k/bins, (k + 1)/bins]."""
    confidence, right = _answers(probabilities, labels)
    if bins < 1:
        raise ValueError(f"bins must be at least 1, not {bins}")
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    images = np.bincount(place, minlength=bins)
    sums = (np.bincount(place, weights=values, minlength=bins) for values in (confidence, right))
    with np.errstate(invalid="ignore"):
        return Reliability(images, *(total / images for total in sums))


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = _BINS) -> float:
    """Mean over images of |accuracy − confidence| of their bin of `reliability`: 0 to 1.

    Source: Guo et al. 2017, arXiv:1706.04599, equation 3, with 15 bins.
    """
    found = reliability(probabilities, labels, bins)
    known = found.images > 0
    gaps = np.abs(found.accuracy[known] - found.confidence[known])
    return float((found.images[known] * gaps).sum() / found.images.sum())


@dataclass(frozen=True)
class Coverage:
    """How right a model is where it answers only the images that it is surest of.

    One point for each confidence that occurs, the surest first: images of equal confidence are answered together.

    Attributes:
        coverage: share of the images answered, shape (points,), rising to 1.
        accuracy: fraction of right answers among them, shape (points,).
        threshold: the lowest confidence at and above which as many answers are right as wanted; None where no
            confidence is high enough.
    """

    coverage: np.ndarray
    accuracy: np.ndarray
    threshold: float | None


def coverage(probabilities: np.ndarray, labels: np.ndarray, wanted: float) -> Coverage:
    """Accuracy over the share of images answered, and the threshold that answers `wanted` of them right.

    Args:
        probabilities: shape (N, classes).
        labels: shape (N,).
        wanted: accuracy, in (0, 1].

    Source: Geifman and El-Yaniv 2017, "Selective Classification for Deep Neural Networks", arXiv:1705.08500.
    """
    if not 0 < wanted <= 1:
        raise ValueError(f"wanted must be in (0, 1], not {wanted}")
    confidence, right = _answers(probabilities, labels)
    order = np.argsort(-confidence, kind="stable")
    confidence, right = confidence[order], right[order]
    last = np.append(np.flatnonzero(np.diff(confidence)), len(confidence) - 1)
    answered = last + 1
    accuracy = np.cumsum(right)[last] / answered
    enough = np.flatnonzero(accuracy >= wanted)
    threshold = float(confidence[last[enough[-1]]]) if len(enough) else None
    return Coverage(answered / len(confidence), accuracy, threshold)


def _answers(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Confidence and whether the answer is right, each (N,)."""
    probabilities = _checked(probabilities, labels)
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == labels


def _logits(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), _LEAST))


def _checked(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    probabilities, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not probabilities.size:
        raise ValueError(
            f"probabilities of shape {probabilities.shape} and labels of shape {labels.shape}: must be "
            "(N, classes) and (N,), N > 0"
        )
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise ValueError(f"labels {labels.min()} to {labels.max()}: must be 0 to {probabilities.shape[1] - 1}")
    if not np.isfinite(probabilities).all() or probabilities.min() < 0:
        raise ValueError("probabilities are negative or not finite")
    return probabilities
