"""Is the model that ships no worse than those in use, asked the same test images?"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from scipy.special import ndtri

from components.shared.evaluation.evidence import ROUNDING, AgainstChampion, Answer, Check, Evidence
from components.shared.evaluation.statistics import paired_bound
from components.shared.evaluation.wording import percent, points
from components.shared.params.types import Fraction, Section

ORDER = 50
WEAKER = {"champion_tolerance": "higher", "skip_champions": "longer"}
# outside of the ledger: the tolerance bounds repeated errors, as the rival is the best champion so far
ALPHA, POWER = 0.05, 0.8
# with fewer images that the champion has not trained on, nobody can tell
FEWEST = 30


class Options(Section):
    """What a model may fall short of the versions that reviewers approved.

    `champion_tolerance`: of accuracy; raised to what an equal model needs to pass 80 times in 100 on these test
    images. `skip_champions`: numbers of versions that are not compared with, for want of a way; approving a version
    that was put up so needs `--override`.
    """

    champion_tolerance: Fraction
    skip_champions: tuple[Annotated[int, Field(ge=1)], ...]


def check(evidence: Evidence, options: Options) -> Answer:
    """Compare with the version that beats the winner by most, on the images that version has not trained on."""
    rivals, new = evidence.rivals, evidence.shipped[0]
    notes = "".join(f"; {note}" for note in rivals.notes)
    faults = list(rivals.faults)
    for rival in rivals.found:
        if rival.fresh.sum() < FEWEST:
            faults.append(
                f"version {rival.version} has trained on all but {rival.fresh.sum()} of the test images; "
                f"at least {FEWEST} are needed"
            )
    if faults:
        why = f"{'; '.join(faults)}{notes}"
        return Answer(Check(name="champion", value=None, threshold=None, passed=False, why=why))
    if not rivals.found:
        why = f"there is no champion to compare with{notes}"
        return Answer(Check(name="champion", value=None, threshold=None, passed=True, why=why))
    bounds = [(paired_bound(new[rival.fresh], rival.right[rival.fresh], ALPHA), rival) for rival in rivals.found]
    bound, rival = min(bounds, key=lambda pair: pair[0].gain)
    shown = float(ndtri(1 - ALPHA) + ndtri(POWER)) * bound.standard_error
    tolerance = max(options.champion_tolerance, shown)
    passed = bound.low >= -tolerance - ROUNDING
    images, accuracy = int(rival.fresh.sum()), float(rival.right[rival.fresh].mean())
    as_far = ", as far as these images can show" if tolerance > options.champion_tolerance else ""
    why = (
        f"version {rival.version} answers {percent(accuracy)} of {images:,} images right, the exported model "
        f"{points(bound.gain, '+')} (at least {points(bound.low, '+')}); it may fall short by "
        f"{points(tolerance)}{as_far}{notes}"
    )
    found = AgainstChampion(
        version=rival.version,
        accuracy=accuracy,
        difference=bound.gain,
        low=bound.low,
        tolerance=tolerance,
        images=images,
    )
    check = Check(name="champion", value=bound.low, threshold=-tolerance, passed=passed, why=why)
    return Answer(check, {"champion": found})
