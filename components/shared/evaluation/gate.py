"""The gate: what a model must prove before it is put up for review. It fails closed.

A blessing is a list of checks, each with its number, its threshold and its reason. All of them must pass; what
can't be computed does not pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError, model_validator

from components.shared.errors import UserError
from components.shared.evaluation.champion import Champion
from components.shared.evaluation.predictions import (
    CHOOSING,
    CONTENDERS,
    JUDGING,
    Candidate,
    Truth,
    comparison_faults,
    faults,
)
from components.shared.evaluation.statistics import accuracy, correct, gain_interval, mean_gain, recall
from components.shared.params.schema import GateParams

BLESSING = "blessing.json"
CHECKS = ("inputs", "gain", "certainty", "floor", "slices", "champion")
NOT_ASKED = "not asked, because the inputs are not sound"
NAMES = {"probe": "linear probe", "finetune": "fine-tuned model"}
# fixed, so that nobody can look for a seed that passes
BOOTSTRAP_SEED = 20_200_213
# thresholds are met or missed by whole images; anything smaller is rounding
_ROUNDING = 1e-9


class Check(BaseModel):
    """One question the gate asks. `value` and `threshold` are None where there was nothing to measure."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    value: FiniteFloat | None
    threshold: FiniteFloat | None
    passed: bool
    why: str


class Blessing(BaseModel):
    """`evaluation/blessing.json`: the verdict and its reasons.

    `winner` is "probe" or "finetune", None where none could be chosen. `gain` is the winner's mean accuracy on
    test minus the baseline's, `interval` its bootstrap interval at `confidence`; accuracies are fractions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = 1
    blessed: bool
    winner: str | None
    checks: list[Check]
    dataset_digest: str
    test_digest: str
    gain: FiniteFloat | None
    interval: tuple[FiniteFloat, FiniteFloat] | None
    confidence: float

    @model_validator(mode="after")
    def _verdict_follows_from_checks(self) -> Blessing:
        if tuple(check.name for check in self.checks) != CHECKS:
            raise ValueError(f"checks must be {', '.join(CHECKS)}")
        if self.blessed != all(check.passed for check in self.checks):
            raise ValueError("blessed must say whether all checks passed")
        if self.blessed and self.winner not in CONTENDERS:
            raise ValueError(f"winner must be one of {', '.join(CONTENDERS)}")
        return self

    def reasons(self) -> list[str]:
        """Why it was refused: one line for each check that was asked and did not pass."""
        return [
            f"{check.name}: {check.why}" for check in self.checks if not check.passed and check.why != NOT_ASKED
        ]


@dataclass(frozen=True)
class Scores:
    """What one model's predictions are worth.

    Attributes:
        right: right answers on test, bool, shape (seeds, N).
        accuracy: on test, shape (seeds,).
        chosen_by: accuracy on validation, shape (seeds,).
        recall: on test, shape (seeds, classes).
    """

    right: np.ndarray
    accuracy: np.ndarray
    chosen_by: np.ndarray
    recall: np.ndarray


def read_blessing(folder: Path) -> Blessing:
    """Read the verdict of a finished `evaluation/` folder.

    Raises:
        UserError: it is missing, or contradicts itself.
    """
    path = Path(folder) / BLESSING
    try:
        return Blessing.model_validate_json(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: missing; run the evaluate step first (`dvc repro evaluate`)") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "content"
        raise UserError(f"{path}: {field}: {first['msg'].lower()}; run the evaluate step again") from None


def score(candidates: Mapping[str, Candidate], truth: Truth) -> dict[str, Scores]:
    """Score every model whose predictions are sound, whether or not the others are."""
    scores = {}
    labels = truth.labels[JUDGING]
    sound_labels = not comparison_faults({}, truth)
    for name, candidate in candidates.items():
        if sound_labels and not faults(candidate, truth):
            right = correct(candidate.probabilities[JUDGING], labels)
            chosen_by = accuracy(correct(candidate.probabilities[CHOOSING], truth.labels[CHOOSING]))
            scores[name] = Scores(right, accuracy(right), chosen_by, recall(right, labels, len(truth.class_names)))
    return scores


def judge(
    candidates: Mapping[str, Candidate],
    unreadable: list[str],
    truth: Truth,
    gate: GateParams,
    champion: Champion,
) -> Blessing:
    """Ask every question of the gate.

    Args:
        candidates: the models that could be read, by name.
        unreadable: why the others could not.
        truth: what the dataset says.
        gate: thresholds.
        champion: what the registry said of it.
    """
    reasons = list(unreadable)
    for candidate in candidates.values():
        reasons += faults(candidate, truth)
    reasons += comparison_faults(candidates, truth)
    inputs = check_inputs(reasons)
    winner, gain, interval = None, None, None
    if inputs.passed:
        scores = score(candidates, truth)
        winner = choose(scores)
        model, baseline = scores[winner], scores["baseline"]
        gain = mean_gain(model.right, baseline.right)
        interval = gain_interval(model.right, baseline.right, gate.confidence, gate.resamples, BOOTSTRAP_SEED)
        checks = [
            inputs,
            check_gain(gain, gate.min_gain, winner),
            check_certainty(interval, gate.confidence),
            check_floor(model, gate.min_accuracy, winner),
            check_slices(model, baseline, truth.class_names, gate.max_class_drop),
            check_champion(model, champion, truth.test_digest, gate.champion_tolerance),
        ]
    else:
        checks = [inputs, *(_not_asked(name) for name in CHECKS[1:])]
    return Blessing(
        blessed=all(check.passed for check in checks),
        winner=winner,
        checks=checks,
        dataset_digest=truth.dataset_digest,
        test_digest=truth.test_digest,
        gain=gain,
        interval=interval,
        confidence=gate.confidence,
    )


def choose(scores: Mapping[str, Scores]) -> str:
    """The contender with the higher mean accuracy on validation; the simpler one, the probe, on a tie."""
    return max(CONTENDERS, key=lambda name: float(scores[name].chosen_by.mean()))


def check_inputs(reasons: list[str]) -> Check:
    """Are all three models there, whole, finite, about this dataset, and comparable?"""
    why = "; ".join(reasons) or "all three models are whole and about the same images"
    return Check(name="inputs", value=len(reasons), threshold=0, passed=not reasons, why=why)


def check_gain(gain: float, threshold: float, winner: str) -> Check:
    """Is the winner better than the baseline by enough?"""
    passed = gain >= threshold - _ROUNDING
    why = f"the {NAMES[winner]} gains {_points(gain, '+')} over the baseline; {_points(threshold)} are asked for"
    return Check(name="gain", value=gain, threshold=threshold, passed=passed, why=why)


def check_certainty(interval: tuple[float, float], confidence: float) -> Check:
    """Is the gain more than luck of these test images and seeds?"""
    low, high = interval
    passed = low > _ROUNDING
    verdict = "lies above 0" if passed else "does not lie above 0"
    why = f"the {100 * confidence:g}% interval of the gain, {100 * low:+.1f} to {_points(high, '+')}, {verdict}"
    return Check(name="certainty", value=low, threshold=0, passed=passed, why=why)


def check_floor(model: Scores, threshold: float, winner: str) -> Check:
    """Is the winner good enough to be of use at all?"""
    value = float(model.accuracy.mean())
    passed = value >= threshold - _ROUNDING
    why = f"the {NAMES[winner]} answers {value:.1%} right; at least {threshold:.1%} is asked for"
    return Check(name="floor", value=value, threshold=threshold, passed=passed, why=why)


def check_slices(model: Scores, baseline: Scores, class_names: list[str], threshold: float) -> Check:
    """Does no class pay for the others' gain?"""
    drops = baseline.recall.mean(axis=0) - model.recall.mean(axis=0)
    unknown = [name for name, drop in zip(class_names, drops, strict=True) if not np.isfinite(drop)]
    if unknown:
        why = f"no test image of {', '.join(unknown)}, so nobody can tell how the model does on them"
        return Check(name="slices", value=None, threshold=threshold, passed=False, why=why)
    worst = int(drops.argmax())
    drop = float(drops[worst])
    passed = drop <= threshold + _ROUNDING
    change = f"recall of the worst class, {class_names[worst]}, changes by {_points(-drop, '+')}"
    why = f"{change}; it may fall by {_points(threshold)}"
    return Check(name="slices", value=drop, threshold=threshold, passed=passed, why=why)


