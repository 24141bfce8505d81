"""Training curves: kept while a model learns, and read back from the folders of several."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from components.shared.tracking.run import Run

# probe/ keeps the curve of the linear probe that was trained beside the encoder; there, names have a prefix
_COLUMNS = {
    "accuracy": ("accuracy", "probe_accuracy"),
    "validation_accuracy": ("validation_accuracy", "validation_probe_accuracy", "probe_validation_accuracy"),
    "loss": ("probe_loss", "loss"),
    "validation_loss": ("validation_loss", "validation_probe_loss"),
}


class Curves:
    """Numbers of each epoch, kept for a CSV file and logged as they come.

    Args:
        run: the step's run.

    Raises:
        UserError: W&B is asked for, and does not take the run.
    """

    def __init__(self, run: Run):
        self.run = run
        run.begin_curves()
        self.rows: list[dict[str, Any]] = []

    def add(self, epoch: int, values: Mapping[str, float], **labels: Any) -> None:
        """Keep and log one epoch (from 1); `labels` such as the seed stand in the CSV only."""
        numbers = {name: float(value) for name, value in values.items()}
        self.rows.append({"epoch": epoch, **labels, **numbers})
        self.log(epoch, numbers)

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Log numbers of an epoch that the CSV file does not hold, in the sections of the pages that draw them."""
        self.run.curve({_sectioned(name): value for name, value in values.items()}, epoch)

    def write(self, path: Path, columns: Sequence[str] = ()) -> None:
        """Write all rows; a column that a row lacks stays empty, and `columns` are there even if all lack them."""
        named = [*(name for row in self.rows for name in row), *(columns if self.rows else ())]
        columns = list(dict.fromkeys(named)) or ["epoch"]
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)


def _sectioned(name: str) -> str:
    """`train/…`, `validation/…` or `embedding/…`, as MLflow's page and TensorBoard group curves."""
    if name.startswith(("validation_", "embedding_")):
        return name.replace("_", "/", 1)
    # what else is measured with validation images alone
    return f"validation/{name}" if name == "knn_accuracy" else f"train/{name}"


@dataclass(frozen=True)
class Curve:
    """How one model learned.

    Attributes:
        model: which one.
        means: a row per epoch, ascending, and a column per measure: mean over seeds; NaN where it was not measured.
        lows, highs: the smallest and the largest over seeds, likewise.
        searched: what was measured on validation was so in the search, in the same training on fewer images.
    """

    model: str
    means: pd.DataFrame
    lows: pd.DataFrame
    highs: pd.DataFrame
    searched: bool = False

    def measure_to_draw(self, kind: str = "accuracy") -> str | None:
        """The accuracy or loss to draw: on validation if it was measured, else in training; None if neither."""
        known = (name for name in (f"validation_{kind}", kind) if name in self.means)
        return next((name for name in known if self.means[name].notna().any()), None)


def read_curve(model: str, path: Path, columns: Mapping[str, Sequence[str]] = _COLUMNS) -> Curve | None:
    """Read a `curves.csv` with a row per epoch (and seed); None if it is missing, empty or not such a table.

    Args:
        model: whose curves they are.
        path: the file.
        columns: measure → names by which it may stand there, of which the first counts.
    """
    try:
        text = pd.read_csv(path, index_col=False, float_precision="round_trip")
    except (OSError, ValueError):
        return None
    rows = text.apply(pd.to_numeric, errors="coerce").replace([math.inf, -math.inf], math.nan)
    if rows.empty or "epoch" not in rows or rows["epoch"].isna().any():
        return None
    measured = {
        measure: next((rows[name] for name in names if name in rows), math.nan)
        for measure, names in columns.items()
    }
    epochs = pd.DataFrame({"epoch": rows["epoch"], **measured}).groupby("epoch")
    return Curve(model, epochs.mean(), epochs.min(), epochs.max())


def with_search(curve: Curve, path: Path) -> Curve:
    """A curve without a measure on validation, as of trainings on all labels, with the search's in their place.

    Args:
        curve: of replicates.
        path: the search's, of the same recipe; where it is missing or no such table, the curve stays as it is.
    """
    drawn = (curve.measure_to_draw(kind) or "" for kind in ("accuracy", "loss"))
    found = read_curve(curve.model, path)
    if found is None or any(name.startswith("validation_") for name in drawn):
        return curve
    measured = [name for name in found.means if found.means[name].notna().any()]
    means, lows, highs = (
        own.drop(columns=measured).join(other[measured], how="outer")
        for own, other in ((curve.means, found.means), (curve.lows, found.lows), (curve.highs, found.highs))
    )
    return Curve(curve.model, means, lows, highs, searched=True)


def write_curves(path: Path, curves: Sequence[Curve]) -> None:
    """Write the means as a tidy CSV: model, epoch, and a column per measure; empty = not measured."""
    columns = ["model", "epoch", *_COLUMNS]
    tables = [curve.means.reset_index().assign(model=curve.model) for curve in curves]
    table = pd.concat(tables) if tables else pd.DataFrame(columns=columns)
    table.to_csv(path, columns=columns, index=False, float_format="%.6g")
