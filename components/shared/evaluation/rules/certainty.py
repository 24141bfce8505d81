"""Is the gain more than luck of these test images and seeds?"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from components.shared.evaluation.evidence import ROUNDING, Check, Evidence
from components.shared.evaluation.wording import interval_in_words
from components.shared.params.types import Section

ORDER = 20


class Options(Section):
    """Of the bootstrap interval of the gain, and of those in the report: its confidence and number of resamples."""

    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    resamples: Annotated[int, Field(ge=100)]


def check(evidence: Evidence, options: Options) -> Check:
    """Ask that the whole interval of the gain lies above 0."""
    low = evidence.interval[0]
    passed = low > ROUNDING
    verdict = "lies above 0" if passed else "does not lie above 0"
    why = f"the gain's {interval_in_words(evidence.interval, options.confidence)} points {verdict}"
    return Check(name="certainty", value=low, threshold=0, passed=passed, why=why)
