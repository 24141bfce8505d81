"""The first page of the Data Docs: what was found, in which files, and what the images are like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from components.shared.artifacts import Dataset
from components.shared.checks.checker import Checker
from components.shared.checks.expectations import Outcome, Table
from components.shared.checks.findings import SHOWN, Finding, Pictures, other_tables, write_finding
from components.shared.evaluation.wording import percent
from components.shared.templates import render

TEMPLATES = Path(__file__).with_name("templates")
# what ingest tells of besides: name of the table → title
_TITLES = {"near_copies": "Copies and near-copies", "left_out": "Files that were left out"}
# … and what the page shows of its columns: title; the table beside the page has all
_SHOWN_COLUMNS = {
    "near_copies": {
        "path": "file",
        "split": "split",
        "twin_path": "shows the same as",
        "twin_split": "of split",
        "kind": "how",
        "labels_differ": "labels differ",
        "action": "what became of it",
    },
    "left_out": {"path": "file", "split": "split", "class_name": "class", "kind": "what it is", "reason": "why"},
}
_SPLIT_COLUMNS = {
    "split": "split",
    "images": "images",
    "mean": "brightness",
    "deviation": "± between images",
    "contrast": "contrast",
    "width": "width",
    "height": "height",
    "smallest": "smallest side",
    "upscaled_fraction": "enlarged",
    "cropped": "cut off",
    "repeated_fraction": "repeated",
    "blank_fraction": "blank",
    "imbalance": "largest class / smallest",
}
_CLASS_COLUMNS = {
    "split": "split",
    "class_name": "class",
    "images": "images",
    "mean": "brightness",
    "deviation": "± between images",
    "contrast": "contrast",
    "width": "width",
    "height": "height",
    "upscaled": "enlarged",
    "cropped": "cut off",
    "repeated": "repeated",
}


def write_page(
    docs: Path,
    data: Dataset,
    checker: Checker,
    outcomes: Sequence[Outcome],
    findings: Sequence[Finding],
    tables: Mapping[Table, pd.DataFrame],
    drift: Sequence[str],
) -> None:
    """Write `index.html`, and the files of each finding as `findings/<expectation>.csv`.

    Args:
        docs: folder of the Data Docs, written.
        data: the dataset.
        checker: that wrote them.
        outcomes: of all expectations.
        findings: of those that do not hold.
        tables: that were checked.
        drift: what changed since the last accepted dataset, or why that is not known; lines.
    """
    folder = docs / "findings"
    folder.mkdir()
    pictures = Pictures(data, tables["images"]) if tables else None
    sections = []
    # critical ones first
    for finding in sorted(findings, key=lambda found: found.outcome.expectation.severity):
        what = finding.outcome.expectation
        if len(finding.images):
            write_finding(folder / f"{what.name}.csv", finding.images)
        shown = pictures.finding(finding) if pictures else []
        sections.append({"what": what, "line": finding.line(), "count": len(finding.images), "shown": shown})
    others = []
    for name, table in other_tables(data.folder).items():
        table.to_csv(folder / f"{name}.csv", index=False)
        columns = {column: column for column in table.columns}
        if set(_SHOWN_COLUMNS.get(name, columns)) <= set(columns):
            columns = _SHOWN_COLUMNS.get(name, columns)
        cells = table.head(SHOWN)[list(columns)].apply(_cells)
        others.append(
            {
                "name": name,
                "title": _TITLES.get(name, name.replace("_", " ").capitalize()),
                "count": len(table),
                "columns": list(columns.values()),
                "rows": cells.to_numpy().tolist(),
                "shown": pictures.table(table) if pictures else [],
            }
        )
    page = render(
        TEMPLATES / "index.html.j2",
        manifest=data.manifest,
        outcomes=outcomes,
        pages={
            name: checker.page_of(name)
            for name in ("arrays", "images", "splits", "classes", "near_copies", "drift")
        },
        sections=sections,
        others=others,
        drift=drift,
        shown=SHOWN,
        splits=_numbers(tables["splits"], _SPLIT_COLUMNS) if tables else None,
        classes=_numbers(tables["classes"], _CLASS_COLUMNS) if tables else None,
        worst=pictures.worst() if pictures else {},
    )
    (docs / "index.html").write_text(page, encoding="utf-8")


def _numbers(table: pd.DataFrame, columns: Mapping[str, str]) -> dict[str, list[Any]]:
    """A table for people: titles, and rows of text."""
    rows = [
        [percent(row[name]) if _is_share(name) else _text(row[name]) for name in columns]
        for row in table.to_dict("records")
    ]
    return {"titles": list(columns.values()), "rows": rows}


def _cells(values: pd.Series) -> pd.Series:
    """A column as text."""
    return values.map({True: "yes", False: "no"}) if values.dtype == bool else values.astype(str)


def _is_share(name: str) -> bool:
    return name.endswith("_fraction") or name == "cropped"


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.1f}".removesuffix(".0")
    return f"{value:,}" if isinstance(value, int) else str(value)
