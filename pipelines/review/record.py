"""The record of all decisions: one tag of the registered model each, so that none overwrites another."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

KEY = "review.log."
Action = Literal["approve", "reject", "withdraw", "rollback"]


class Decision(BaseModel):
    """One decision of a reviewer.

    Attributes:
        sequence: one more than the highest that was known: it orders decisions without comparing clocks, and two
            with the same number were made at once.
        at: UTC, ISO 8601.
        account: of the registry, where the reviewer gave another name.
        version: decided on, in the model that versions are put up in; None where it has no counterpart there.
        override: what stood against it, where that was overridden.
        champion: from then on, in the model whose champion counts; None after a withdrawal.
        replaced: the champion before, in the same model.
    """

    # records of earlier releases hold more
    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str = Field(default_factory=lambda: uuid.uuid4().hex[:8])
    sequence: int
    at: str = Field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
    by: str
    account: str | None = None
    action: Action
    version: str | None = None
    reason: str
    override: str | None = None
    champion: str | None = None
    replaced: str | None = None

    @property
    def key(self) -> str:
        """The tag's key; it sorts by time."""
        return f"{KEY}{self.at}.{self.id}"

    @property
    def moves(self) -> bool:
        """Whether it changed who is champion."""
        return self.action != "reject"


@dataclass(frozen=True)
class Record:
    """All decisions about a registered model, oldest first, and the keys of those that can't be read."""

    decisions: Sequence[Decision] = ()
    unreadable: Sequence[str] = ()

    @classmethod
    def of(cls, tags: Mapping[str, str]) -> Record:
        """Read the tags of a registered model."""
        decisions, unreadable = [], []
        for key in sorted(key for key in tags if key.startswith(KEY)):
            try:
                decisions.append(Decision.model_validate_json(tags[key]))
            except ValidationError:
                unreadable.append(key)
        return cls(sorted(decisions, key=lambda found: (found.sequence, found.at, found.id)), unreadable)

    @cached_property
    def latest(self) -> Mapping[str | None, Decision]:
        """The latest decision on each version."""
        return {decision.version: decision for decision in self.decisions}

    def since(self, before: Record) -> list[Decision]:
        """The decisions that an earlier reading of the record did not have."""
        return [decision for decision in self.decisions if decision not in before.decisions]

    @property
    def next_sequence(self) -> int:
        """Of a new decision."""
        return self.decisions[-1].sequence + 1 if self.decisions else 1

    def line(self, champion: str | None) -> list[str]:
        """The champions one after the other, as `rollback` goes back through them.

        Args:
            champion: at present, whoever made it so: the end of the line. With None, its predecessor is the end.
        """
        line: list[str] = []
        last: str | None = None
        for move in self.decisions:
            if move.moves:
                line = _follow(line, last, move.replaced)
                approved = [move.champion] if move.action == "approve" and move.champion else []
                line = line + approved if approved else _follow(line, move.replaced, move.champion)
                last = move.champion
        return _follow(line, last, champion)


def _follow(line: list[str], last: str | None, now: str | None) -> list[str]:
    """The line after the champion went from `last` to `now`, which may be a step back."""
    if now == last:
        return line
    if now is None:
        return line[:-1]
    return line[: len(line) - line[::-1].index(now)] if now in line else [*line, now]
