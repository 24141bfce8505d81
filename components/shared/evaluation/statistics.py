"""What predictions are worth: accuracy, recall of each class, and how sure a gain is. NumPy only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import gammaincinv, ndtr, stdtr, stdtrit

# of right answers of two trainings to the same images, as measured on latent difficulties of images
_CORRELATION = 0.47
# of a distribution, the middles of so many equal parts
_QUANTILES = (np.arange(64) + 0.5) / 64


def correct(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which answers are right.

    Args:
        probabilities: shape (seeds, N, classes).
        labels: true classes, int, shape (N,).

    Returns:
        bool, shape (seeds, N). The first of several equal largest probabilities counts as the answer.
    """
    return probabilities.argmax(axis=2) == labels[None, :]


def accuracy(right: np.ndarray) -> np.ndarray:
    """Fraction of right answers of each seed: bool (seeds, N) → float64 (seeds,) in [0, 1]."""
    return right.mean(axis=1)


def spread(values: np.ndarray) -> float:
    """Sample standard deviation (n − 1) over replicates, shape (replicates,) → ≥ 0; 0 of a single one."""
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def recall(right: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Fraction of each class's images that are answered right.

    Args:
        right: bool, shape (seeds, N).
        labels: true classes, shape (N,).
        classes: number of classes.

    Returns:
        float64, shape (seeds, classes) in [0, 1]; NaN for a class without images.
    """
    members = np.eye(classes)[labels]
    counts = members.sum(axis=0)
    with np.errstate(invalid="ignore"):
        return (right @ members) / counts


def mean_gain(model: np.ndarray, rival: np.ndarray) -> float:
    """Mean over seeds of accuracy(model) − accuracy(rival), from right answers of shape (seeds, N)."""
    # counts of right answers keep 0.58 − 0.56 from coming out below 0.02
    return float(model.sum() * rival.shape[0] - rival.sum() * model.shape[0]) / (model.size * rival.shape[0])


@dataclass(frozen=True)
class GainBound:
    """How large a gain is, and how large it is at least.

    Attributes:
        gain: mean accuracy(contender) − mean accuracy(baseline), a fraction.
        low: one-sided lower confidence bound of the gain.
        standard_error: of the gain, over trainings and test images.
        df: degrees of freedom of Student's t.
    """

    gain: float
    low: float
    standard_error: float
    df: float


def gain_bound(contender: np.ndarray, baseline: np.ndarray, alpha: float) -> GainBound:
    """Lower bound of a gain whose trainings and test images are both draws from many.

    A right answer depends on the training, on the image, and on the two together (a two-way layout without
    replication). The variance of the gain adds what images, trainings of the contender and trainings of the
    baseline contribute; the residual, which each of the three contains, is taken off where it would be counted
    twice. A side of one row is a fixed artefact, such as a shipped file: its trainings contribute nothing.

    Args:
        contender: right answers, bool, shape (replicates, images); each replicate is a whole training of
            its own.
        baseline: right answers on the same images, bool, shape (replicates', images).
        alpha: one-sided error, in (0, 0.5].

    Returns:
        The gain, and a bound that lies above the true gain with probability about `alpha`.

    Raises:
        ValueError: the images differ in number or are fewer than two, a side has no row, or `alpha` is out of
            range.

    Source: Cornfield and Tukey 1956, doi:10.1214/aoms/1177728067 (two-way layouts); Satterthwaite 1946,
    doi:10.2307/3002019 (degrees of freedom).
    """
    if contender.ndim != 2 or baseline.ndim != 2 or contender.shape[1] != baseline.shape[1]:
        raise ValueError(f"right answers of shapes {contender.shape} and {baseline.shape}: must share their images")
    images = contender.shape[1]
    if images < 2 or not len(contender) or not len(baseline):
        raise ValueError(f"{images} images, {len(contender)} and {len(baseline)} replicates: at least 2, 1 and 1")
    if not 0 < alpha <= 0.5:
        raise ValueError(f"alpha must be in (0, 0.5], not {alpha}")
    gain = mean_gain(contender, baseline)
    by_images = float((contender.mean(axis=0) - baseline.mean(axis=0)).var(ddof=1)) / images
    terms, freedoms, residual = [by_images], [images - 1], 0.0
    for right in (contender, baseline):
        replicates = len(right)
        if replicates > 1:
            terms.append(float(right.mean(axis=1).var(ddof=1)) / replicates)
            freedoms.append(replicates - 1)
            residual += _residual_variance(right) / (images * replicates)
    variance = max(sum(terms) - residual, by_images)
    error = math.sqrt(variance)
    # as many as the smaller side has at least, or its few trainings would count for more than they are
    least = min(freedoms[1:], default=images - 1)
    spread = sum(term**2 / freedom for term, freedom in zip(terms, freedoms, strict=True))
    df = max(variance**2 / spread, least) if spread else float(least)
    return GainBound(gain, gain - float(stdtrit(df, 1 - alpha)) * error, error, df)


def _residual_variance(right: np.ndarray) -> float:
    """Mean square of what neither the training nor the image explains, shape (replicates, images)."""
    replicates, images = right.shape
    rows = right.sum(axis=1, dtype=np.int64)
    columns = right.sum(axis=0, dtype=np.int64)
    total = int(rows.sum())
    # whole numbers, so that nothing cancels; a right answer is its own square
    squares = total * images * replicates - replicates * int((rows**2).sum()) - images * int((columns**2).sum())
    return (squares + total**2) / (images * replicates) / ((replicates - 1) * (images - 1))


def accuracy_bound(right: np.ndarray, alpha: float) -> GainBound:
    """Lower bound of one model's mean accuracy, over trainings and images.

    Args:
        right: bool, shape (replicates, images); one row is a fixed artefact.
        alpha: one-sided error, in (0, 0.5].

    Returns:
        As of `gain_bound` against a model that is never right; `gain` is the accuracy.

    Raises:
        ValueError: as `gain_bound`.
    """
    return gain_bound(right, np.zeros((1, right.shape[-1]), bool), alpha)


def paired_bound(new: np.ndarray, old: np.ndarray, alpha: float) -> GainBound:
    """Lower bound of accuracy(new) − accuracy(old) of two fixed artefacts on the same images.

    Args:
        new: right answers, bool, shape (images,).
        old: right answers, bool, shape (images,).
        alpha: one-sided error, in (0, 0.5].

    Returns:
        The difference, bounded by the paired t test: images − 1 degrees of freedom.

    Raises:
        ValueError: the shapes differ, there are fewer than two images, or `alpha` is out of range.
    """
    if new.ndim != 1:
        raise ValueError(f"right answers of shape {new.shape}: must be those of one artefact, (images,)")
    return gain_bound(new[None], np.atleast_2d(old), alpha)


def slice_p_values(
    contender: np.ndarray, baseline: np.ndarray, slices: Sequence[np.ndarray], max_drop: float
) -> tuple[np.ndarray, np.ndarray]:
    """How far accuracy falls on slices of the images, and how surprising that is where it may fall.

    Tests "falls by at most `max_drop`" against "falls by more" for each. The variance is that of `gain_bound`, but
    how far trainings differ beyond the luck of single answers is taken from all slices together: three trainings
    say next to nothing of it for a slice alone. Its degrees of freedom stay those of the trainings, as if they
    differed alike on all slices.

    Args:
        contender: right answers, bool, shape (replicates, images); a single row is a fixed artefact.
        baseline: likewise, shape (replicates', images).
        slices: of one kind: indices of each slice's images, at least two.
        max_drop: fraction that may be lost.

    Returns:
        Drops (baseline − contender, fractions) and one-sided p-values in [0, 1], float64, shape (slices,). Where
        nothing varies p is 0 for a drop above `max_drop`, else 1.

    Source: Satterthwaite 1946, doi:10.2307/3002019.
    """
    if not slices:
        return np.zeros(0), np.zeros(0)
    sides = [side for side in (contender, baseline) if len(side) > 1]
    between = [max(float(np.mean([_excess(side[:, rows]) for rows in slices])), 0.0) for side in sides]
    drops, p = np.zeros(len(slices)), np.zeros(len(slices))
    for index, rows in enumerate(slices):
        drop = -mean_gain(contender[:, rows], baseline[:, rows])
        of_images = (contender[:, rows].mean(axis=0) - baseline[:, rows].mean(axis=0)).var(ddof=1)
        terms = [
            float(of_images) / len(rows),
            *(each / len(side) for each, side in zip(between, sides, strict=True)),
        ]
        freedoms = [len(rows) - 1, *(len(side) - 1 for side in sides)]
        variance = sum(terms)
        drops[index] = drop
        if variance == 0:
            p[index] = 0.0 if drop > max_drop else 1.0
            continue
        df = variance**2 / sum(term**2 / freedom for term, freedom in zip(terms, freedoms, strict=True))
        p[index] = stdtr(df, (max_drop - drop) / math.sqrt(variance))
    return drops, p


def _excess(right: np.ndarray) -> float:
    """How much the accuracies of trainings vary beyond the luck of their single answers; may be below 0."""
    return float(right.mean(axis=1).var(ddof=1)) - _residual_variance(right) / right.shape[1]


def holm(p_values: Sequence[float], alpha: float) -> np.ndarray:
    """Which of several hypotheses are refused, wrongly any of them with probability at most `alpha`.

    Args:
        p_values: of each, in [0, 1]; they may depend on each other. None at all is allowed.
        alpha: family-wise error, in (0, 1).

    Returns:
        bool, in the order given: from the smallest on, the k-th of m is refused while it is at most
        alpha / (m − k + 1).

    Source: Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure", doi:10.2307/4615733.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    small = p[order] <= alpha / np.arange(len(p), 0, -1)
    refused = np.zeros(len(p), bool)
    refused[order] = np.logical_and.accumulate(small)
    return refused


def smallest_gain(
    images: int,
    replicates: int,
    alpha: float,
    power: float = 0.8,
    spread: float = 0.01,
    accuracy: float = 0.7,
    correlation: float = _CORRELATION,
) -> float:
    """The smallest true gain that `gain_bound` shows to be above 0 with a certain probability.

    Args:
        images: of the test set, at least 2.
        replicates: of each side, at least 2.
        alpha: one-sided error of this look, in (0, 0.5].
        power: probability that the gain is shown, in (alpha, 1).
        spread: standard deviation of true accuracy between trainings, a fraction; 0.01 is usual with thousands of
            images, small data has more.
        accuracy: of both sides, in (0, 1).
        correlation: of the right answers of two trainings to the same images, in [0, 1).

    Returns:
        A gain, a fraction; above 1 where this can show none.

    Raises:
        ValueError: an argument is out of range.

    Source: `gain_bound` itself, over the variances that normal theory lets it see.
    """
    if images < 2 or replicates < 2:
        raise ValueError(f"{images} images and {replicates} replicates: at least 2 of each")
    if not (0 < alpha <= 0.5 and alpha < power < 1):
        raise ValueError(f"alpha {alpha} must be in (0, 0.5] and power {power} between it and 1")
    if not (0 < accuracy < 1 and 0 <= correlation < 1 and spread >= 0):
        raise ValueError(f"accuracy {accuracy}, correlation {correlation}, spread {spread}: out of range")
    # what one answer varies by beyond its image, averaged over the answers of one side
    residual = accuracy * (1 - accuracy) * (1 - correlation) / (images * replicates)
    by_images, by_trainings = 2 * residual, spread**2 / replicates + residual
    truth = by_images + 2 * spread**2 / replicates
    # what the two sides' trainings may seem to vary by: all pairs of the quantiles of two χ² variables
    seen = by_trainings * gammaincinv((replicates - 1) / 2, _QUANTILES) * 2 / (replicates - 1)
    one, other = seen[:, None], seen[None]
    variance = np.maximum(by_images + one + other - 2 * residual, by_images)
    below = by_images**2 / (images - 1) + (one**2 + other**2) / (replicates - 1)
    df = np.maximum(variance**2 / below, replicates - 1)
    asked = stdtrit(df, 1 - alpha) * np.sqrt(variance)

    def missing(gain: float) -> float:
        return float(ndtr((gain - asked) / math.sqrt(truth)).mean()) - power

    return float(brentq(missing, 0, asked.max() + 10 * math.sqrt(truth)))


def look_alpha(k: int, alpha: float = 0.05) -> float:
    """What the k-th look at the same test images may spend, so that all looks together spend at most `alpha`.

    Args:
        k: number of the look, from 1.
        alpha: family-wise error over any number of looks.

    Returns:
        α·6/(π²k²), whose sum over all k is α.

    Raises:
        ValueError: k is less than 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    return alpha * 6 / (math.pi * k) ** 2


def confusion(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Counts of answers, int64, shape (classes, classes): row = actual class, column = predicted class."""
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)