def check_champion(model: Scores, champion: Champion, test_digest: str, tolerance: float) -> Check:
    """Is the winner no worse than the model in use, where both were judged on the same test images?"""
    value = float(model.accuracy.mean())

    def check(passed: bool, why: str, threshold: float | None = None) -> Check:
        return Check(name="champion", value=value, threshold=threshold, passed=passed, why=why)

    if champion.unavailable is not None:
        return check(False, f"the registry could not be asked: {champion.unavailable}")
    if champion.version is None:
        return check(True, "the registry has no champion yet")
    named = f"champion version {champion.version}"
    if champion.test_digest is None:
        return check(False, f"{named} does not say on which test images it was judged; set its tag test_digest")
    if champion.test_digest != test_digest:
        return check(True, f"{named} was judged on other test images, so the two can't be compared")
    if champion.test_accuracy is None:
        return check(False, f"{named} does not say how accurate it is; set its tag test_accuracy")
    threshold = champion.test_accuracy - tolerance
    passed = value >= threshold - _ROUNDING
    versus = (
        f"{value:.1%} against {champion.test_accuracy:.1%} of {named}; it may fall short by {_points(tolerance)}"
    )
    return check(passed, versus, threshold)


def _not_asked(name: str) -> Check:
    return Check(name=name, value=None, threshold=None, passed=False, why=NOT_ASKED)


def _points(fraction: float, sign: str = "") -> str:
    return f"{100 * fraction + 0.0:{sign}.1f} points"
