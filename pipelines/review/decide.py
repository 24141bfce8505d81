"""Deciding: approve, reject, roll back."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from components.shared.errors import UserError
from pipelines.review.carry_out import carry_out
from pipelines.review.copies import copied
from pipelines.review.log import Decision, new_id, now
from pipelines.review.state import Place, State, read

_PAUSE = 0.1
_LONGEST_REASON = 2000


@dataclass(frozen=True)
class Reviewer:
    """Who decides: a name for people, and the registry's account where that is another one."""

    name: str
    account: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a decision.

    Attributes:
        state: of the registry afterwards.
        decision: as recorded; None where nothing had to be done.
        done: one line that says what was done.
        rivals: decisions that were made at the same time.
        overtaken: whether one of those counts instead of this one.
        notes: what could not be done besides.
    """

    state: State
    decision: Decision | None
    done: str
    rivals: tuple[Decision, ...] = ()
    overtaken: bool = False
    notes: tuple[str, ...] = ()


def reviewer(given: str | None = None) -> Reviewer:
    """Who decides: `given`, else the registry's account, else the login name.

    Raises:
        UserError: there is no name.
    """
    import getpass

    from mlflow.utils.credentials import read_mlflow_creds

    account = read_mlflow_creds().username or None
    try:
        name = given if given is not None else account or getpass.getuser()
    except (KeyError, OSError, ImportError):
        name = ""
    name = " ".join(name.split())
    if not name or len(name) > 100:
        raise UserError(f"--reviewer = {name!r}: must be a name of 1 to 100 characters")
    return Reviewer(name, account if account != name else None)


def approve(place: Place, number: str, reason: str, who: Reviewer, override: bool = False) -> Outcome:
    """Make a version champion; the one before becomes the previous champion.

    Args:
        place: the models.
        number: of the version, in the model that versions are put up in.
        reason: goes on record.
        who: decides.
        override: although the gate did not pass, or the version was rejected; goes on record.

    Raises:
        UserError: there is no such version, something stands against it, or the account may not.
    """
    reason = _reason(reason)
    state = _settled(place)
    entry = state.entry(number)
    if state.is_champion(number):
        return Outcome(state, None, f"{state.named(state.champion)} is champion already; nothing was changed")
    against = _against(state, number)
    if against and not override:
        raise UserError(
            f"{place.model} version {number}: {' and '.join(against)}; approve it all the same with --override "
            "and a reason that says why"
        )
    crowned = copied(state, entry.number)
    # where somebody took the alias away, the champion before that one is still known
    earlier = state.champion or state.previous()
    if earlier == crowned:
        earlier = state.log.before(crowned)
    return _decide(
        state,
        _decision(
            state,
            who,
            action="approve",
            version=number,
            reason=reason,
            override=" and ".join(against) or None,
            after=_last_id(state),
            champion=crowned,
            replaced=state.champion,
            previous=earlier,
        ),
    )


def reject(place: Place, number: str, reason: str, who: Reviewer) -> Outcome:
    """Put a version's rejection on record, and take the alias `challenger` from it.

    Raises:
        UserError: there is no such version, or it is champion.
    """
    reason = _reason(reason)
    state = read(place)
    state.entry(number)
    if state.is_champion(number):
        raise UserError(
            f"{place.model} version {number} is champion; first `rollback`, or `approve` another version, "
            "then reject it"
        )
    decision = state.log.about(number)
    if decision is not None and decision.action == "reject" and state.challenger != number:
        done = f"version {number} was rejected already, by {decision.by} ({decision.reason}); nothing was changed"
        return Outcome(state, None, done)
    return _decide(
        state,
        _decision(
            state,
            who,
            action="reject",
            version=number,
            reason=reason,
        ),
    )


def rollback(place: Place, reason: str, who: Reviewer) -> Outcome:
    """Make the previous champion champion again; doing it twice goes back two champions.

    Raises:
        UserError: there is no previous champion, or it was rejected since.
    """
    reason = _reason(reason)
    state = _settled(place)
    target = state.previous()
    if target is None:
        raise UserError(
            f"{place.crowned}: there is no previous champion to go back to; `approve` a version instead "
            "(`python -m pipelines review list` shows them)"
        )
    origin = state.origin_of(target)
    if origin is not None and state.is_rejected(origin):
        raise UserError(
            f"{state.named(target)} was champion before, but was rejected since; `approve` another version instead"
        )
    return _decide(
        state,
        _decision(
            state,
            who,
            action="rollback",
            version=state.origin_of(state.champion) if state.champion else None,
            reason=reason,
            after=_last_id(state),
            champion=target,
            replaced=state.champion,
            previous=state.log.before(target),
        ),
    )


def _decision(state: State, who: Reviewer, **what: Any) -> Decision:
    return Decision(
        id=new_id(),
        sequence=state.log.next_sequence(),
        at=now(),
        by=who.name,
        account=who.account,
        **what,
    )


def _reason(text: str) -> str:
    reason = " ".join(text.split())
    if not reason:
        raise UserError("--reason: is empty; say in a few words why, it goes on record")
    if len(reason) > _LONGEST_REASON:
        raise UserError(f"--reason: has {len(reason):,} characters; {_LONGEST_REASON:,} are allowed")
    return reason


def _against(state: State, number: str) -> list[str]:
    entry, against = state.entries[number], []
    if not entry.blessed:
        verdict = entry.tags.get("verdict")
        against.append(
            f"the gate did not pass (verdict: {verdict})" if verdict else "it has no verdict of the gate"
        )
    if state.is_rejected(number):
        decision = state.log.about(number)
        by = f" by {decision.by}: {decision.reason}" if decision and decision.action == "reject" else ""
        against.append(f"it was rejected{by}")
    return against


def _last_id(state: State) -> str | None:
    move = state.log.last_move
    return move.id if move else None


def _settled(place: Place) -> State:
    """The state, a moment later if somebody is just moving the champion."""
    state = read(place)
    for _ in range(3):
        move = state.log.last_move
        if move is None or move.champion == state.champion:
            break
        time.sleep(_PAUSE)
        state = read(place)
    return state


def _decide(before: State, mine: Decision) -> Outcome:
    state, notes = carry_out(before, mine)
    known = {decision.id for decision in before.log.decisions}
    rivals = tuple(other for other in state.log.decisions if other.id not in known and other.id != mine.id)
    overtaken = mine.id in state.log.overtaken() or (mine.moves and state.champion != mine.champion)
    return Outcome(state, mine, _done(state, mine, overtaken), rivals, overtaken, tuple(notes))


def _done(state: State, mine: Decision, overtaken: bool) -> str:
    if mine.action == "reject":
        return f"version {mine.version} is rejected"
    if overtaken:
        did = f"{state.named(mine.champion)} was {'approved' if mine.action == 'approve' else 'restored'}"
        winner = state.log.last_move
        if winner is None or winner.champion != state.champion:
            return f"{did}, but at the same moment somebody made {state.named(state.champion)} champion by hand"
        now_champion = f"{winner.by} made {state.named(state.champion)} champion"
        return f"{did}, but at the same moment {now_champion}: {winner.reason}"
    again = " again" if mine.action == "rollback" else ""
    line = f"{state.named(mine.champion)} is champion{again}"
    if mine.replaced is None:
        return line
    if mine.action == "rollback":
        return f"{line}, in place of {state.named(mine.replaced)}"
    return f"{line}; {state.named(mine.replaced)} is the previous champion"
