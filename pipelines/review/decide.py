"""Deciding: approve, reject, withdraw, roll back.

MLflow sets an alias in one step, so there is one champion at every moment. A decision sets the alias, goes on
record, and looks again: whoever was overtaken meanwhile is told.
"""

from __future__ import annotations

import getpass
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mlflow.entities.model_registry import ModelVersion
from mlflow.utils.credentials import read_mlflow_creds

from components.shared.errors import UserError
from components.shared.registry.signature import require_signed_version
from components.shared.registry.uris import version_uri
from components.shared.registry.versions import PRUNED
from pipelines.review.history import in_words
from pipelines.review.record import Action, Decision
from pipelines.review.state import ReviewedModels, State, passed_gate, read
from pipelines.review.write import copy_to_production, move_champion, put_on_record, show_in_page

_LONGEST_REASON, _LONGEST_NAME = 2000, 100


@dataclass(frozen=True)
class Outcome:
    """What came of a decision.

    Attributes:
        state: of the registry afterwards.
        decision: as recorded; None where nothing had to be done.
        done: one line that says what was done.
        rivals: decisions that were made at the same time.
        overtaken: whether another one counts instead of this one.
        notes: what could not be done besides.
    """

    state: State
    decision: Decision | None
    done: str
    rivals: Sequence[Decision] = ()
    overtaken: bool = False
    notes: Sequence[str] = ()


def reviewer(given: str | None = None) -> str:
    """Who decides: `given`, else the registry's account, else the login name.

    Raises:
        UserError: there is no name.
    """
    try:
        name = given or read_mlflow_creds().username or getpass.getuser()
    except (KeyError, OSError, ImportError):
        name = ""
    return _one_line("--reviewer", name, _LONGEST_NAME)


def approve(models: ReviewedModels, number: str, reason: str, who: str, override: bool = False) -> Outcome:
    """Make a version champion; the one before becomes the previous champion.

    Args:
        models: under review.
        number: of the version, in the model that versions are put up in.
        reason: goes on record.
        who: decides; a name for people.
        override: although the gate did not pass or asked less than by default, or the version was rejected; goes on
            record.

    Raises:
        UserError: there is no such version, something stands against it, it is not signed as it must be, or the
            account may not.
    """
    reason, state = _one_line("--reason", reason, _LONGEST_REASON), read(models)
    against = " and ".join(_against(state, number))
    if state.is_champion(number):
        return Outcome(state, None, f"{state.name_of(state.champion)} is champion already; nothing was changed")
    if against and not override:
        raise UserError(
            f"{models.model} version {number}: {against}; approve it all the same with --override "
            "and a reason that says why"
        )
    pruned = state.versions[number].tags.get(PRUNED)
    if pruned:
        raise UserError(
            f"{models.model} version {number}: its files were removed on {pruned} (`contrastive registry prune`); "
            "approve another version"
        )
    _require_signed(models.model, number, state.versions[number], models)
    champion = copy_to_production(state, number)
    return _decide(state, who, "approve", reason, version=number, champion=champion, override=against or None)


def reject(models: ReviewedModels, number: str, reason: str, who: str) -> Outcome:
    """Put a version's rejection on record, and take the alias `challenger` from it.

    Raises:
        UserError: there is no such version, or it is champion.
    """
    reason, state = _one_line("--reason", reason, _LONGEST_REASON), read(models)
    state.version(number)
    if state.is_champion(number):
        raise UserError(
            f"{models.model} version {number} is champion; first `rollback`, `withdraw` it, or `approve` another "
            "version, then reject it"
        )
    decision = state.record.latest.get(number)
    if decision is not None and decision.action == "reject" and state.challenger != number:
        done = f"version {number} was rejected already, by {decision.by} ({decision.reason}); nothing was changed"
        return Outcome(state, None, done)
    return _decide(state, who, "reject", reason, version=number)


