"""What the rules of the gate look at, and what each of them answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, FiniteFloat

from components.shared.evaluation.feature_drift import FeatureDrift
from components.shared.evaluation.statistics import GainBound

# thresholds are met or missed by whole images; anything smaller is rounding
ROUNDING = 1e-9


class Check(BaseModel):
    """One question the gate asks. `value` and `threshold` are None where there was nothing to measure."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    value: FiniteFloat | None
    threshold: FiniteFloat | None
    passed: bool
    why: str


class Answer(NamedTuple):
    """What a rule answers: its check, and what else the blessing tells, by the name of its field."""

    check: Check
    found: Mapping[str, Any] = {}


class Artefact(BaseModel):
    """The exported model's own accuracy on test, with its interval at the blessing's confidence; fractions."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    accuracy: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat


class SliceFinding(BaseModel):
    """What became of one slice of the test images.

    `drop` is the baseline's accuracy minus the winner's there, None without images; `p` the probability of such a
    drop if the true one were at the limit; `refused` whether it falls by more than is allowed, with certainty;
    `unknown` that it has too few images to tell.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    kind: str
    name: str
    images: int
    drop: FiniteFloat | None
    p: FiniteFloat | None
    refused: bool
    unknown: bool


class AgainstChampion(BaseModel):
    """The exported model against the best of the versions that reviewers approved, on tonight's test images.

    `accuracy` is that version's, `difference` the new one's minus it, `low` the lower bound of the difference at a
    fixed 5 %; it must not lie below −`tolerance`. `images` are those that the version has not trained on.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    version: str
    accuracy: FiniteFloat
    difference: FiniteFloat
    low: FiniteFloat
    tolerance: FiniteFloat
    images: int


@dataclass(frozen=True)
class Scores:
    """What one model's predictions are worth.

    Attributes:
        right: right answers on test, bool, shape (replicates, N).
        accuracy: on test, shape (replicates,).
        validation_accuracy: on held-out images, shape (replicates,), or (1,) of a search that cross-validated.
        recall: on test, shape (replicates, classes).
    """

    right: np.ndarray
    accuracy: np.ndarray
    validation_accuracy: np.ndarray
    recall: np.ndarray


@dataclass(frozen=True)
class Slice:
    """A part of the test images that must not pay for the others' gain, such as a class.

    Attributes:
        kind: of slice, such as "class" or "brightness".
        name: of this one.
        images: which test images belong to it: their numbers, shape (n,).
    """

    kind: str
    name: str
    images: np.ndarray


@dataclass(frozen=True)
class Rival:
    """A version that reviewers approved, asked the test images.

    Attributes:
        version: its number.
        right: its right answers, bool, shape (N,).
        fresh: the images that it has not trained on, bool, shape (N,).
    """

    version: str
    right: np.ndarray
    fresh: np.ndarray


@dataclass(frozen=True)
class Rivals:
    """The versions that the winner must not fall behind.

    Attributes:
        found: those that could be asked.
        faults: why one that counts could not be, in words; each refuses the winner.
        notes: which ones do not count, in words.
        drift: how far tonight's images have moved in the champion's features.
        no_drift: why that is not known.
    """

    found: Sequence[Rival] = ()
    faults: Sequence[str] = ()
    notes: Sequence[str] = ()
    drift: Sequence[FeatureDrift] = ()
    no_drift: str = ""


@dataclass(frozen=True)
class Evidence:
    """A winner and what it is compared with, all of it sound.

    Attributes:
        winner: "probe" or "finetune".
        right: its right answers on test, bool, shape (replicates, N).
        baseline: the rival's, bool, shape (replicates, N).
        exported: the replicate of the winner whose model ships.
        alpha: what this look may spend.
        bound: of the gain, over replicates and images.
        slices: of the test images.
        rivals: champions.
        contested: whether the winner is not ahead by more than luck on held-out images, so that `alpha` is a third.
    """

    winner: str
    right: np.ndarray
    baseline: np.ndarray
    exported: int
    alpha: float
    bound: GainBound
    slices: Sequence[Slice]
    rivals: Rivals
    contested: bool = False

    @property
    def shipped(self) -> np.ndarray:
        """Right answers of the model that ships, bool, shape (1, N)."""
        return self.right[self.exported : self.exported + 1]


def two_sided(bound: GainBound) -> tuple[float, float]:
    """Interval at 1 − 2α of what was bounded at 1 − α."""
    return bound.low, 2 * bound.gain - bound.low
