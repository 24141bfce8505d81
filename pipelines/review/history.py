"""Who decided what and why, and what was changed without a decision, as far as the registry can tell."""

from __future__ import annotations

from dataclasses import dataclass

from components.shared.registry.versions import CHALLENGER, CHAMPION, PREVIOUS
from pipelines.review.log import OUTCOMES, STATUS, Decision
from pipelines.review.state import State

OUTSIDE = "outside of review (MLflow's page, or another program)"


@dataclass(frozen=True)
class Event:
    """One line of the history.

    Attributes:
        at: UTC, ISO 8601; None for a change that was found, whose time the registry does not tell.
        by: the reviewer; None as for `at`.
        account: of the registry, where it has another name.
        what: was done.
        why: the reason given.
        override: what stood against it.
        decision: as recorded.
    """

    at: str | None
    by: str | None
    account: str | None
    what: str
    why: str
    override: str | None = None
    decision: Decision | None = None


def history(state: State) -> list[Event]:
    """All decisions, oldest first, with the moves of the champion between them that no decision made."""
    events: list[Event] = []
    line, overtaken = {move.id for move in state.log.line()}, state.log.overtaken()
    expected: str | None = None
    for decision in state.log.decisions:
        if decision.id in line:
            if expected is not None and decision.replaced != expected:
                events.append(_moved(state, expected, decision.replaced))
            expected = decision.champion
        events.append(_event(state, decision, overtaken))
    if expected is not None and state.champion != expected:
        events.append(_moved(state, expected, state.champion))
    return events


def notes(state: State) -> list[str]:
    """What differs between the registry and the record, in sentences; empty where nothing does."""
    return [*_about_champion(state), *_about_previous(state), *_about_versions(state), *_about_the_record(state)]


def _event(state: State, decision: Decision, overtaken: set[str]) -> Event:
    gone = "" if decision.version is None or decision.version in state.entries else " (deleted since)"
    if decision.action == "reject":
        what = f"rejected version {decision.version}{gone}"
    elif decision.action == "rollback":
        left = state.named(decision.replaced) if decision.replaced else "no champion"
        what = f"rolled back from {left} to {state.named(decision.champion)}"
    else:
        what = f"approved {_named(state, decision)}{gone}"
        if decision.replaced is not None:
            what += f" in place of {state.named(decision.replaced)}"
    if decision.id in overtaken:
        winner = next((move for move in state.log.line() if move.after == decision.after), None)
        what += f"; overtaken by {winner.by} at the same moment" if winner else "; overtaken at the same moment"
    return Event(decision.at, decision.by, decision.account, what, decision.reason, decision.override, decision)


def _named(state: State, decision: Decision) -> str:
    if state.place.production is None or decision.champion is None:
        return f"version {decision.version}"
    return f"version {decision.version} (production {decision.champion})"


def _moved(state: State, old: str, new: str | None) -> Event:
    if new is None:
        removed = f"{state.named(old)} lost the alias {CHAMPION}; no version is champion"
        what = removed if old in state.crowned_entries else f"the champion, version {old}, was deleted"
    else:
        what = f"{CHAMPION} was moved from {state.named(old)} to {state.named(new)}"
    return Event(None, None, None, what, OUTSIDE)


def _about_champion(state: State) -> list[str]:
    found, last = [], state.log.last_move
    if state.champion is None:
        waits = f"; version {state.challenger} waits for review" if state.challenger else ""
        if last is None:
            found.append(f"no version is champion yet{waits}")
        else:
            found.append(f"no version is champion: {_moved(state, last.champion or '', None).what}, {OUTSIDE}")
    elif last is None:
        found.append(f"{state.named(state.champion)} is champion by no decision: it was made so {OUTSIDE}")
    elif state.champion != last.champion:
        found.append(
            f"{state.named(state.champion)} is champion by no decision: it was made so {OUTSIDE}, "
            f"after {last.by} made {state.named(last.champion)} champion"
        )
    if state.place.production is not None and CHAMPION in state.aliases:
        found.append(
            f"{state.place.model} version {state.aliases[CHAMPION]} has the alias {CHAMPION} too; it does not "
            f"count, the champion is that of {state.place.production}"
        )
    return found


def _about_previous(state: State) -> list[str]:
    alias, previous, last = state.crowned.get(PREVIOUS), state.previous(), state.log.last_move
    if alias == previous:
        if last is not None and alias != last.previous and state.champion == last.champion and alias is not None:
            return [f"the alias {PREVIOUS} was set to {state.named(alias)} {OUTSIDE}; `rollback` goes there"]
        return []
    if previous is not None:
        at = f"is at {state.named(alias)}" if alias else "is at no version"
        return [f"the alias {PREVIOUS} {at}; `rollback` goes to {state.named(previous)}, which was champion before"]
    return [f"the alias {PREVIOUS} is at the champion itself; `rollback` has nowhere to go"]


def _about_versions(state: State) -> list[str]:
    found = []
    for number in sorted(state.entries, key=int):
        entry, decision = state.entries[number], state.log.about(number)
        said, wanted = entry.tags.get(STATUS), state.log.tags(number).get(STATUS)
        if wanted is not None and said != wanted and decision is not None:
            now = f"says {said!r}" if said is not None else "is gone"
            found.append(
                f"version {number}: {wanted} by {decision.by}, but its tag {STATUS} {now}: changed {OUTSIDE}"
            )
        elif wanted is None and said is not None:
            counts = "it counts as rejected" if said == OUTCOMES["reject"] else "only aliases and decisions count"
            found.append(f"version {number}: its tag {STATUS} says {said!r} by no decision; {counts}")
        if state.challenger == number and state.is_rejected(number):
            found.append(f"version {number} was rejected, and has been put up for review again")
        if state.challenger == number and state.is_champion(number) and state.place.production is None:
            found.append(f"version {number} is champion, and still has the alias {CHALLENGER}")
    return found


def _about_the_record(state: State) -> list[str]:
    return [f"the tag {key} can't be read as a decision; it was changed {OUTSIDE}" for key in state.log.unreadable]
