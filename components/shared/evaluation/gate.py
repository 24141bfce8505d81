"""The gate: what a model must prove before it is put up for review. It fails closed.

A blessing is a list of checks, each with its number, its threshold and its reason. All of them must pass; what
can't be computed does not pass. The questions themselves are in `rules/`. The test set is opened only for a winner
that has a chance, and each time it is, a ledger counts the look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from components.shared.artifacts import Result, read_json
from components.shared.errors import UserError
from components.shared.evaluation.evidence import (
    AgainstChampion,
    Artefact,
    Check,
    Evidence,
    Rivals,
    Scores,
    Slice,
    SliceFinding,
    two_sided,
)
from components.shared.evaluation.fairness import fairness_faults
from components.shared.evaluation.looks import Ledger, closed_by_looks, closed_by_validation, look_key
from components.shared.evaluation.policy import weaker
from components.shared.evaluation.predictions import (
    CONTENDERS,
    HELD_OUT,
    TEST,
    Candidate,
    Truth,
    comparison_faults,
    faults,
)
from components.shared.evaluation.rules import rules
from components.shared.evaluation.statistics import (
    accuracy,
    correct,
    gain_bound,
    look_alpha,
    mean_gain,
    recall,
)
from components.shared.params.schema import GateParams

BLESSING = "blessing.json"
SCHEMA_VERSION = 1
# whether the inputs are sound comes first: without that, nothing else is asked
CHECKS = ("inputs", *rules())
# one-sided errors of the claims that, on held-out images, the winner is better than the other contender and than
# the baseline; benchmarks/gate.py shows what they and the divisor keep and what they cost
CHOICE_ALPHA, BASELINE_ALPHA = 0.025, 0.05
# by what a look's error is divided where one of them does not hold
LUCK = 3
NOT_ASKED = "not asked, because the inputs are not sound"
CLOSED = "not asked, because the test set stayed closed"


class Blessing(BaseModel):
    """`evaluation/blessing.json`: the verdict and its reasons. Accuracies and gains are fractions.

    `winner` is "probe" or "finetune", None where none could be chosen. `judged` says whether the test set was
    opened; `closed` why it was not, in words, None where the inputs are not sound. `gain` is the winner's mean
    accuracy on test minus the baseline's, `standard_error` and `df` its own, `interval` two-sided at
    `confidence` = 1 − 2·`alpha`, and `alpha` what look number `look`, whose key is `look_key`, may spend: a
    third of it where on held-out images the winner is not ahead by more than luck.
    `replicates` are those of the side that has fewer. `policy` holds the gate's options, `weaker` those that ask
    less than conf/gate/default.yaml, in words; `options_changed` that this look was judged before with others.

    One that was written with fewer rules and fields, or by a later version with more, can be read.
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
    judged: bool = True
    closed: str | None = None
    look: Annotated[int, Field(ge=1)] | None = None
    look_key: str | None = None
    alpha: FiniteFloat | None = None
    standard_error: FiniteFloat | None = None
    df: FiniteFloat | None = None
    replicates: int = 0
    policy: dict[str, Any] = {}
    weaker: list[str] = []
    options_changed: bool = False
    artefact: Artefact | None = None
    slices: list[SliceFinding] = []
    champion: AgainstChampion | None = None

    @model_validator(mode="after")
    def _verdict_follows_from_checks(self) -> Blessing:
        if self.blessed != all(check.passed for check in self.checks):
            raise ValueError("blessed must say whether all checks passed")
        if self.blessed and self.winner not in CONTENDERS:
            raise ValueError(f"winner must be one of {', '.join(CONTENDERS)}")
        if self.blessed and not self.judged:
            raise ValueError("nothing can be blessed without having been judged")
        return self

    @property
    def verdict(self) -> str:
        """In words: "blessed", "not blessed", or "not judged" where the test set stayed closed."""
        if self.blessed:
            return "blessed"
        return "not judged" if self.closed else "not blessed"

    def reasons(self) -> list[str]:
        """Why it was refused: one line for each check that was asked and did not pass."""
        closed = [f"the test set stayed closed: {self.closed}"] if self.closed else []
        asked = [check for check in self.checks if check.why not in (NOT_ASKED, CLOSED)]
        return closed + [f"{check.name}: {check.why}" for check in asked if not check.passed]

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


