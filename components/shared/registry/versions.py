"""The MLflow model registry: who is champion, and putting a new version up for review.

The pipeline sets the alias `challenger` only; `champion` is a reviewer's to give (pipelines/review).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from components.shared.errors import UserError
from components.shared.evaluation.champion import Accepted, Champion
from components.shared.registry.uris import alias_uri, parse_uri, version_uri
from components.shared.tracking.addresses import absolute_uri, sqlite_file
from components.shared.tracking.client import (
    connect,
    default_uri,
    if_there,
    limit_requests,
    why_not,
)

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous-champion"
# tag of a decided version, and its values: for it, and against it
STATUS = "review.status"
APPROVED = "approved"
REJECTED, ROLLED_BACK, WITHDRAWN = DECIDED_AGAINST = ("rejected", "rolled back", "withdrawn")
# tag of a version whose files retention removed: when
PRUNED = "pruned"
# tag of a version that tells as JSON what few ask for
DETAILS = "details"
# the registry stores no longer descriptions
_LONGEST_DESCRIPTION = 5000


@dataclass(frozen=True)
class Version:
    """One version of a registered model; `status` is what its reviewer decided, None before that."""

    name: str
    number: str
    aliases: tuple[str, ...]
    uri: str
    status: str | None = None

    @property
    def is_settled(self) -> bool:
        """Whether there is nothing to review: it waits for review already, passed it, or did not."""
        return bool({CHALLENGER, CHAMPION} & set(self.aliases)) or self.status in DECIDED_AGAINST

    @property
    def standing(self) -> str:
        """Where it stands, in words."""
        return " and ".join(self.aliases) or self.status or "not up for review"


def find_champion(name: str) -> Champion:
    """What the registry says of the version of `name` that carries the alias `champion`, and of those before it.

    A version was champion if it carries the alias `previous-champion` or a reviewer approved it; one that was
    rejected, withdrawn or rolled back since does not count.

    Raises:
        UserError: the registry does not answer.
    """
    with registry_client(name) as client:
        model = find_model(client, name)
        if model is None:
            return Champion(model=name)
        versions = {str(found.version): found for found in _all_versions(client, name)}
    aliases = {alias: str(number) for alias, number in model.aliases.items()}
    current = aliases.get(CHAMPION)
    former = [
        number
        for number, found in versions.items()
        if number != current
        and (found.tags.get(STATUS) == APPROVED or (aliases.get(PREVIOUS) == number and STATUS not in found.tags))
    ]
    order = [current] if current in versions else []
    order += sorted(former, key=int, reverse=True)
    accepted = [
        Accepted(
            version=number,
            artifact_digest=versions[number].tags.get("artifact_digest"),
            uri=version_uri(name, number),
            stored=_is_stored(version_uri(name, number)),
        )
        for number in order
    ]
    digest = versions[current].tags.get("artifact_digest") if current in versions else None
    return Champion(model=name, version=current, artifact_digest=digest, accepted=accepted)


def _is_stored(uri: str) -> bool:
    try:
        return any(file.path == "MLmodel" for file in mlflow.artifacts.list_artifacts(uri) or ())
    except Exception:  # each artifact store has its own exceptions
        return False


def _all_versions(client: Any, name: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def find_version(name: str, artifact_digest: str) -> Version | None:
    """The version of `name` made from the file of this digest, None where there is none.

    Raises:
        UserError: the registry does not answer.
    """
    with registry_client(name) as client:
        model = find_model(client, name)
        if model is None:
            return None
        wanted = f"name = '{name}' AND tags.artifact_digest = '{artifact_digest}'"
        found = client.search_model_versions(wanted, order_by=["version_number ASC"])
        if not found:
            return None
        number = str(found[0].version)
        aliases = tuple(sorted(alias for alias, at in model.aliases.items() if str(at) == number))
    return Version(name, number, aliases, version_uri(name, number), found[0].tags.get(STATUS))


def put_up_for_review(
    name: str,
    model_uri: str,
    artifact_digest: str,
    tags: Mapping[str, str],
    description: str | Callable[[str], str],
    champion_model: str | None = None,
    about: str = "",
) -> Version:
    """Register a logged model, or find the version it already is, and make it the challenger.

    Calling it again with the same digest leaves one version, with the latest tags and description, also where two
    call it at once. The alias is left alone where there is nothing to review: the version is challenger already, is
    champion or what was copied as champion, or a reviewer has decided against it.

    Args:
        name: of the registered model; made on first use.
        model_uri: `models:/m-…` of the logged model.
        artifact_digest: SHA-256 of the model file; the version's identity.
        tags: further tags of the version.
        description: Markdown, or what makes it of the version's number; cut at 5,000 characters.
        champion_model: the registered model whose alias `champion` counts; None is the same one.
        about: Markdown, the description of the registered model where it has none.

    Raises:
        UserError: the registry does not answer.
    """
    every = {"artifact_digest": artifact_digest, **tags}
    known = find_version(name, artifact_digest)
    with registry_client(name) as client:
        made = None if known is not None else str(mlflow.register_model(model_uri, name, tags=every).version)
        number = _require_version(name, artifact_digest).number
        if made != number:
            if made is not None:
                _remove_duplicate(client, name, made, number)
            for key, value in every.items():
                client.set_model_version_tag(name, number, key, value)
        text = description if isinstance(description, str) else description(number)
        client.update_model_version(name, number, text[:_LONGEST_DESCRIPTION])
        if about and not find_model(client, name).description:
            client.update_registered_model(name, about)
        version = _require_version(name, artifact_digest)
        reigns = find_champion(champion_model or name).artifact_digest == artifact_digest
        if reigns or version.is_settled:
            return version
        client.set_registered_model_alias(name, CHALLENGER, number)
    return _require_version(name, artifact_digest)


def _require_version(name: str, artifact_digest: str) -> Version:
    version = find_version(name, artifact_digest)
    if version is None:
        raise UserError(f"registry: model {name}: its version is gone; was it deleted just now? run again")
    return version


def _remove_duplicate(client: Any, name: str, made: str, first: str) -> None:
    """Remove a version made just after the first one of the same file, by a step that ran beside.

    The registry numbers versions in the order in which it makes them, tags included, so whoever made a later one
    finds the first.
    """
    try:
        client.delete_model_version(name, made)
    except MlflowException as error:
        if error.error_code != "PERMISSION_DENIED":
            raise
        # an account that may only edit can at least say so
        client.set_model_version_tag(name, made, "duplicate_of", first)


def resolve(uri: str) -> str:
    """The version that an alias names: `models:/<name>@<alias>` becomes `models:/<name>/<number>`.

    Addresses of another form are given back as they are.

    Raises:
        UserError: there is no such model or alias (the line names the challenger if there is one), or the registry
            does not answer.
    """
    parsed = parse_uri(uri)
    if parsed is None or parsed.name is None or parsed.alias is None:
        return uri
    name, alias = parsed.name, parsed.alias
    with registry_client(name) as client:
        model = find_model(client, name)
    if model is None:
        raise UserError(
            f"{uri}: the registry has no model {name}; run the pipeline, or check MLFLOW_TRACKING_URI "
            "(a production model is made by the first `contrastive review approve`)"
        )
    if alias in model.aliases:
        return version_uri(name, str(model.aliases[alias]))
    hint = f"`contrastive review list` shows the versions; name one with --model {version_uri(name, '<number>')}"
    if CHALLENGER in model.aliases:
        number = model.aliases[CHALLENGER]
        hint = (
            f"version {number} waits for review: approve it with `contrastive review approve {number} "
            f"--reason …`, or use it as it is with --model {alias_uri(name, CHALLENGER)}"
        )
    raise UserError(f"{uri}: no version is {alias}; {hint}")


def open_registry(what: str) -> str:
    """Point MLflow at the registry that a user asks something of, and never make an empty one; returns its address.

    Args:
        what: is asked for, for the message.

    Raises:
        UserError: there is none, or it does not answer.
    """
    address = absolute_uri(os.environ.get("MLFLOW_TRACKING_URI") or default_uri())
    file = sqlite_file(address)
    # MLflow would make the file
    if file is not None and not file.exists():
        raise UserError(
            f"{what}: there is no registry at {address}; run where the pipeline ran, or set MLFLOW_TRACKING_URI"
        )
    return connect()


@contextmanager
def registry_client(name: str) -> Iterator[Any]:
    """A client of the registry, about the model `name`; what goes wrong with it is told in one line.

    Raises:
        UserError: the registry does not answer, or does not let this account do that.
    """
    limit_requests()
    try:
        yield mlflow.MlflowClient()
    except (MlflowException, OSError) as error:
        raise UserError(f"registry {mlflow.get_registry_uri()}: model {name}: {why_not(error)}") from None


def find_model(client: Any, name: str) -> Any:
    """MLflow's record of a registered model (aliases and tags), None where there is none."""
    return if_there(client.get_registered_model, name)


def all_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """A version's tags, and what its tag `details` tells besides; versions of before have a tag for each of it.

    What a decision depends on has a tag of its own, and is to be read from that.
    """
    try:
        details = json.loads(tags.get(DETAILS, "{}"))
    except ValueError:
        # somebody changed it in MLflow's page
        details = {}
    told = details.items() if isinstance(details, dict) else ()
    return {**tags, **{key: str(value) for key, value in told}}


def tagged_numbers(tags: Mapping[str, str], name: str) -> list[float]:
    """Numbers of a tag, which somebody may have changed in MLflow's page; none where one is no number."""
    try:
        numbers = [float(part) for part in all_tags(tags).get(name, "").split()]
    except ValueError:
        return []
    return numbers if all(map(math.isfinite, numbers)) else []
