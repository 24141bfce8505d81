"""Addresses of models in MLflow: `models:/…`, written and read."""

from __future__ import annotations

import re
from dataclasses import dataclass

_FORM = re.compile(r"models:/+(?:(?P<model_id>m-[^/@]+)|(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+)))")


@dataclass(frozen=True)
class ModelUri:
    """The parts of an address: a name with a version or an alias, or else the id of a logged model."""

    name: str | None
    version: str | None
    alias: str | None
    model_id: str | None


def version_uri(name: str, number: str) -> str:
    """Address of a version of a registered model."""
    return f"models:/{name}/{number}"


def alias_uri(name: str, alias: str) -> str:
    """Address of whichever version carries the alias."""
    return f"models:/{name}@{alias}"


def parse_uri(uri: str) -> ModelUri | None:
    """The parts of an address, None where it is none of these forms."""
    found = _FORM.fullmatch(uri)
    return None if found is None else ModelUri(**found.groupdict())
