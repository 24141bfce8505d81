"""Which files a finding is about: all of them in a table, the first ones as pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from components.shared.artifacts import FILES, Dataset
from components.shared.checks.expectations import Outcome, Table
from components.shared.checks.image_table import read_images
from components.shared.checks.verdict import Found
from components.shared.errors import UserError, first_line
from components.shared.plots.grids import in_page

SHOWN = 20
_TWINS_SHOWN, _TWINS_NAMED, _SIDE = 3, 10, 96
# files that the verdict names of a finding
_NAMED = 3
# what the worst images are worst in: column, whether the smallest are, title
_WORST = (
    ("std", True, "least contrast"),
    ("mean", True, "darkest"),
    ("mean", False, "brightest"),
    ("cropped", False, "most cut off by the centre square"),
    ("shorter", True, "smallest originals"),
)


@dataclass(frozen=True)
class Shown:
    """An image on a page: its address, where it is from, and the same or other images beside it."""

    address: str
    caption: str
    beside: list[Shown] = field(default_factory=list)


@dataclass(frozen=True)
class Finding:
    """An expectation that does not hold, and the images that are to blame.

    Attributes:
        outcome: of the expectation.
        images: rows of the table of images, and `same_as`: where else an image is found.
    """

    outcome: Outcome
    images: pd.DataFrame

    def line(self) -> str:
        """In one line, with a file where the outcome itself names none, or a copy."""
        line, table = self.outcome.line(), self.outcome.expectation.table
        if self.images.empty or table not in ("images", "splits"):
            return line
        first = self.images.iloc[0]
        same = f"the same as {first['same_as']}" if first["same_as"] else ""
        if table == "images":
            return f"{line}; {first['path']} is {same}" if same else line
        return f"{line}; such as {first['path']}" + (f", {same}" if same else "")

    def found(self) -> Found:
        """What the verdict says of it."""
        what = self.outcome.expectation
        files = list(self.images["path"].head(_NAMED)) if len(self.images) else []
        return Found(
            expectation=what.name,
            severity=what.severity,
            meaning=what.meaning,
            line=self.line(),
            images=len(self.images),
            files=files,
        )


def find_images(outcome: Outcome, tables: Mapping[Table, pd.DataFrame]) -> Finding:
    """The images that an outcome is about; none where no single one is to blame."""
    images, what = tables.get("images", pd.DataFrame()), outcome.expectation
    if what.table == "images":
        found = images.loc[outcome.rows.index]
    elif what.table == "splits" and what.images:
        found = images[images["split"].isin(outcome.rows["split"]) & images[what.images].astype(bool)]
    elif what.table == "classes":
        keys = ["split", "label"]
        found = images[pd.MultiIndex.from_frame(images[keys]).isin(pd.MultiIndex.from_frame(outcome.rows[keys]))]
    elif what.table == "near_copies":
        found = images[images["path"].isin([*outcome.rows["path"], *outcome.rows["twin_path"]])]
    else:
        found = images.iloc[:0]
    return Finding(outcome, found.assign(same_as=_same_as(found, images)))


def write_finding(path: Path, images: pd.DataFrame) -> None:
    """All images of a finding as CSV: what is known of each."""
    images.drop(columns="digest").to_csv(path, index=False)


def other_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """What else `ingest` tells of files, such as those that it left out: name → table, with a column `…path`.

    Raises:
        UserError: one can't be read.
    """
    found = {}
    for file in sorted(folder.glob("*.parquet")):
        if file.name != FILES:
            try:
                table = pd.read_parquet(file)
            except (OSError, ValueError) as error:
                raise UserError(f"{file}: can't be read ({first_line(error)}); run the ingest step again") from None
            if _paths(table) and len(table):
                found[file.stem] = table
    return found


class Pictures:
    """Draws images of a dataset for a page.

    Args:
        data: the dataset.
        images: its table of images.
    """

    def __init__(self, data: Dataset, images: pd.DataFrame):
        self._data, self._images = data, images

    def finding(self, finding: Finding) -> list[Shown]:
        """The first images of a finding, each with its copies beside it."""
        return [
            self._show(row, [self._show(twin) for twin in self._twins(row) if row["same_as"]])
            for row in finding.images.head(SHOWN).to_dict("records")
        ]

    def table(self, table: pd.DataFrame) -> list[Shown]:
        """The first rows of a table with columns of paths, as far as the dataset has their images."""
        shown = []
        by_path = self._images.drop_duplicates("path").set_index("path", drop=False)
        for row in table.head(SHOWN).to_dict("records"):
            there = [row[name] for name in _paths(table) if row[name] in by_path.index]
            pictures = [self._show(by_path.loc[path].to_dict()) for path in there]
            if pictures:
                shown.append(Shown(pictures[0].address, pictures[0].caption, pictures[1:]))
        return shown

    def worst(self, count: int = 10) -> dict[str, list[Shown]]:
        """In what → the images that are worst in it."""
        images = self._images.assign(shorter=self._images[["width", "height"]].min(axis=1))
        found = {}
        for column, ascending, title in _WORST:
            # all alike: none is worse than another
            if images[column].nunique() > 1:
                rows = images.sort_values(column, ascending=ascending, kind="stable").head(count)
                found[title] = [self._show(row) for row in rows.to_dict("records")]
        return found

    def _twins(self, row: Mapping[Any, Any]) -> list[dict[Any, Any]]:
        alike = self._images[(self._images["digest"] == row["digest"]) & ~self._images["blank"]]
        own = (alike["split"] == row["split"]) & (alike["row"] == row["row"])
        return alike[~own].head(_TWINS_SHOWN).to_dict("records")

    def _show(self, row: Mapping[Any, Any], beside: list[Shown] | None = None) -> Shown:
        pixels = read_images(self._data, row["split"], [row["row"]])[0]
        label = f", {row['class_name']}" if row["class_name"] else ""
        caption = f"{row['path']} ({row['split']}, image {row['row']}{label}, {row['width']}×{row['height']})"
        return Shown(in_page(pixels, _SIDE), caption, beside or [])


def _same_as(found: pd.DataFrame, images: pd.DataFrame) -> list[str]:
    """Where else each image is found: split and path, of the first few."""
    if found.empty:
        return []
    alike = images[images["digest"].isin(found["digest"]) & ~images["blank"]]
    places = dict(list(alike.groupby("digest")))
    said = []
    for row in found.to_dict("records"):
        group = places.get(row["digest"])
        others = []
        if group is not None and len(group) > 1:
            group = group.head(_TWINS_NAMED + 1)
            others = [
                f"{there['split']}: {there['path']}" + (f" as {there['class_name']}" if there["class_name"] else "")
                for there in group[["split", "row", "path", "class_name"]].to_dict("records")
                if (there["split"], there["row"]) != (row["split"], row["row"])
            ][:_TWINS_NAMED]
            left = len(places[row["digest"]]) - 1 - len(others)
            others += [f"{left:,} more"] * (left > 0)
        said.append("; ".join(others))
    return said


def _paths(table: pd.DataFrame) -> list[str]:
    return [str(name) for name in table.columns if str(name).endswith("path")]
