"""Copies of approved versions in a production model that only reviewers may write."""

from __future__ import annotations

import contextlib
import io
from typing import Any

from components.shared.registry.versions import answering
from pipelines.review.state import State, read


def copied(state: State, number: str) -> str:
    """The version's number where champions count, copied there if it is not there yet.

    The copy has the same files, run, tags and description. Two who copy at once both end with the earlier copy.

    Args:
        state: as read just before.
        number: of a version that is there.

    Raises:
        UserError: this account may not write the production model, or the registry does not answer.
    """
    place, found = state.place, state.copy_of(number)
    if place.production is None or found is not None:
        return found or number
    with answering(place.production) as client:
        # MLflow tells on the error stream what it copies
        with contextlib.redirect_stderr(io.StringIO()):
            made = client.copy_model_version(f"models:/{place.model}/{number}", place.production)
        first = read(place).copy_of(number)
        if first is None or first == str(made.version):
            return str(made.version)
        _drop(client, place.production, str(made.version))
    return first


def _drop(client: Any, production: str, number: str) -> None:
    from mlflow.exceptions import MlflowException

    # an account without the right to delete leaves a second copy, that nothing names
    with contextlib.suppress(MlflowException):
        client.delete_model_version(production, number)
