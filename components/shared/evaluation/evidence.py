"""What the rules of the gate look at, and what each of them answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, FiniteFloat

from components.shared.evaluation.champion import Champion

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


@dataclass(frozen=True)
class Scores:
    """What one model's predictions are worth.

    Attributes:
        right: right answers on test, bool, shape (seeds, N).
        accuracy: on test, shape (seeds,).
        validation_accuracy: shape (seeds,); what the winner is chosen by.
        recall: on test, shape (seeds, classes).
    """

    right: np.ndarray
    accuracy: np.ndarray
    validation_accuracy: np.ndarray
    recall: np.ndarray


@dataclass(frozen=True)
class Evidence:
    """A winner and its rivals, all of them sound.

    Attributes:
        winner: "probe" or "finetune".
        model: scores of the winner.
        baseline: scores of the rival.
        gain: mean accuracy of the winner minus the baseline's, on test.
        interval: of the gain.
        class_names: in the order of the labels.
        test_digest: of the test images.
        champion: what the registry said of it.
    """

    winner: str
    model: Scores
    baseline: Scores
    gain: float
    interval: tuple[float, float]
    class_names: list[str]
    test_digest: str
    champion: Champion
