"""Does the very model that ships beat the baseline, not only the mean of its trainings?"""

from __future__ import annotations

from components.shared.evaluation.evidence import ROUNDING, Answer, Artefact, Check, Evidence, two_sided
from components.shared.evaluation.statistics import accuracy_bound, gain_bound
from components.shared.evaluation.wording import interval_in_words, percent, points
from components.shared.params.types import Section

ORDER = 25
WEAKER: dict[str, str] = {}


class Options(Section):
    """None of its own: it spends what the look may."""


def check(evidence: Evidence, options: Options) -> Answer:
    """Ask that the lower bound of the exported model's own gain lies above 0."""
    gain = gain_bound(evidence.shipped, evidence.baseline, evidence.alpha)
    own = accuracy_bound(evidence.shipped, evidence.alpha)
    passed, confidence = gain.low > ROUNDING, 1 - 2 * evidence.alpha
    why = (
        f"the exported model answers {percent(own.gain)} right, {points(gain.gain, '+')} against the baseline's "
        f"mean ({interval_in_words(two_sided(gain), confidence)}), which "
        f"{'lies' if passed else 'does not lie'} above 0"
    )
    low, high = two_sided(own)
    found = {"artefact": Artefact(accuracy=own.gain, low=low, high=high)}
    return Answer(Check(name="artefact", value=gain.low, threshold=0, passed=passed, why=why), found)
