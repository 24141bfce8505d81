"""Is the model that ships good enough to be of use at all?"""

from __future__ import annotations

from components.shared.evaluation.evidence import ROUNDING, Answer, Check, Evidence
from components.shared.evaluation.wording import percent
from components.shared.params.types import Fraction, Section

ORDER = 30
WEAKER = {"min_accuracy": "lower"}


class Options(Section):
    """`min_accuracy`: of the exported model, on test."""

    min_accuracy: Fraction


def check(evidence: Evidence, options: Options) -> Answer:
    """Compare the exported model's accuracy with what is asked for."""
    value, threshold = float(evidence.shipped.mean()), options.min_accuracy
    passed = value >= threshold - ROUNDING
    why = f"the exported model answers {percent(value)} right; at least {percent(threshold)} is asked for"
    return Answer(Check(name="floor", value=value, threshold=threshold, passed=passed, why=why))
