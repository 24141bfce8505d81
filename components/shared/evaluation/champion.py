"""`champion/champion.json`: the models that reviewers accepted, with which the gate compares the next one."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from components.shared.artifacts import CHAMPION_RECORD, read_json


class Accepted(BaseModel):
    """A version that reviewers approved, and nobody decided against since.

    `uri` is the model's address in the registry, `artifact_digest` that of its file, None where its tags do not
    tell. `stored`: the artifact store holds its files; a verdict without them is not kept once they are back.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    version: str
    artifact_digest: str | None = None
    uri: str
    stored: bool = True


class Champion(BaseModel):
    """What the registry said of the champion, and nothing that differs where it says the same.

    `model` is the registered model whose alias `champion` counts; `version` and `artifact_digest` are the
    champion's, None where it has none. `accepted` are the champion, first, and those before it, latest first.
    `unavailable` says why the registry could not be asked.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    schema_version: Literal[1] = 1
    model: str
    version: str | None = None
    artifact_digest: str | None = None
    accepted: list[Accepted] = []
    unavailable: str | None = None


def write_champion(folder: Path, champion: Champion) -> None:
    """Write the record into a folder that is there."""
    (folder / CHAMPION_RECORD).write_text(champion.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_champion(folder: Path) -> Champion:
    """Read what the step `champion` wrote.

    Raises:
        UserError: it is missing or damaged.
    """
    return read_json(Path(folder) / CHAMPION_RECORD, Champion)
