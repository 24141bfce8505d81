"""Is the gain more than luck of these trainings and test images?"""

from __future__ import annotations

from components.shared.evaluation.evidence import ROUNDING, Answer, Check, Evidence, two_sided
from components.shared.evaluation.wording import interval_in_words
from components.shared.params.types import Section

ORDER = 20
WEAKER: dict[str, str] = {}


class Options(Section):
    """None of its own: `alpha` is the look's."""


def check(evidence: Evidence, options: Options) -> Answer:
    """Ask that the lower bound of the gain, at what this look may spend, lies above 0."""
    bound, confidence = evidence.bound, 1 - 2 * evidence.alpha
    passed = bound.low > ROUNDING
    verdict = "lies above 0" if passed else "does not lie above 0"
    why = f"the gain's {interval_in_words(two_sided(bound), confidence)} points {verdict}"
    if evidence.contested:
        why += "; at a third of this look's error, as on held-out images the winner is not surely ahead"
    return Answer(Check(name="certainty", value=bound.low, threshold=0, passed=passed, why=why))
