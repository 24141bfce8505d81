"""What the registry holds about a model under review: versions, aliases, decisions, and what follows from them.

MLflow's page may change any of it. The alias `champion` is the fact; the record says how it came about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from components.shared.errors import UserError
from components.shared.registry.uris import parse_uri, version_uri
from components.shared.registry.version_tags import tagged_gain
from components.shared.registry.versions import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    REJECTED,
    ROLLED_BACK,
    STATUS,
    WITHDRAWN,
    find_model,
    registry_client,
)
from pipelines.review.record import Record

BLESSED = "blessed"
# tags of the decided version, for people, beside STATUS
BY, AT, REASON, OVERRIDE = "review.by", "review.at", "review.reason", "review.override"
# what STATUS says after a decision
OUTCOMES = {"approve": "approved", "reject": REJECTED, "rollback": ROLLED_BACK, "withdraw": WITHDRAWN}
# a search returns no more at once
_PAGE = 1000


@dataclass(frozen=True)
class ReviewedModels:
    """The registered models that a review is about.

    Attributes:
        model: that versions are put up in.
        production: that approved versions are copied into; None where `model` holds the champion itself.
    """

    model: str
    production: str | None = None

    @property
    def champion_model(self) -> str:
        """The model whose alias `champion` counts, and whose tags are the record."""
        return self.production or self.model


@dataclass(frozen=True)
class ModelVersion:
    """One version as the registry has it; `created` is in milliseconds since 1970, UTC."""

    number: str
    created: int
    description: str
    source: str
    run_id: str
    tags: Mapping[str, str]

    @classmethod
    def of(cls, found: Any) -> ModelVersion:
        """As MLflow's client gives it."""
        return cls(
            str(found.version),
            int(found.creation_timestamp),
            found.description or "",
            found.source or "",
            found.run_id or "",
            dict(found.tags),
        )

    @property
    def blessed(self) -> bool:
        """Whether the gate passed, as its tag says."""
        return self.tags.get("verdict") == BLESSED

    def numbers(self, tag: str) -> list[float]:
        """The numbers in a tag; none where it is missing or says anything else."""
        try:
            return [float(part) for part in self.tags.get(tag, "").split()]
        except ValueError:
            return []

    def number_in(self, tag: str) -> float | None:
        """The one number in a tag; None where there is none."""
        found = self.numbers(tag)
        return found[0] if len(found) == 1 else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of the gain."""
        found = self.numbers("gain_interval")
        return (found[0], found[1]) if len(found) == 2 else None

    @property
    def gain_in_words(self) -> str:
        """The gain over the baseline with its interval; empty where it is not known."""
        return tagged_gain(self.tags)


@dataclass(frozen=True)
class State:
    """All that a decision depends on, read at one time.

    `versions` and `aliases` belong to the model that versions are put up in; `champion_versions`,
    `champion_aliases` and `record` to the model whose champion counts, which may be the same.
    """

    models: ReviewedModels
    versions: Mapping[str, ModelVersion]
    aliases: Mapping[str, str]
    champion_versions: Mapping[str, ModelVersion]
    champion_aliases: Mapping[str, str]
    record: Record

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

    @cached_property
    def _copies(self) -> Mapping[str, str]:
        """Source → number of its earliest copy."""
        newest_first = sorted(self.champion_versions.values(), key=lambda version: -int(version.number))
        return {version.source: version.number for version in newest_first}

    def copy_of(self, number: str) -> str | None:
        """The number of this version in the model whose champion counts."""
        if self.models.production is None:
            return number if number in self.versions else None
        return self._copies.get(version_uri(self.models.model, number))

    def origin_of(self, number: str | None) -> str | None:
        """The number, where versions are put up, of a version of the model whose champion counts."""
        if number is None or self.models.production is None:
            return number
        copy = self.champion_versions.get(number)
        origin = parse_uri(copy.source) if copy else None
        return origin.version if origin and origin.name == self.models.model else None

    def name_of(self, number: str | None) -> str:
        """A version of the model whose champion counts, for people."""
        if number is None:
            return "no version"
        if self.models.production is None:
            return f"version {number}"
        origin = self.origin_of(number)
        return f"version {origin} (production {number})" if origin else f"{self.models.production} version {number}"

    def is_champion(self, number: str | None) -> bool:
        """Whether this version is champion, itself or as a copy."""
        return number is not None and self.origin_of(self.champion) == number

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


def read(models: ReviewedModels) -> State:
    """Ask the registry.

    Raises:
        UserError: there is no such model, or the registry does not answer.
    """
    with registry_client(models.model) as client:
        model = find_model(client, models.model)
        if model is None:
            raise UserError(
                f"the registry has no model {models.model}; run the pipeline first, check MLFLOW_TRACKING_URI, "
                "or name another one with --model"
            )
        versions, aliases = _versions(client, models.model), _aliases(model)
    if models.production is None:
        return State(models, versions, aliases, versions, aliases, Record.of(model.tags))
    with registry_client(models.production) as client:
        production = find_model(client, models.production)
        if production is None:
            return State(models, versions, aliases, {}, {}, Record())
        copies = _versions(client, models.production)
    return State(models, versions, aliases, copies, _aliases(production), Record.of(production.tags))


def _aliases(model: Any) -> dict[str, str]:
    return {alias: str(number) for alias, number in model.aliases.items()}


def _versions(client: Any, name: str) -> dict[str, ModelVersion]:
    found: dict[str, ModelVersion] = {}
    token = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", max_results=_PAGE, page_token=token)
        found |= {str(version.version): ModelVersion.of(version) for version in page}
        token = page.token
        if not token:
            return found
