"""`champion/champion.json`: the model that reviewers accepted last, as the gate compares the next one with it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from components.shared.artifacts import CHAMPION_RECORD
from components.shared.errors import UserError


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
    path = Path(folder) / CHAMPION_RECORD
    try:
        return Champion.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: missing; run the champion step first (`dvc repro champion`)") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "content"
        raise UserError(f"{path}: {field}: {first['msg'].lower()}; run the champion step again") from None
