"""Who decided what and why, and what was changed without a decision, as far as the registry can tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from components.shared.registry.versions import CHALLENGER, CHAMPION, PREVIOUS
from pipelines.review.record import Decision
from pipelines.review.state import OUTCOMES, REJECTED, STATUS, State

OUTSIDE = "outside of review (MLflow's page, or another program)"


@dataclass(frozen=True)
class Event:
    """One line of the history; `decision` is None for a change that was found, whose time nobody knows."""

    what: str
    decision: Decision | None = None


def history(state: State) -> list[Event]:
    """All decisions, oldest first, with the moves of the champion between them that no decision made."""
    events: list[Event] = []
    last: list[Decision] = []
    for decision in state.record.decisions:
        if decision.moves:
            at_once = bool(last) and decision.sequence == last[0].sequence
            if last and not at_once and decision.replaced not in {move.champion for move in last}:
                events.append(_moved(state, last[-1].champion, decision.replaced))
            last = [*last, decision] if at_once else [decision]
        events.append(Event(in_words(state, decision), decision))
    if last and state.champion not in {move.champion for move in last}:
        events.append(_moved(state, last[-1].champion, state.champion))
    return events


def notes(state: State) -> list[str]:
    """What differs between the registry and the record, in sentences; empty where nothing does."""
    unreadable = [
        f"the tag {key} can't be read as a decision; it was changed {OUTSIDE}" for key in state.record.unreadable
    ]
    return [*_about_aliases(state), *_about_versions(state), *unreadable]


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


def _moved(state: State, old: str | None, new: str | None) -> Event:
    if new is not None:
        return Event(f"{CHAMPION} was moved from {state.name_of(old)} to {state.name_of(new)}")
    if old in state.champion_versions:
        return Event(f"{state.name_of(old)} lost the alias {CHAMPION}; no version is champion")
    return Event(f"the champion, version {old}, was deleted")


def _about_aliases(state: State) -> Iterator[str]:
    champion, moves = state.champion, state.record.last_moves()
    last = moves[0] if moves else None
    if champion is None and last is None:
        yield "no version is champion yet"
    elif champion is None and last is not None and last.champion is None:
        yield f"no version is champion: {last.by} withdrew {state.name_of(last.replaced)}"
    elif champion is None and last is not None:
        yield f"no version is champion: {_moved(state, last.champion, None).what}, {OUTSIDE}"
    elif champion not in {move.champion for move in moves}:
        then = ""
        if last is not None:
            then = f", after {last.by} made {state.name_of(last.champion)} champion"
        yield f"{state.name_of(champion)} is champion by no decision: it was made so {OUTSIDE}{then}"
    if state.models.production is not None and CHAMPION in state.aliases:
        yield (
            f"{state.models.model} version {state.aliases[CHAMPION]} has the alias {CHAMPION} too; it does not "
            f"count, the champion is that of {state.models.production}"
        )
    alias = state.champion_aliases.get(PREVIOUS)
    if alias != state.previous:
        goes = f"goes to {state.name_of(state.previous)}" if state.previous else "has nowhere to go"
        yield f"the alias {PREVIOUS} is at {state.name_of(alias)}; by the record `rollback` {goes}"


def _about_versions(state: State) -> Iterator[str]:
    for number in sorted(state.versions, key=int):
        said, decision = state.versions[number].tags.get(STATUS), state.record.latest.get(number)
        if decision is not None and said != OUTCOMES[decision.action]:
            now = f"says {said!r}" if said is not None else "is gone"
            yield (
                f"version {number}: {OUTCOMES[decision.action]} by {decision.by}, but its tag {STATUS} {now}: "
                f"changed {OUTSIDE}"
            )
        elif decision is None and said is not None:
            counts = "it counts as rejected" if said == REJECTED else "only aliases and decisions count"
            yield f"version {number}: its tag {STATUS} says {said!r} by no decision; {counts}"
        if state.challenger == number and state.is_rejected(number):
            yield f"version {number} was rejected, and has been put up for review again"
        if state.aliases.get(CHAMPION) == number == state.challenger:
            yield f"version {number} is champion, and still has the alias {CHALLENGER}"
