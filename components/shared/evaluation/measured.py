"""`evaluation/test.json`: what the models are worth on the test images, apart from what one may choose by."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, FiniteFloat

from components.shared.artifacts import read_json
from components.shared.evaluation.calibration import brier, expected_calibration_error, log_loss
from components.shared.evaluation.evidence import Scores, two_sided
from components.shared.evaluation.gate import Blessing
from components.shared.evaluation.predictions import TEST, Candidate, Truth, read_budgets, read_published
from components.shared.evaluation.statistics import accuracy, accuracy_bound

MEASURED = "test.json"


class Measured(BaseModel):
    """What was measured on test; empty where the test set stayed closed, and then there is no file.

    Attributes:
        confidence: of the intervals.
        accuracies: model → fraction of right answers of each replicate.
        intervals: model → interval of its mean accuracy, over replicates and images.
        recall: model → mean over replicates of each class, None without images of it.
        published: accuracies of the published training, one a replicate; empty where there is none.
        budgets: labels per class → accuracies of the linear probe, one a replicate.
        baseline_budgets: likewise of the baseline.
        knn: accuracies of the nearest neighbours, one a replicate; empty where they were not asked.
        calibration: model → `ece`, `log_loss` and `brier` of the training that is exported.
        twins: how many test images have a near-copy that was learned from.
        without_twins: model → mean accuracy on the other test images; empty where all are, or none is, of these.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    confidence: FiniteFloat = 0.95
    accuracies: dict[str, list[FiniteFloat]] = {}
    intervals: dict[str, tuple[FiniteFloat, FiniteFloat]] = {}
    recall: dict[str, list[FiniteFloat | None]] = {}
    published: list[FiniteFloat] = []
    budgets: dict[int, list[FiniteFloat]] = {}
    baseline_budgets: dict[int, list[FiniteFloat]] = {}
    knn: list[FiniteFloat] = []
    calibration: dict[str, dict[str, FiniteFloat]] = {}
    twins: int = 0
    without_twins: dict[str, FiniteFloat] = {}


def read_measured(folder: Path) -> Measured:
    """Read what `evaluate` measured on test; empty where it did not open the test set.

    Raises:
        UserError: the file is damaged.
    """
    path = Path(folder) / MEASURED
    return read_json(path, Measured) if path.exists() else Measured()


def measure(
    blessing: Blessing,
    candidates: Mapping[str, Candidate],
    scores: Mapping[str, Scores],
    truth: Truth,
    folders: Mapping[str, Path],
    twins: np.ndarray | None = None,
) -> Measured:
    """Measure all that is shown of an open test set.

    Args:
        blessing: the verdict, which says at what confidence.
        candidates: the models.
        scores: of those that are sound.
        truth: the labels.
        folders: of probe, baseline and finetune, for what they predicted besides.
        twins: which test images have a near-copy that was learned from, bool, shape (N,); None: none has.
    """
    alpha = (1 - blessing.confidence) / 2
    answers, labels = {name: candidates[name].exported_answers() for name in scores}, truth.labels[TEST]
    budgets, knn = read_budgets(folders["probe"], truth)
    rivals, _ = read_budgets(folders["baseline"], truth)
    return Measured(
        confidence=blessing.confidence,
        accuracies={name: found.accuracy.tolist() for name, found in scores.items()},
        intervals={name: two_sided(accuracy_bound(found.right, alpha)) for name, found in scores.items()},
        recall={name: mean_recall(found) for name, found in scores.items()},
        published=_accuracies(read_published(folders["finetune"], truth)),
        budgets={number: _accuracies(right) for number, right in budgets.items()},
        baseline_budgets={number: _accuracies(right) for number, right in rivals.items()},
        knn=_accuracies(knn),
        calibration={
            name: {
                "ece": expected_calibration_error(found, labels),
                "log_loss": log_loss(found, labels),
                "brier": brier(found, labels),
            }
            for name, found in answers.items()
        },
        twins=int(twins.sum()) if twins is not None else 0,
        without_twins={
            name: float(found.right[:, ~twins].mean())
            for name, found in scores.items()
            if twins is not None and 0 < twins.sum() < len(twins)
        },
    )


def _accuracies(right: np.ndarray | None) -> list[float]:
    return [] if right is None else accuracy(right).tolist()


def mean_recall(scores: Scores) -> list[float | None]:
    """Per class, mean over replicates; None without test images of the class."""
    return [float(value) if np.isfinite(value) else None for value in scores.recall.mean(axis=0)]
