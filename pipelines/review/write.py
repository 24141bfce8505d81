"""Writing to the registry what a decision says: the alias, the record, and what people see in MLflow's page."""

from __future__ import annotations

import contextlib
import io
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

from mlflow.exceptions import MlflowException

from components.shared.registry.uris import version_uri
from components.shared.registry.versions import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    STATUS,
    registry_client,
)
from components.shared.tracking.client import is_forbidden
from pipelines.review.history import OUTCOMES
from pipelines.review.record import Decision
from pipelines.review.state import ReviewedModels, State, read

# how often, and how many seconds apart, to look for the record of somebody who moved the alias at the same moment
_LOOKS, _PAUSE = 10, 0.1
# SQLite, PostgreSQL and MySQL in turn
_COLLISION = re.compile(r"UNIQUE constraint failed|UniqueViolation|Duplicate entry")


def move_champion(models: ReviewedModels, number: str | None) -> None:
    """Give the alias `champion` to a version in one step, or to none.

    Raises:
        UserError: this account may not, or the registry does not answer.
    """
    with registry_client(models.champion_model) as client:
        _set_alias(client, models.champion_model, CHAMPION, number)


def put_on_record(models: ReviewedModels, decision: Decision) -> None:
    """Write a decision into a tag of its own.

    Raises:
        UserError: this account may not, or the registry does not answer.
    """
    with registry_client(models.champion_model) as client:
        text = decision.model_dump_json(exclude_none=True)
        client.set_registered_model_tag(models.champion_model, decision.key, text)


def copy_to_production(state: State, number: str) -> str:
    """The version's number in the model whose champion counts, copied there if it is not there yet.

    The copy has the same files, run, tags and description. Two who copy at once both end with the earlier copy.

    Raises:
        UserError: this account may not write the production model, or the registry does not answer.
    """
    production, found = state.models.production, state.copy_of(number)
    if production is None or found is not None:
        return found or number
    with registry_client(production) as client:
        # MLflow tells on the error stream what it copies
        with contextlib.redirect_stderr(io.StringIO()):
            made = str(client.copy_model_version(version_uri(state.models.model, number), production).version)
        first = read(state.models).copy_of(number) or made
        if first != made:
            # an account without the right to delete leaves a second copy, that nothing names
            with contextlib.suppress(MlflowException):
                client.delete_model_version(production, made)
    return first


def show_in_page(before: State, decision: Decision) -> tuple[State, list[str]]:
    """Write a decision on record where people see it in MLflow's page: the version's tags and the other aliases.

    Args:
        before: what was decided on.
        decision: that was made.

    Returns:
        The state afterwards, with the records of all who decided at the same moment, and what this account may not
        change.
    """
    models, number = before.models, decision.version
    refused: list[str] = []
    shown: dict[str, str | None] = {}
    if number is not None and number in before.versions:
        copy = decision.champion if decision.action == "approve" else before.copy_of(number)
        shown = {models.model: number, models.champion_model: copy}
    with registry_client(models.model) as client:
        for name, version in shown.items():
            if version is not None:
                with _noting(refused, f"the tags of {name} version {version}"):
                    _set_tags(client, name, version, decision)
        if before.challenger == number and decision.action in ("approve", "reject"):
            with _noting(refused, f"the alias {CHALLENGER} of {models.model}"):
                _end_challenge(client, before)
        for _ in range(_LOOKS):
            state = read(models)
            made = {move.champion for move in state.record.since(before.record) if move.moves}
            if state.champion_aliases.get(PREVIOUS) != state.previous:
                with _noting(refused, f"the alias {PREVIOUS} of {models.champion_model}"):
                    _set_alias(client, models.champion_model, PREVIOUS, state.previous)
            elif decision.moves and state.champion not in made:
                time.sleep(_PAUSE)
            else:
                break
    return state, list(dict.fromkeys(refused))


@contextlib.contextmanager
def _noting(refused: list[str], what: str) -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        if not is_forbidden(error):
            raise
        refused.append(f"{what} could not be changed by this account")


def _set_tags(client: Any, name: str, number: str, decision: Decision) -> None:
    although = f" (although {decision.override})" if decision.override else ""
    tags = {
        STATUS: OUTCOMES[decision.action],
        "review.by": decision.by,
        "review.at": decision.at,
        "review.reason": f"{decision.reason}{although}",
    }
    for key, value in tags.items():
        _set(client.set_model_version_tag, name, number, key, value)


def _set_alias(client: Any, name: str, alias: str, number: str | None) -> None:
    if number is None:
        client.delete_registered_model_alias(name, alias)
    else:
        _set(client.set_registered_model_alias, name, alias, number)


def _set(write: Callable[..., object], *what: str) -> None:
    """Set an alias or a tag, again if somebody else was just making it: MLflow looks for it, and then makes it."""
    try:
        write(*what)
    except MlflowException as error:
        if error.error_code != "BAD_REQUEST" or not _COLLISION.search(str(error)):
            raise
        write(*what)


def _end_challenge(client: Any, before: State) -> None:
    model = before.models.model
    client.delete_registered_model_alias(model, CHALLENGER)
    # MLflow can't remove an alias from one version only: one put up at this very moment must not lose it
    after = read(before.models)
    newest = max(after.versions, key=int)
    if newest not in before.versions and after.challenger is None:
        _set_alias(client, model, CHALLENGER, newest)
