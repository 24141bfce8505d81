"""Carrying a decision out: the record is written first, then the registry is brought to what the record says.

Setting an alias replaces the one before in one step, so there is always exactly one champion. Whoever decides looks
again after each write, until the registry agrees with the record: of two who decide at once, both end with the
same champion.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

from components.shared.registry.versions import CHALLENGER, CHAMPION, PREVIOUS, answering, is_forbidden
from pipelines.review.log import OVERRIDE, Decision
from pipelines.review.state import Entry, Place, State, read

# more rivals at once than this there will not be
_ROUNDS = 20
_REFUSED = "this account may not change it"
# SQLite, PostgreSQL and MySQL in turn
_COLLISION = re.compile(r"UNIQUE constraint failed|UniqueViolation|Duplicate entry")


def carry_out(before: State, decision: Decision) -> tuple[State, list[str]]:
    """Write a decision down and act on it.

    Args:
        before: the state it was made on.
        decision: that nothing stands against.

    Returns:
        The state afterwards, and what this account was not allowed to do besides.

    Raises:
        UserError: this account may not decide here, or the registry does not answer.
    """
    place = before.place
    with answering(place.crowned) as client:
        client.set_registered_model_tag(place.crowned, decision.key, decision.model_dump_json(exclude_none=True))
    state = read(place)
    notes: list[str] = []
    if decision.moves:
        state, notes = _settle(state, decision)
    for version in _decided(state, decision):
        state, refused = _tell_version(state, version)
        notes += refused
    if decision.version is not None and decision.action != "rollback":
        state, refused = _no_longer_challenger(state, decision.version)
        notes += refused
    return state, notes


def _decided(state: State, mine: Decision) -> list[str]:
    """The version decided on, and those that rivals decided on at the same time: whoever is last tells them all."""
    overtaken = state.log.overtaken()
    rivals = [other for other in state.log.decisions if other.after == mine.after and other.id in overtaken]
    return list(dict.fromkeys(other.version for other in (mine, *rivals) if other.version is not None))


def _settle(state: State, mine: Decision) -> tuple[State, list[str]]:
    """Bring both aliases to what the latest move says, looking again after each write."""
    # what the champion may be for us to move it; anything else was set by a person meanwhile, who decides as well
    replaceable: set[str | None] = {None, mine.replaced}
    for _ in range(_ROUNDS):
        move = state.log.last_move or mine
        moved = {decision.champion for decision in state.log.decisions if decision.moves}
        if state.champion != move.champion and state.champion in replaceable | moved:
            _point(state.place, CHAMPION, move.champion)
            replaceable = set()
        elif state.crowned.get(PREVIOUS) != move.previous:
            if not _point(state.place, PREVIOUS, move.previous):
                return state, [f"{state.named(state.crowned[PREVIOUS])} keeps the alias {PREVIOUS}: {_REFUSED}"]
        else:
            break
        state = read(state.place)
    return state, []


def _point(place: Place, alias: str, number: str | None) -> bool:
    """Set an alias, or remove it for None; False if this account may not."""
    with answering(place.crowned) as client:
        if number is None:
            return _allowed(lambda: client.delete_registered_model_alias(place.crowned, alias))
        _written(lambda: client.set_registered_model_alias(place.crowned, alias, number))
    return True


def _allowed(write: Callable[[], object]) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        _written(write)
    except MlflowException as error:
        if not is_forbidden(error):
            raise
        return False
    return True


def _written(write: Callable[[], object]) -> None:
    """Write an alias or a tag, unless somebody else is just making it; the next look tells who came first.

    MLflow looks whether there is one and else makes it, so the second of two is told by the database.
    """
    from mlflow.exceptions import MlflowException

    try:
        write()
    except MlflowException as error:
        if error.error_code != "BAD_REQUEST" or not _COLLISION.search(str(error)):
            raise


def _tell_version(state: State, number: str) -> tuple[State, list[str]]:
    """Write the latest decision into the version's own tags, for those who look at it in MLflow's page."""
    for _ in range(_ROUNDS):
        stale = {
            target: values
            for target, entry in _targets(state, number).items()
            if (values := _outdated(entry, state.log.tags(number)))
        }
        if not stale:
            break
        refused = [
            f"{name} version {version} keeps its tags: {_REFUSED}"
            for (name, version), values in stale.items()
            if not _set_tags(name, version, values)
        ]
        state = read(state.place)
        if refused:
            return state, refused
    return state, []


def _targets(state: State, number: str) -> dict[tuple[str, str], Entry]:
    """The version and its copy, by model and number."""
    place, copy = state.place, state.copy_of(number)
    found = {(place.model, number): state.entries[number]} if number in state.entries else {}
    if place.production is not None and copy is not None:
        found[place.production, copy] = state.crowned_entries[copy]
    return found


def _outdated(entry: Entry, wanted: dict[str, str]) -> dict[str, str]:
    # removing a tag takes a right that changing it does not
    wanted = {**({OVERRIDE: "none"} if OVERRIDE in entry.tags else {}), **wanted}
    return {key: value for key, value in wanted.items() if entry.tags.get(key) != value}


def _set_tags(name: str, number: str, values: dict[str, str]) -> bool:
    def write_all() -> None:
        for key, value in values.items():
            _written(functools.partial(client.set_model_version_tag, name, number, key, value))

    with answering(name) as client:
        return _allowed(write_all)


def _no_longer_challenger(state: State, number: str) -> tuple[State, list[str]]:
    """Take the alias `challenger` from a decided version."""
    place = state.place
    if state.challenger != number:
        return state, []
    with answering(place.model) as client:
        if not _allowed(lambda: client.delete_registered_model_alias(place.model, CHALLENGER)):
            return state, [f"{place.model} version {number} keeps the alias {CHALLENGER}: {_REFUSED}"]
        after = read(place)
        newest = max(after.entries, key=int)
        # MLflow can't remove an alias from one version only: one put up at this very moment must not lose it
        if newest not in state.entries and after.challenger is None:
            _written(lambda: client.set_registered_model_alias(place.model, CHALLENGER, newest))
            after = read(place)
    return after, []
