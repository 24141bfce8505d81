"""Whether images look to a model as those did that it was accepted with: a distance between its features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# images of a split that are compared. More would find differences that do not matter, fewer show nothing
MOST, FEWEST = 1000, 50
# those of train and validation the model may know by heart, so that any new ones would look different
SPLITS = ("unlabelled", "test")
# distances of so many random divisions tell what chance gives: all but one in a hundred lie below the spread
_DIVISIONS, _QUANTILE = 200, 0.99
# times the spread; see benchmarks/feature_drift.py for what changes of images give
WARNING = 5.0


@dataclass(frozen=True)
class FeatureDrift:
    """How far the images of a split have moved.

    Attributes:
        split: its name.
        distance: squared maximum mean discrepancy, 0 where both are alike; at most 2.
        spread: what chance gives between as many images of one kind.
    """

    split: str
    distance: float
    spread: float

    @property
    def times(self) -> float:
        """The distance, in units of the spread; at least 0."""
        return max(self.distance, 0.0) / self.spread

    @property
    def warns(self) -> bool:
        """Whether the model may not know this kind of images."""
        return self.times > WARNING

    def in_words(self, version: str) -> str:
        """A line for people."""
        said = "images are as before" if self.times <= 1 else "images are a little different"
        if self.warns:
            said = "warning: these are other images than before"
        return (
            f"{self.split}: {said} (version {version}'s features have moved by {self.times:.1f} times what chance "
            f"gives; more than {WARNING:g} is a warning)"
        )


def chosen(images: int) -> np.ndarray:
    """Rows of a split that are compared: at most `MOST`, the same ones of as many images, int64, ascending."""
    return np.sort(np.random.default_rng(0).permutation(images)[:MOST])


def measure_drift(before: Mapping[str, np.ndarray], now: Mapping[str, np.ndarray]) -> list[FeatureDrift]:
    """Compare features of each split that both have enough images of.

    Args:
        before: split → features of the images that the model was accepted with, shape (N, D).
        now: likewise of those to compare, shape (M, D).
    """
    shared = [split for split in SPLITS if split in before and split in now]
    enough = [split for split in shared if min(len(before[split]), len(now[split])) >= FEWEST]
    return [FeatureDrift(split, *discrepancy(before[split], now[split])) for split in enough]


def discrepancy(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Maximum mean discrepancy with a Gaussian kernel as wide as the median distance, and what chance gives.

    Args:
        first, second: features, shapes (N, D) and (M, D).

    Returns:
        The unbiased estimate of its square, and the 99 % quantile of that estimate over random divisions of all
        images into N and M; > 0.

    Source: Gretton et al. 2012, "A kernel two-sample test", JMLR 13, equation 3 and section 5.
    """
    both = np.concatenate([first, second]).astype(np.float64)
    squares = (both**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares - 2 * both @ both.T, 0)
    width = np.median(distances[np.triu_indices(len(both), 1)])
    kernel = np.exp(-distances / max(width, np.finfo(np.float64).tiny))
    np.fill_diagonal(kernel, 0)
    rng, n, m = np.random.default_rng(0), len(first), len(second)
    # a column for each division, the real one first: 1 where an image counts to the first part
    member = np.zeros((n + m, _DIVISIONS + 1))
    member[:n, 0] = 1
    for column in range(1, _DIVISIONS + 1):
        member[rng.permutation(n + m)[:n], column] = 1
    within, across = kernel @ member, (member * (kernel @ (1 - member))).sum(axis=0)
    own = (member * within).sum(axis=0) / (n * (n - 1))
    others = (kernel.sum() - (member * within).sum(axis=0) - 2 * across) / (m * (m - 1))
    found = own + others - 2 * across / (n * m)
    spread = float(np.quantile(found[1:], _QUANTILE))
    return float(found[0]), max(spread, float(np.finfo(np.float32).eps))