def withdraw(models: ReviewedModels, number: str, reason: str, who: str) -> Outcome:
    """Take the champion out of service; no version is champion until one is approved or rolled back to.

    Raises:
        UserError: there is no such version, or it is not champion.
    """
    reason, state = _one_line("--reason", reason, _LONGEST_REASON), read(models)
    state.version(number)
    if not state.is_champion(number):
        raise UserError(
            f"{models.model} version {number} is not champion, {state.name_of(state.champion)} is; a version that "
            "is not in service can be rejected"
        )
    return _decide(state, who, "withdraw", reason, version=number)


def rollback(models: ReviewedModels, reason: str, who: str) -> Outcome:
    """Make the previous champion champion again; doing it twice goes back two champions.

    Raises:
        UserError: there is no previous champion, it was rejected since, or it is not signed as it must be.
    """
    reason, state = _one_line("--reason", reason, _LONGEST_REASON), read(models)
    target = state.previous
    if target is None:
        raise UserError(
            f"{models.champion_model}: there is no previous champion to go back to; `approve` a version instead "
            "(`contrastive review list` shows them), or `withdraw` the champion"
        )
    origin = state.origin_of(target)
    if origin is not None and state.is_rejected(origin):
        raise UserError(
            f"{state.name_of(target)} was champion before, but was rejected since; `approve` another version "
            "instead"
        )
    _require_signed(models.champion_model, target, state.champion_versions[target], models)
    return _decide(state, who, "rollback", reason, version=state.origin_of(state.champion), champion=target)


def _require_signed(name: str, number: str, version: ModelVersion, models: ReviewedModels) -> None:
    uri, title = version_uri(name, number), f"{name} version {number}"
    require_signed_version(uri, title, version.tags, models.require_signature)


def _one_line(option: str, text: str, longest: int) -> str:
    text = " ".join(text.split())
    if not 0 < len(text) <= longest:
        raise UserError(f"{option}: has {len(text):,} characters; 1 to {longest:,} are needed, they go on record")
    return text


def _against(state: State, number: str) -> Iterator[str]:
    version, decision = state.version(number), state.record.latest.get(number)
    if not passed_gate(version):
        yield f"the gate did not pass (verdict: {version.tags.get('verdict', 'none')})"
    weaker = version.tags.get("weaker")
    if weaker:
        yield f"the gate asked less than by default ({weaker})"
    if state.is_rejected(number):
        by = f" by {decision.by}: {decision.reason}" if decision and decision.action == "reject" else ""
        yield f"it was rejected{by}"


def _decide(before: State, who: str, action: Action, reason: str, **what: str | None) -> Outcome:
    """Move the alias `champion`, put the decision on record, and look what became of it."""
    moves = action != "reject"
    if moves:
        move_champion(before.models, what.get("champion"))
    account = read_mlflow_creds().username
    mine = Decision(
        sequence=before.record.next_sequence,
        by=who,
        account=account if account != who else None,
        action=action,
        reason=reason,
        replaced=before.champion if moves else None,
        **what,
    )
    put_on_record(before.models, mine)
    state, notes = show_in_page(before, mine)
    rivals = [decision for decision in state.record.since(before.record) if decision.id != mine.id]
    others = [rival for rival in rivals if rival.moves]
    # MLflow can't remove an alias from one version only: a withdrawal may hit a champion that was made just before
    overtaken = moves and (state.champion != mine.champion or (action == "withdraw" and bool(others)))
    done = in_words(state, mine)
    if overtaken:
        done += f", but at the same moment {_winner(state, mine, others)}; "
        done += f"{state.name_of(state.champion)} is champion"
    return Outcome(state, mine, done, rivals, overtaken, notes)


def _winner(state: State, mine: Decision, others: Sequence[Decision]) -> str:
    """Whose decision counts instead, and what it was."""
    for other in reversed(others):
        if state.champion in (other.champion, mine.champion):
            return f"{other.by} {in_words(state, other)} ({other.reason})"
    return "somebody moved the alias by hand"