def held_out(candidates: Mapping[str, Candidate], truth: Truth) -> dict[str, np.ndarray]:
    """Right answers to held-out images, bool, shape (replicates or 1, M), of each model that is sound."""
    if comparison_faults({}, truth):
        return {}
    return {
        name: correct(candidate.probabilities[HELD_OUT], candidate.labels[HELD_OUT])
        for name, candidate in candidates.items()
        if not faults(candidate, truth)
    }


def score(candidates: Mapping[str, Candidate], truth: Truth) -> dict[str, Scores]:
    """Score every model on test whose predictions are sound: only for who has judged them."""
    found = {}
    for name, answers in held_out(candidates, truth).items():
        right = correct(candidates[name].probabilities[TEST], truth.labels[TEST])
        found[name] = Scores(
            right=right,
            accuracy=accuracy(right),
            validation_accuracy=accuracy(answers),
            recall=recall(right, truth.labels[TEST], len(truth.class_names)),
        )
    return found


def decide(
    candidates: Mapping[str, Candidate],
    unreadable: Sequence[str],
    search: Result | None,
    truth: Truth,
    gate: GateParams,
    ledger: Ledger,
    rivals: Callable[[], Rivals] = Rivals,
    slices: Sequence[Slice] = (),
) -> Blessing:
    """Ask every question of the gate.

    Args:
        candidates: the models that could be read, by name.
        unreadable: why the others, or what else is needed, could not.
        search: record of `search`, None where it could not be read.
        truth: what the dataset says.
        gate: thresholds.
        ledger: counts the look, if there is one.
        rivals: asks the champions; called only when the test set is open.
        slices: of the test images.
    """
    reasons = list(unreadable)
    for candidate in candidates.values():
        reasons += faults(candidate, truth)
    reasons += comparison_faults(candidates, truth, gate.min_replicates)
    reasons += fairness_faults(candidates, search, truth)
    if search is None and not reasons:
        reasons.append("search/: there is no record that both sides were searched alike")
    if reasons:
        inputs = Check(name="inputs", value=len(reasons), threshold=0, passed=False, why="; ".join(reasons))
        return _blessing(truth, gate, [inputs], NOT_ASKED, None, judged=False)
    return judge(
        held_out(candidates, truth),
        lambda name: correct(candidates[name].probabilities[TEST], truth.labels[TEST]),
        {name: candidates[name].exported_seed or 0 for name in CONTENDERS},
        truth,
        gate,
        ledger,
        rivals,
        slices,
    )


def judge(
    validated: Mapping[str, np.ndarray],
    tested: Callable[[str], np.ndarray],
    exported: Mapping[str, int],
    truth: Truth,
    gate: GateParams,
    ledger: Ledger,
    rivals: Callable[[], Rivals] = Rivals,
    slices: Sequence[Slice] = (),
) -> Blessing:
    """Choose the winner and, if the test set may be opened, judge it; on right and wrong answers alone.

    Args:
        validated: model → right answers to held-out images, bool, shape (replicates or 1, M).
        tested: answers with a model's right answers on test, bool, shape (replicates, N); it is asked of the winner
            and the baseline, and only once the held-out images speak for opening the test set.
        exported: contender → the replicate whose model ships.
        truth: what the dataset says.
        gate: thresholds.
        ledger: counts the look, if there is one.
        rivals: asks the champions.
        slices: of the test images.
    """
    why = "all models are whole, about the same images, and had the same search"
    inputs = Check(name="inputs", value=0, threshold=0, passed=True, why=why)
    winner = choose_winner(validated)

    def closed(why: str, **known: Any) -> Blessing:
        return _blessing(truth, gate, [inputs], CLOSED, winner, judged=False, closed=why, **known)

    shut = closed_by_validation(mean_gain(validated[winner], validated["baseline"]), gate)
    if shut:
        return closed(shut)
    right, baseline = tested(winner), tested("baseline")
    replicates = min(len(right), len(baseline))
    key, options = look_key(right, baseline, truth.images), policy_of(gate)
    try:
        shut = closed_by_looks(ledger.expected(key, truth.images), replicates, gate)
        if shut:
            return closed(shut)
        look = ledger.claim(key, truth.images, options)
    except UserError as error:
        return closed(f"the ledger of looks can't be asked: {error} (`dvc repro -f evaluate`)")
    spent = {"look": look.place, "look_key": key, "options_changed": look.options_changed}
    # another run may have taken the place meanwhile
    shut = closed_by_looks(look.place, replicates, gate)
    if shut:
        return closed(shut, **spent)
    contested = is_contested(winner, validated)
    alpha = look_alpha(look.place, gate.alpha) / (LUCK if contested else 1)
    evidence = Evidence(
        winner=winner,
        right=right,
        baseline=baseline,
        exported=exported[winner],
        alpha=alpha,
        bound=gain_bound(right, baseline, alpha),
        slices=slices,
        rivals=rivals(),
        contested=contested,
    )
    answers = [rule.check(evidence, gate) for rule in rules().values()]
    found = {key: value for answer in answers for key, value in answer.found.items()}
    return _blessing(
        truth,
        gate,
        [inputs, *(answer.check for answer in answers)],
        "",
        winner,
        judged=True,
        gain=evidence.bound.gain,
        interval=two_sided(evidence.bound),
        alpha=alpha,
        standard_error=evidence.bound.standard_error,
        df=evidence.bound.df,
        replicates=replicates,
        **spent,
        **found,
    )


