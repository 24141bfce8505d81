"""Who decided what and why, and what was changed without a decision, as far as the registry can tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from components.shared.registry.versions import (
    APPROVED,
    CHAMPION,
    PREVIOUS,
    REJECTED,
    ROLLED_BACK,
    STATUS,
    WITHDRAWN,
)
from pipelines.review.record import Decision
from pipelines.review.state import State

OUTSIDE = "outside of review (MLflow's page, or another program)"
# what the tag STATUS says after a decision
OUTCOMES = {"approve": APPROVED, "reject": REJECTED, "rollback": ROLLED_BACK, "withdraw": WITHDRAWN}


@dataclass(frozen=True)
class Event:
    """One line of the history; `decision` is None for a change that was found, whose time nobody knows."""

    what: str
    decision: Decision | None = None


def history(state: State) -> list[Event]:
    """All decisions, oldest first, with the moves of the champion between them that no decision made."""
    events: list[Event] = []
    # the last decision that moved the champion, several where they were made at once
    last: list[Decision] = []
    for decision in state.record.decisions:
        if decision.moves:
            at_once = bool(last) and decision.sequence == last[0].sequence
            if last and not at_once:
                events += _unexplained(state, last, decision.replaced)
            last = [*last, decision] if at_once else [decision]
        events.append(Event(in_words(state, decision), decision))
    return [*events, *_unexplained(state, last, state.champion)]


def _unexplained(state: State, last: list[Decision], now: str | None) -> Iterator[Event]:
    """That the champion is not the one that the last decisions made, if so."""
    made = [decision.champion for decision in last] or [None]
    if now in made:
        return
    if now is None and made[-1] not in state.champion_versions:
        yield Event(f"the champion, version {made[-1]}, was deleted")
    else:
        yield Event(f"{CHAMPION} was moved from {state.name_of(made[-1])} to {state.name_of(now)}")


def in_words(state: State, decision: Decision) -> str:
    """What a decision did."""
    gone = "" if decision.version is None or decision.version in state.versions else " (deleted since)"
    replaced = state.name_of(decision.replaced) if decision.replaced else "no champion"
    if decision.action == "reject":
        return f"rejected version {decision.version}{gone}"
    if decision.action == "withdraw":
        return f"withdrew {replaced}{gone}"
    if decision.action == "rollback":
        return f"rolled back from {replaced} to {state.name_of(decision.champion)}"
    copy = f" (production {decision.champion})" if state.models.production else ""
    instead = f" in place of {replaced}" if decision.replaced else ""
    return f"approved version {decision.version}{copy}{gone}{instead}"


def notes(state: State) -> list[str]:
    """What differs between the registry and the record, in sentences; empty where nothing does."""
    return list(_notes(state))


def _notes(state: State) -> Iterator[str]:
    if state.champion is None:
        yield "no version is champion"
    for event in history(state)[-1:]:
        if event.decision is None:
            yield f"{event.what}, {OUTSIDE}"
    if state.models.production is not None and CHAMPION in state.aliases:
        yield (
            f"{state.models.model} version {state.aliases[CHAMPION]} has the alias {CHAMPION} too; it does not "
            f"count, the champion is that of {state.models.production}"
        )
    alias = state.champion_aliases.get(PREVIOUS)
    if alias != state.previous:
        at, target = state.name_of(alias), state.name_of(state.previous)
        yield f"the alias {PREVIOUS} is at {at}; by the record `rollback` goes to {target}"
    for number in sorted(state.versions, key=int):
        said, decision = state.versions[number].tags.get(STATUS), state.record.latest.get(number)
        outcome = OUTCOMES[decision.action] if decision else None
        if said != outcome:
            decided = f"{outcome} by {decision.by}" if decision else "nobody has decided"
            counts = "; it counts as rejected" if state.is_rejected(number) else ""
            yield f"version {number}: {decided}, but its tag {STATUS} says {said or 'nothing'}{counts}"
        if state.challenger == number and state.is_rejected(number):
            yield f"version {number} was rejected, and has been put up for review again"
    for key in state.record.unreadable:
        yield f"the tag {key} can't be read as a decision; it was changed {OUTSIDE}"
