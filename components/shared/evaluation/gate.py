"""The gate: what a model must prove before it is put up for review. It fails closed.

A blessing is a list of checks, each with its number, its threshold and its reason. All of them must pass; what
can't be computed does not pass. The questions themselves are in `rules/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from components.shared.artifacts import read_json
from components.shared.errors import UserError
from components.shared.evaluation.champion import Champion
from components.shared.evaluation.evidence import Check, Evidence, Scores
from components.shared.evaluation.predictions import (
    CONTENDERS,
    TEST,
    VALIDATION,
    Candidate,
    Truth,
    comparison_faults,
    faults,
)
from components.shared.evaluation.rules import rules
from components.shared.evaluation.statistics import accuracy, correct, gain_interval, mean_gain, recall
from components.shared.params.schema import GateParams

BLESSING = "blessing.json"
SCHEMA_VERSION = 1
# whether the inputs are sound comes first: without that, nothing else is asked
CHECKS = ("inputs", *rules())
NOT_ASKED = "not asked, because the inputs are not sound"
# fixed, so that nobody can look for a seed that passes
BOOTSTRAP_SEED = 20_200_213


class Blessing(BaseModel):
    """`evaluation/blessing.json`: the verdict and its reasons.

    `winner` is "probe" or "finetune", None where none could be chosen. `gain` is the winner's mean accuracy on
    test minus the baseline's, `interval` its bootstrap interval at `confidence`; accuracies are fractions. One
    that was written with fewer rules, or by a later version with more, can be read.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    schema_version: Annotated[int, Field(ge=1)] = SCHEMA_VERSION
    blessed: bool
    winner: str | None
    checks: Annotated[list[Check], Field(min_length=1)]
    dataset_digest: str
    test_digest: str
    gain: FiniteFloat | None
    interval: tuple[FiniteFloat, FiniteFloat] | None
    confidence: float

    @model_validator(mode="after")
    def _verdict_follows_from_checks(self) -> Blessing:
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

    def require_current(self) -> None:
        """Check that it answers all that this version asks.

        Raises:
            UserError: a later version wrote it, or a rule was not asked.
        """
        if self.schema_version > SCHEMA_VERSION:
            raise UserError(
                f"{BLESSING}: schema_version = {self.schema_version}: written by a later version, which may mean "
                f"something else; this one knows {SCHEMA_VERSION}"
            )
        missing = [name for name in CHECKS if name not in {check.name for check in self.checks}]
        if missing:
            raise UserError(f"{BLESSING}: nobody asked for {', '.join(missing)}; run the evaluate step again")


def read_blessing(folder: Path) -> Blessing:
    """Read the verdict of a finished `evaluation/` folder.

    Raises:
        UserError: it is missing, or contradicts itself.
    """
    return read_json(Path(folder) / BLESSING, Blessing)


def score(candidates: Mapping[str, Candidate], truth: Truth) -> dict[str, Scores]:
    """Score every model whose predictions are sound, whether or not the others are."""
    if comparison_faults({}, truth):
        return {}
    return {
        name: _scores(candidate, truth) for name, candidate in candidates.items() if not faults(candidate, truth)
    }


def _scores(candidate: Candidate, truth: Truth) -> Scores:
    right = {split: correct(candidate.probabilities[split], truth.labels[split]) for split in (VALIDATION, TEST)}
    return Scores(
        right=right[TEST],
        accuracy=accuracy(right[TEST]),
        validation_accuracy=accuracy(right[VALIDATION]),
        recall=recall(right[TEST], truth.labels[TEST], len(truth.class_names)),
    )


def decide(
    candidates: Mapping[str, Candidate], unreadable: list[str], truth: Truth, gate: GateParams, champion: Champion
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
    why = "; ".join(reasons) or "all three models are whole and about the same images"
    checks = [Check(name="inputs", value=len(reasons), threshold=0, passed=not reasons, why=why)]
    evidence = None
    if reasons:
        checks += [Check(name=name, value=None, threshold=None, passed=False, why=NOT_ASKED) for name in CHECKS[1:]]
    else:
        evidence = _gather(score(candidates, truth), truth, gate, champion)
        checks += [rule.check(evidence, gate) for rule in rules().values()]
    return Blessing(
        blessed=all(check.passed for check in checks),
        winner=evidence.winner if evidence else None,
        checks=checks,
        dataset_digest=truth.dataset_digest,
        test_digest=truth.test_digest,
        gain=evidence.gain if evidence else None,
        interval=evidence.interval if evidence else None,
        confidence=gate.confidence,
    )


def _gather(scores: Mapping[str, Scores], truth: Truth, gate: GateParams, champion: Champion) -> Evidence:
    # the higher mean accuracy on validation wins; the simpler model, the probe, on a tie
    winner = max(CONTENDERS, key=lambda name: float(scores[name].validation_accuracy.mean()))
    model, baseline = scores[winner], scores["baseline"]
    return Evidence(
        winner=winner,
        model=model,
        baseline=baseline,
        gain=mean_gain(model.right, baseline.right),
        interval=gain_interval(model.right, baseline.right, gate.confidence, gate.resamples, BOOTSTRAP_SEED),
        class_names=truth.class_names,
        test_digest=truth.test_digest,
        champion=champion,
    )
