"""`champion/champion.json`: the model that reviewers accepted last, as the gate compares the next one with it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, FiniteFloat

from components.shared.artifacts import CHAMPION_RECORD, read_json


class Champion(BaseModel):
    """What the registry said of the champion, and nothing that differs where it says the same.

    `model` is the registered model whose alias `champion` counts; `version` is None where it has no champion.
    `test_digest`, `test_accuracy` and `artifact_digest` are None where the version's tags do not tell.
    `unavailable` says why the registry could not be asked.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    schema_version: Literal[1] = 1
    model: str
    version: str | None = None
    test_digest: str | None = None
    test_accuracy: FiniteFloat | None = None
    artifact_digest: str | None = None
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
