"""`validation/verdict.json`: what holds of a dataset and what does not, as later steps read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from components.shared.artifacts import Result, read_json, read_record
from components.shared.errors import UserError

VERDICT = "verdict.json"


class Found(BaseModel):
    """An expectation that does not hold: `line` is what `validate` prints of it.

    `images` counts those that are to blame, 0 where no single ones are, and `files` names the first of them.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    expectation: str
    severity: Literal["critical", "warning"]
    meaning: str
    line: str
    images: int
    files: list[str]


class Verdict(BaseModel):
    """What became of all expectations; `passed` where none fails that is critical."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    passed: bool
    expectations: list[dict[str, Any]]
    findings: list[Found]

    def in_words(self) -> str:
        """How many expectations of a dataset that passed hold."""
        count = len(self.expectations)
        return f"{count - len(self.findings)} of {count} expectations hold, none critical fails"


def read_verdict(folder: Path, dataset_digest: str) -> Verdict:
    """Read what `validate` found in a dataset.

    Args:
        folder: of `validate`.
        dataset_digest: of the dataset that it must be about.

    Raises:
        UserError: a file is missing or damaged, it is about another dataset, or the dataset did not pass.
    """
    folder = Path(folder)
    digest, verdict = read_record(folder, Result).dataset_digest, read_json(folder / VERDICT, Verdict)
    again = f"run the step that writes {folder.name}/ again"
    if digest != dataset_digest:
        raise UserError(
            f"{folder}: about another dataset (digest {digest[:12]}, not {dataset_digest[:12]}); {again}"
        )
    if not verdict.passed:
        raise UserError(f"{folder / VERDICT}: passed = false: a critical expectation fails; {again}")
    return verdict
