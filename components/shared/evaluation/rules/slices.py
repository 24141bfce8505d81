"""Does no slice of the images, such as a class, pay for the others' gain?"""

from __future__ import annotations

from components.shared.evaluation.evidence import Answer, Check, Evidence, SliceFinding
from components.shared.evaluation.statistics import holm, slice_p_values
from components.shared.evaluation.wording import points
from components.shared.params.types import Fraction, Section

ORDER = 40
WEAKER = {"max_slice_drop": "higher"}
# one-sided error over all slices together, whatever the look
ALPHA = 0.05
# with fewer images nobody can tell
FEWEST = 30
_NAMED = 5


class Options(Section):
    """`max_slice_drop`: how much of its accuracy any one slice may lose against the baseline."""

    max_slice_drop: Fraction


def check(evidence: Evidence, options: Options) -> Answer:
    """Refuse if any slice falls by more than it may, beyond the luck of trainings, images and many slices."""
    limit = options.max_slice_drop
    tested: dict[int, tuple[float, float]] = {}
    for kind in dict.fromkeys(part.kind for part in evidence.slices):
        own = [
            index for index, part in enumerate(evidence.slices) if part.kind == kind and len(part.images) >= FEWEST
        ]
        images = [evidence.slices[index].images for index in own]
        drops, p_values = slice_p_values(evidence.right, evidence.baseline, images, limit)
        tested |= dict(zip(own, zip(drops.tolist(), p_values.tolist(), strict=True), strict=True))
    refused = dict(zip(tested, holm([p for _, p in tested.values()], ALPHA).tolist(), strict=True))
    findings = []
    for index, part in enumerate(evidence.slices):
        drop, p = tested.get(index, (None, None))
        if drop is None and len(part.images):
            drop = float(evidence.baseline[:, part.images].mean() - evidence.right[:, part.images].mean())
        findings.append(
            SliceFinding(
                kind=part.kind,
                name=part.name,
                images=len(part.images),
                drop=drop,
                p=p,
                refused=refused.get(index, False),
                unknown=index not in tested,
            )
        )
    known = [finding for finding in findings if not finding.unknown]
    falling = [finding for finding in known if finding.refused]
    worst = max(known, key=lambda finding: finding.drop or 0.0, default=None)
    why = _in_words(falling, worst, len(known), limit)
    unknown = [_name(finding) for finding in findings if finding.unknown]
    if unknown:
        more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        why += f"; not known, with fewer than {FEWEST} images: {', '.join(unknown[:_NAMED])}{more}"
    value = worst.drop if worst else None
    check = Check(name="slices", value=value, threshold=limit, passed=not falling, why=why)
    return Answer(check, {"slices": findings})


def _name(finding: SliceFinding) -> str:
    return f"{finding.kind} {finding.name}"


def _in_words(falling: list[SliceFinding], worst: SliceFinding | None, known: int, limit: float) -> str:
    if falling:
        drops = [f"{_name(finding)} by {points(finding.drop or 0.0)}" for finding in falling[:_NAMED]]
        more = f" and {len(falling) - _NAMED} more" if len(falling) > _NAMED else ""
        return f"accuracy falls in {', '.join(drops)}{more}, surely by more than the {points(limit)} allowed"
    if worst is None:
        return "no slice has enough images to tell"
    change = (
        f"accuracy of the worst of {known:,} slices, {_name(worst)}, changes by {points(-(worst.drop or 0.0), '+')}"
    )
    return f"{change}; it may fall by {points(limit)}, and none surely falls by more"
