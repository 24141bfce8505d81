"""The record of all decisions: one tag of the registered model each, so that none overwrites another.

MLflow can't change a tag only if nobody else did, so two reviewers may decide at once. Each decision names the
move of the champion that it knew of (`after`); two that know the same one were made at once. All readers put them
in the same order, so all agree which one counts, whoever wrote first.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

KEY = "review.log."
# of the decided version, for people
STATUS, BY, AT, REASON, OVERRIDE = "review.status", "review.by", "review.at", "review.reason", "review.override"
# what `review.status` says after a decision
OUTCOMES = {"approve": "approved", "reject": "rejected", "rollback": "rolled back"}
OVERTAKEN = "overtaken"


class Decision(BaseModel):
    """One decision of a reviewer.

    Versions are numbers as text. `version` is what was decided on, in the model that versions are put up in; None
    where a version was rolled back that has no counterpart there. `champion`, `replaced` and `previous` belong to
    the model whose alias `champion` counts: which version the decision made champion, which one it replaced, and
    which one was the previous champion from then on; all None for a rejection.

    Attributes:
        id: short and unique.
        sequence: one more than the highest that was known; orders decisions without comparing clocks.
        at: time of the reviewer's computer, UTC, ISO 8601.
        by: the reviewer.
        account: of the registry, where the reviewer gave another name.
        override: what stood against it, where that was overridden.
        after: id of the latest move of the champion that was known.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    sequence: int
    at: str
    by: str
    account: str | None = None
    action: Literal["approve", "reject", "rollback"]
    version: str | None = None
    reason: str
    override: str | None = None
    after: str | None = None
    champion: str | None = None
    replaced: str | None = None
    previous: str | None = None

    @property
    def key(self) -> str:
        """The tag's key; it sorts by time."""
        return f"{KEY}{self.at}.{self.id}"

    @property
    def moves(self) -> bool:
        """Whether it moved the champion."""
        return self.champion is not None

    @property
    def order(self) -> tuple[int, str, str]:
        """Where it stands among all."""
        return self.sequence, self.at, self.id


@dataclass(frozen=True)
class Log:
    """All decisions of a registered model, in order, and the keys of records that can't be read."""

    decisions: Sequence[Decision] = ()
    unreadable: Sequence[str] = ()

    @classmethod
    def of(cls, tags: Mapping[str, str]) -> Log:
        """Read the tags of a registered model."""
        decisions, unreadable = [], []
        for key in sorted(key for key in tags if key.startswith(KEY)):
            try:
                decisions.append(Decision.model_validate_json(tags[key]))
            except ValidationError:
                unreadable.append(key)
        return cls(tuple(sorted(decisions, key=lambda decision: decision.order)), tuple(unreadable))

    @property
    def last_move(self) -> Decision | None:
        """The decision that says who is champion: of several made at once, the one that all take for the last."""
        return next((decision for decision in reversed(self.decisions) if decision.moves), None)

    def line(self) -> list[Decision]:
        """The moves that led to the present champion, latest first; those overtaken at once are not among them."""
        known = {decision.id: decision for decision in self.decisions if decision.moves}
        found: list[Decision] = []
        move = self.last_move
        while move is not None and move not in found:
            found.append(move)
            move = known.get(move.after or "")
        return found

    def overtaken(self) -> set[str]:
        """Ids of moves that did not count, because another one was made at the same time."""
        line = self.line()
        if not line:
            return set()
        first = line[-1]
        # where a record was deleted the line ends early, and of what lies before nothing is known
        return {
            move.id
            for move in self.decisions
            if move.moves and move not in line and (move.order > first.order or move.after == first.after)
        }

    def before(self, champion: str) -> str | None:
        """The previous champion from the time on when this version last became champion; None if unknown."""
        return next((move.previous for move in self.line() if move.champion == champion), None)

    def about(self, version: str) -> Decision | None:
        """The latest decision on a version, where versions are put up; one that counts, if any does."""
        overtaken = self.overtaken()
        found = [decision for decision in self.decisions if decision.version == version]
        return max(found, key=lambda decision: (decision.id not in overtaken, decision.order), default=None)

    def tags(self, version: str) -> dict[str, str]:
        """What a version's own tags should say of the latest decision on it; empty where there is none."""
        decision = self.about(version)
        if decision is None:
            return {}
        outcome = OVERTAKEN if decision.id in self.overtaken() else OUTCOMES[decision.action]
        values = {STATUS: outcome, BY: decision.by, AT: decision.at, REASON: decision.reason}
        return {**values, OVERRIDE: decision.override} if decision.override else values

    def next_sequence(self) -> int:
        """For a new decision."""
        return max((decision.sequence for decision in self.decisions), default=0) + 1


def new_id() -> str:
    """A short id that no other decision has."""
    return uuid.uuid4().hex[:8]


def now() -> str:
    """The time, UTC, to the microsecond, so that ids rarely have to decide what came first."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
