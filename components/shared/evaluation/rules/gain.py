"""Is the winner better than the baseline by enough?"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from components.shared.evaluation.evidence import ROUNDING, Answer, Check, Evidence
from components.shared.evaluation.wording import TITLES, points
from components.shared.params.types import Section

ORDER = 10
WEAKER = {"min_gain": "lower"}


class Options(Section):
    """`min_gain`: in mean accuracy on test, over the baseline."""

    min_gain: Annotated[float, Field(ge=-1, le=1)]


def check(evidence: Evidence, options: Options) -> Answer:
    """Compare the gain itself with what is asked for."""
    gain, threshold = evidence.bound.gain, options.min_gain
    passed = gain >= threshold - ROUNDING
    gained = f"the {TITLES[evidence.winner]} gains {points(gain, '+')} over the baseline"
    why = f"{gained}; {points(threshold)} are asked for"
    return Answer(Check(name="gain", value=gain, threshold=threshold, passed=passed, why=why))
