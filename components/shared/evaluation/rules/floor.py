"""Is the winner good enough to be of use at all?"""

from __future__ import annotations

from components.shared.evaluation.evidence import ROUNDING, Check, Evidence
from components.shared.evaluation.wording import TITLES
from components.shared.params.types import Fraction, Section

ORDER = 30


class Options(Section):
    """`min_accuracy`: mean over seeds, on test."""

    min_accuracy: Fraction


def check(evidence: Evidence, options: Options) -> Check:
    """Compare the winner's accuracy with what is asked for."""
    value, threshold = float(evidence.model.accuracy.mean()), options.min_accuracy
    passed = value >= threshold - ROUNDING
    why = f"the {TITLES[evidence.winner]} answers {value:.1%} right; at least {threshold:.1%} is asked for"
    return Check(name="floor", value=value, threshold=threshold, passed=passed, why=why)
