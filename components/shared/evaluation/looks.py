"""Looks at the test set: who may look, which look it is, and what it may spend.

Whoever judges again and again on the same test images is promoted by luck in the end. So every look is counted, and
the k-th may spend less error than the one before; all of them together spend `alpha`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol

import numpy as np
from pydantic import Field
from scipy.special import stdtrit

from components.shared.evaluation.statistics import look_alpha
from components.shared.evaluation.wording import points
from components.shared.params.types import Section

# beyond it a look proves next to nothing: the gain would have to be six standard errors
LARGEST_QUANTILE = 6.0


class Options(Section):
    """Of the look itself.

    `alpha`: one-sided error of the proof, over all looks at the same test images. `min_replicates`: whole trainings
    of each side, below which nothing is judged; of fewer than two nobody knows how much trainings differ.
    `open_test`: with false the test set stays closed.
    """

    alpha: Annotated[float, Field(gt=0, le=0.5)]
    min_replicates: Annotated[int, Field(ge=2)]
    open_test: bool


WEAKER = {"alpha": "higher", "min_replicates": "lower"}


@dataclass(frozen=True)
class Look:
    """A look that was claimed.

    Attributes:
        place: its number among all looks at such test images, from 1.
        options_changed: whether the same look was claimed before with other options of the gate.
    """

    place: int
    options_changed: bool = False


class Ledger(Protocol):
    """Where looks are counted. Images are digests of the test images, uint64, shape (N,)."""

    def expected(self, key: str, images: np.ndarray) -> int:
        """The place that a look of this key would have, without claiming it."""

    def claim(self, key: str, images: np.ndarray, options: Mapping[str, Any]) -> Look:
        """Write the look down, then count."""


@dataclass
class MemoryLedger:
    """A ledger that lasts as long as this process, about one test set: for simulations."""

    seen: dict[str, tuple[int, dict[str, Any]]] = field(default_factory=dict)

    def expected(self, key: str, images: np.ndarray) -> int:
        """The place that a look of this key would have."""
        return self.seen[key][0] if key in self.seen else 1 + len(self.seen)

    def claim(self, key: str, images: np.ndarray, options: Mapping[str, Any]) -> Look:
        """Write the look down."""
        place, before = self.seen.setdefault(key, (1 + len(self.seen), dict(options)))
        return Look(place, before != options)


def look_key(winner: np.ndarray, baseline: np.ndarray, images: np.ndarray) -> str:
    """What makes a look the same look: the right answers of both sides, and the test images.

    Args:
        winner: right answers, bool, shape (replicates, N).
        baseline: right answers, bool, shape (replicates, N).
        images: digests of the test images, uint64, shape (N,); their order does not matter.

    Returns:
        SHA-256, hexadecimal.
    """
    order = np.argsort(images, kind="stable")
    digest = hashlib.sha256(np.ascontiguousarray(images[order], dtype="<u8").tobytes())
    for right in (winner, baseline):
        digest.update(repr(right.shape).encode())
        digest.update(np.packbits(right[:, order]).tobytes())
    return digest.hexdigest()


def closed_by_validation(gain: float, options: Options) -> str | None:
    """Why the test set stays closed whatever the ledger says; None where it may be opened.

    Args:
        gain: the winner's on held-out images.
        options: of the gate.
    """
    if not options.open_test:
        return "nobody asked for a verdict (gate.open_test=false); validation only"
    if gain <= 0:
        return f"on held-out images the winner gains {points(gain, '+')} over the baseline, and a look is precious"
    return None


def closed_by_looks(place: int, replicates: int, options: Options) -> str | None:
    """Why a look of this number proves next to nothing; None where it is worth its price.

    Args:
        place: of the look, from 1.
        replicates: of the side that has fewer.
        options: of the gate.
    """
    quantile = float(stdtrit(replicates - 1, 1 - look_alpha(place, options.alpha)))
    if quantile <= LARGEST_QUANTILE:
        return None
    return (
        f"look {place} at these test images would ask for a gain of up to {quantile:.0f} standard errors with "
        f"{replicates} replicates; more replicates (runtime.replicates) or fresh test images are due"
    )
