"""Does no class pay for the others' gain?"""

from __future__ import annotations

import numpy as np

from components.shared.evaluation.evidence import ROUNDING, Check, Evidence
from components.shared.evaluation.wording import points
from components.shared.params.types import Fraction, Section

ORDER = 40


class Options(Section):
    """`max_class_drop`: how much of its recall any one class may lose against the baseline."""

    max_class_drop: Fraction


def check(evidence: Evidence, options: Options) -> Check:
    """Compare the recall of the class that loses most with the baseline's."""
    threshold = options.max_class_drop
    drops = evidence.baseline.recall.mean(axis=0) - evidence.model.recall.mean(axis=0)
    unknown = [name for name, drop in zip(evidence.class_names, drops, strict=True) if not np.isfinite(drop)]
    if unknown:
        why = f"no test image of {', '.join(unknown)}, so nobody can tell how the model does on them"
        return Check(name="slices", value=None, threshold=threshold, passed=False, why=why)
    worst = int(drops.argmax())
    drop = float(drops[worst])
    passed = drop <= threshold + ROUNDING
    change = f"recall of the worst class, {evidence.class_names[worst]}, changes by {points(-drop, '+')}"
    why = f"{change}; it may fall by {points(threshold)}"
    return Check(name="slices", value=drop, threshold=threshold, passed=passed, why=why)
