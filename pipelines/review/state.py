"""What the registry holds about a model under review: versions, aliases, decisions, and what follows from them.

MLflow's page may change any of it. The alias `champion` is the fact; the record says how it came about.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import mlflow
from mlflow.entities.model_registry import ModelVersion

from components.shared.errors import UserError
from components.shared.registry.uris import parse_uri
from components.shared.registry.versions import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    REJECTED,
    STATUS,
    find_model,
    registry_client,
)
from components.shared.tracking.client import if_there
from pipelines.review.record import Record


@dataclass(frozen=True)
class ReviewedModels:
    """The registered models that a review is about.

    Attributes:
        model: that versions are put up in.
        production: that approved versions are copied into; None where `model` holds the champion itself.
        require_signature: whether a version must be signed to become champion.
    """

    model: str
    production: str | None = None
    require_signature: bool = False

    @property
    def champion_model(self) -> str:
        """The model whose alias `champion` counts, and whose tags are the record."""
        return self.production or self.model


@dataclass(frozen=True)
class State:
    """All that a decision depends on, read at one time.

    `versions` and `aliases` belong to the model that versions are put up in; `champion_versions`,
    `champion_aliases` and `record` to the model whose champion counts, which may be the same. `older` tells
    that there are more versions, which were not asked for.
    """

    models: ReviewedModels
    versions: Mapping[str, ModelVersion]
    aliases: Mapping[str, str]
    champion_versions: Mapping[str, ModelVersion]
    champion_aliases: Mapping[str, str]
    record: Record
    older: bool = False

    @property
    def champion(self) -> str | None:
        """Number of the champion, in the model whose champion counts."""
        return self.champion_aliases.get(CHAMPION)

    @property
    def challenger(self) -> str | None:
        """Number of the version that waits for review."""
        return self.aliases.get(CHALLENGER)

    @cached_property
    def previous(self) -> str | None:
        """Number of the version that was champion before, in the model whose champion counts, if it is there."""
        line = self.record.line(self.champion)
        there = [number for number in line if number in self.champion_versions and number != self.champion]
        return there[-1] if there else None

    def copy_of(self, number: str) -> str | None:
        """The number of this version in the model whose champion counts, the earliest where there are several."""
        if self.models.production is None:
            return number if number in self.versions else None
        copies = [copy for copy in self.champion_versions if self.origin_of(copy) == number]
        return min(copies, key=int, default=None)

    def origin_of(self, number: str | None) -> str | None:
        """The number, where versions are put up, of a version of the model whose champion counts."""
        if number is None or self.models.production is None:
            return number
        copy = self.champion_versions.get(number)
        origin = parse_uri(copy.source or "") if copy else None
        return origin.version if origin and origin.name == self.models.model else None

    def name_of(self, number: str | None) -> str:
        """A version of the model whose champion counts, for people."""
        if number is None:
            return "no version"
        if self.models.production is None:
            return f"version {number}"
        origin = self.origin_of(number)
        return f"version {origin} (production {number})" if origin else f"{self.models.production} version {number}"

    def is_champion(self, number: str) -> bool:
        """Whether this version is champion, itself or as a copy."""
        return self.origin_of(self.champion) == number

    def is_rejected(self, number: str) -> bool:
        """Whether the latest decision rejected it, or its tag says so, set by whoever."""
        decision, version = self.record.latest.get(number), self.versions.get(number)
        said = version is not None and version.tags.get(STATUS) == REJECTED
        return said or (decision is not None and decision.action == "reject")

    def status(self, number: str) -> str:
        """Where a version stands, in a word."""
        if self.is_champion(number):
            return CHAMPION
        if self.is_rejected(number):
            return REJECTED
        if self.origin_of(self.previous) == number:
            return PREVIOUS
        if self.challenger == number:
            return CHALLENGER
        decision = self.record.latest.get(number)
        if decision is None:
            return "duplicate" if self.versions[number].tags.get("duplicate_of") else "open"
        return {"rollback": "rolled-back", "withdraw": "withdrawn"}.get(decision.action, "approved-before")

    def version(self, number: str) -> ModelVersion:
        """The version of this number.

        Raises:
            UserError: there is none.
        """
        if number not in self.versions:
            numbers = ", ".join(sorted(self.versions, key=int)) or "none"
            gone = " any more (it was deleted)" if number in self.record.latest else ""
            raise UserError(f"{self.models.model}: there is no version {number}{gone}; versions: {numbers}")
        return self.versions[number]


def passed_gate(version: ModelVersion) -> bool:
    """Whether the gate passed, as the version's tag says."""
    return version.tags.get("verdict") == "blessed"


def read(models: ReviewedModels, last: int | None = None) -> State:
    """Ask the registry.

    Args:
        models: under review.
        last: ask for so many of the newest versions, for those with an alias and for the previous champion; a
            registry takes seconds to tell thousands. None asks for all.

    Raises:
        UserError: there is no such model, or the registry does not answer.
    """
    model = _find(models.model)
    if model is None:
        raise UserError(
            f"the registry has no model {models.model}; run the pipeline first, check MLFLOW_TRACKING_URI, "
            "or name another one with --model"
        )
    aliases = _aliases(model)
    if models.production is None:
        record = Record.of(model.tags)
        # the champion that was decided on last may have lost its alias
        named = [*aliases.values(), *[move.champion for move in record.decisions if move.champion][-1:]]
        versions, older = _versions(models.model, last, named, record.line(aliases.get(CHAMPION)))
        return State(models, versions, aliases, versions, aliases, record, older)
    production = _find(models.production)
    copies = _versions(models.production)[0] if production else {}
    sources = [parse_uri(copies[at].source or "") for at in _aliases(production).values() if at in copies]
    origins = {source.version for source in sources if source and source.version and source.name == models.model}
    versions, older = _versions(models.model, last, {*aliases.values(), *origins})
    record = Record.of(production.tags if production else {})
    return State(models, versions, aliases, copies, _aliases(production), record, older)


def _find(name: str) -> Any:
    """MLflow's record of a registered model, None where there is none."""
    with registry_client(name) as client:
        return find_model(client, name)


def _aliases(model: Any) -> dict[str, str]:
    return {alias: str(number) for alias, number in model.aliases.items()} if model else {}


def _versions(
    name: str, last: int | None = None, named: Iterable[str] = (), line: Sequence[str] = ()
) -> tuple[dict[str, ModelVersion], bool]:
    """Versions of a model by number, and whether there are more.

    They are all, or the `last` ones, those `named`, and the latest of the `line` of champions that are there: the
    champion's and the one's before.
    """
    with registry_client(name) as client:
        if last is None:
            found = mlflow.search_model_versions(filter_string=f"name = '{name}'")
            return {str(version.version): version for version in found}, False
        page = client.search_model_versions(f"name = '{name}'", last, ["version_number DESC"])
        versions = {str(version.version): version for version in page}

        def is_there(number: str) -> bool:
            if number not in versions and page.token:
                version = if_there(client.get_model_version, name, number)
                versions.update({number: version} if version is not None else {})
            return number in versions

        for number in named:
            is_there(number)
        # one after the other: there may be hundreds
        next(islice(filter(is_there, reversed(line)), 1, None), None)
        return versions, bool(page.token)
