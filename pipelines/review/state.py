"""What the registry holds about a model under review: versions, aliases, decisions, and what follows from them.

MLflow's page may change any of it. The alias `champion` is the fact; the record says how it came about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.shared.errors import UserError
from components.shared.registry.versions import CHALLENGER, CHAMPION, PREVIOUS, answering, find_model
from pipelines.review.log import OUTCOMES, STATUS, Log

BLESSED = "blessed"
REJECTED = "rejected"
# a search returns no more at once; a model has hundreds of versions at most
_PAGE = 1000


@dataclass(frozen=True)
class Place:
    """The registered models that a review is about.

    Attributes:
        model: that versions are put up in.
        production: that approved versions are copied into; None where `model` holds the champion itself.
    """

    model: str
    production: str | None = None

    @property
    def crowned(self) -> str:
        """The model whose alias `champion` counts."""
        return self.production or self.model


@dataclass(frozen=True)
class Entry:
    """One version as the registry has it; `created` is in milliseconds since 1970, UTC."""

    number: str
    created: int
    description: str
    source: str
    run_id: str
    tags: Mapping[str, str]

    @property
    def blessed(self) -> bool:
        """Whether the gate passed, as its tag says."""
        return self.tags.get("verdict") == BLESSED


@dataclass(frozen=True)
class State:
    """All that a decision depends on, read at one time.

    `entries` and `aliases` belong to the model that versions are put up in; `crowned_entries`, `crowned` and `log`
    to the model whose champion counts, which may be the same.
    """

    place: Place
    entries: Mapping[str, Entry]
    aliases: Mapping[str, str]
    crowned_entries: Mapping[str, Entry]
    crowned: Mapping[str, str]
    log: Log

    @property
    def champion(self) -> str | None:
        """Number of the champion in the model where it counts."""
        return self.crowned.get(CHAMPION)

    @property
    def challenger(self) -> str | None:
        """Number of the version that waits for review."""
        return self.aliases.get(CHALLENGER)

    def previous(self) -> str | None:
        """Number of the version that was champion before, where champions count; None if there is none.

        The alias says it, unless the champion was moved in MLflow's page, where nobody moves that alias too.
        """
        champion, alias, last = self.champion, self.crowned.get(PREVIOUS), self.log.last_move
        if last is None:
            return alias if alias != champion else None
        if alias is None and last.previous not in self.crowned_entries:
            # MLflow drops the aliases of a version that is deleted
            alias = last.previous
        moved = champion is not None and champion != last.champion
        if champion is not None and alias == champion:
            found = self.log.before(champion)
        else:
            found = last.champion if moved and alias in (None, last.previous) else alias
        # versions may have been deleted since, and a version may have been champion more than once
        for _ in range(len(self.log.decisions) + 1):
            if found is None or (found != champion and found in self.crowned_entries):
                return found
            found = self.log.before(found)
        return None

    def copy_of(self, number: str) -> str | None:
        """Where champions count, the number of this version (the earliest, if it was copied more than once)."""
        if self.place.production is None:
            return number if number in self.entries else None
        source = f"models:/{self.place.model}/{number}"
        found = [entry for entry in self.crowned_entries.values() if entry.source == source]
        return min(found, key=lambda entry: int(entry.number)).number if found else None

    def origin_of(self, crowned: str) -> str | None:
        """The number, where versions are put up, of a version of the model whose champion counts."""
        if self.place.production is None:
            return crowned
        entry, prefix = self.crowned_entries.get(crowned), f"models:/{self.place.model}/"
        return entry.source.removeprefix(prefix) if entry and entry.source.startswith(prefix) else None

    def named(self, crowned: str | None) -> str:
        """A version of the model whose champion counts, for people."""
        if crowned is None:
            return "no version"
        if self.place.production is None:
            return f"version {crowned}"
        origin = self.origin_of(crowned)
        return (
            f"version {origin} (production {crowned})" if origin else f"{self.place.production} version {crowned}"
        )

    def is_champion(self, number: str) -> bool:
        """Whether this version is champion, itself or as a copy."""
        return self.champion is not None and self.origin_of(self.champion) == number

    def is_rejected(self, number: str) -> bool:
        """Whether the latest decision rejected it, or its tag says so, set by whoever."""
        decision, entry = self.log.about(number), self.entries.get(number)
        said = entry is not None and entry.tags.get(STATUS) == OUTCOMES["reject"]
        return said or (decision is not None and decision.action == "reject")

    def status(self, number: str) -> str:
        """Where a version stands, in a word."""
        previous, decision = self.previous(), self.log.about(number)
        if self.is_champion(number):
            return CHAMPION
        if self.is_rejected(number):
            return REJECTED
        if previous is not None and self.origin_of(previous) == number:
            return PREVIOUS
        if self.challenger == number:
            return CHALLENGER
        if decision is None:
            return "duplicate" if self.entries[number].tags.get("duplicate_of") else "open"
        return "rolled-back" if decision.action == "rollback" else "approved-before"

    def entry(self, number: str) -> Entry:
        """The version of this number.

        Raises:
            UserError: there is none.
        """
        if number not in self.entries:
            numbers = ", ".join(sorted(self.entries, key=int)) or "none"
            gone = " any more (it was deleted)" if self.log.about(number) else ""
            raise UserError(f"{self.place.model}: there is no version {number}{gone}; versions: {numbers}")
        return self.entries[number]


def read(place: Place) -> State:
    """Ask the registry.

    Raises:
        UserError: there is no such model, or the registry does not answer.
    """
    with answering(place.model) as client:
        model = find_model(client, place.model)
        if model is None:
            raise UserError(
                f"the registry has no model {place.model}; run the pipeline first, check MLFLOW_TRACKING_URI, "
                "or name another one with --model"
            )
        entries = _entries(client, place.model)
    aliases = _numbers(model.aliases)
    if place.production is None:
        return State(place, entries, aliases, entries, aliases, Log.of(model.tags))
    with answering(place.production) as client:
        production = find_model(client, place.production)
        if production is None:
            return State(place, entries, aliases, {}, {}, Log())
        copies = _entries(client, place.production)
    return State(place, entries, aliases, copies, _numbers(production.aliases), Log.of(production.tags))


def _numbers(aliases: Mapping[str, Any]) -> dict[str, str]:
    return {alias: str(number) for alias, number in aliases.items()}


def _entries(client: Any, name: str) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    token = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", max_results=_PAGE, page_token=token)
        for version in page:
            found[str(version.version)] = Entry(
                number=str(version.version),
                created=int(version.creation_timestamp),
                description=version.description or "",
                source=version.source or "",
                run_id=version.run_id or "",
                tags=dict(version.tags),
            )
        token = page.token
        if not token:
            return found
