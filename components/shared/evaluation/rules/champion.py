"""Is the winner no worse than the model in use, where both were evaluated on the same test images?"""

from __future__ import annotations

from components.shared.evaluation.evidence import ROUNDING, Check, Evidence
from components.shared.evaluation.wording import points
from components.shared.params.types import Fraction, Section

ORDER = 50


class Options(Section):
    """`champion_tolerance`: how far below the champion's accuracy the winner's may be."""

    champion_tolerance: Fraction


def check(evidence: Evidence, options: Options) -> Check:
    """Compare the winner's accuracy with the one that the champion's version was registered with."""
    champion, value = evidence.champion, float(evidence.model.accuracy.mean())

    def answer(passed: bool, why: str, threshold: float | None = None) -> Check:
        return Check(name="champion", value=value, threshold=threshold, passed=passed, why=why)

    if champion.unavailable is not None:
        return answer(False, f"the registry could not be asked: {champion.unavailable}")
    if champion.version is None:
        return answer(True, "the registry has no champion yet")
    version = f"champion version {champion.version}"
    if champion.test_digest is None:
        return answer(False, f"{version} does not say on which test images it was judged; set its tag test_digest")
    if champion.test_digest != evidence.test_digest:
        return answer(True, f"{version} was judged on other test images, so the two can't be compared")
    if champion.test_accuracy is None:
        return answer(False, f"{version} does not say how accurate it is; set its tag test_accuracy")
    tolerance = options.champion_tolerance
    threshold = champion.test_accuracy - tolerance
    compared = f"{value:.1%} against {champion.test_accuracy:.1%} of {version}"
    why = f"{compared}; it may fall short by {points(tolerance)}"
    return answer(value >= threshold - ROUNDING, why, threshold)