def choose_winner(validated: Mapping[str, np.ndarray]) -> str:
    """The probe, unless on held-out images fine-tuning is ahead by more than a standard error of their difference.

    Few held-out images can't tell the two apart; then the simpler model wins, of whose weights few were trained on
    the few labels.

    Args:
        validated: model → right answers to held-out images, bool, shape (replicates or 1, M).

    Source: Breiman, Friedman, Olshen and Stone 1984, "Classification and Regression Trees", section 3.4.3, whose
    one standard error it is.
    """
    probe, finetune = validated["probe"], validated["finetune"]
    if finetune.shape[1] < 2:
        return "probe"
    ahead = gain_bound(finetune, probe, CHOICE_ALPHA)
    return "finetune" if ahead.gain > ahead.standard_error else "probe"


def is_contested(winner: str, validated: Mapping[str, np.ndarray]) -> bool:
    """Whether the winner may owe its place, or the opened test set, to luck.

    Held-out images choose between trainings that the test images judge afterwards, so that trainings which happened
    to turn out well are chosen, and looked at, more often: of two contenders without any gain, 8 % instead of 5 %
    pass with eight replicates if the better one wins, and of the looks that they get 12 %. Where held-out images
    leave this open, a look may spend a third of its error (Bonferroni for the choice of two, and for opening in two
    of three nights). Where the winner is ahead of the other contender and of the baseline by more than luck, it may
    spend all. (Were the probe, which wins a draw, spared that, it would be blessed at 10,000 images with eight
    replicates in 6.8 % of years without any gain.)

    Args:
        winner: name of the contender that was chosen.
        validated: model → right answers to held-out images, bool, shape (replicates or 1, M).
    """
    right = validated[winner]
    if right.shape[1] < 2:
        return True
    return any(
        gain_bound(right, other, BASELINE_ALPHA if name == "baseline" else CHOICE_ALPHA).low <= 0
        for name, other in validated.items()
        if name != winner
    )


def policy_of(gate: GateParams) -> dict[str, Any]:
    """The gate's options as plain values, as they go on record."""
    return gate.model_dump(mode="json")


def _blessing(
    truth: Truth, gate: GateParams, asked: list[Check], why: str, winner: str | None, **known: Any
) -> Blessing:
    """The verdict on the checks that were asked; `why` the others were not."""
    missing = [name for name in CHECKS if name not in {check.name for check in asked}]
    checks = asked + [Check(name=name, value=None, threshold=None, passed=False, why=why) for name in missing]
    alpha = known.get("alpha") or gate.alpha
    return Blessing(
        blessed=all(check.passed for check in checks),
        winner=winner,
        checks=checks,
        dataset_digest=truth.dataset_digest,
        test_digest=truth.test_digest,
        confidence=1 - 2 * alpha,
        policy=policy_of(gate),
        weaker=weaker(gate),
        **{"gain": None, "interval": None, **known},
    )
