"""Training curves: kept while a model learns, and read back from the folders of several."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from components.shared.tracking.run import Run

MEASURES = ("accuracy", "validation_accuracy", "loss")
PRETRAINING_PROBE = "pretraining probe"
# probe/ keeps the curve of the linear probe that was trained beside the encoder; there, accuracy has a prefix
_COLUMNS = {
    "accuracy": ("accuracy", "probe_accuracy"),
    "validation_accuracy": ("validation_accuracy", "validation_probe_accuracy", "probe_validation_accuracy"),
    "loss": ("loss",),
}


class Curves:
    """Numbers of each epoch, kept for a CSV file and logged to MLflow as they come.

    Args:
        run: the step's run.
    """

    def __init__(self, run: Run):
        self.run = run
        self.rows: list[dict[str, Any]] = []

    def add(self, epoch: int, values: Mapping[str, float], log: bool = True, **labels: Any) -> None:
        """Keep one epoch (from 1); `labels` such as the seed stand in the CSV only."""
        numbers = {name: float(value) for name, value in values.items()}
        self.rows.append({"epoch": epoch, **labels, **numbers})
        if log:
            self.run.metrics(numbers, step=epoch)

    def write(self, path: Path, columns: Sequence[str] = ()) -> None:
        """Write all rows; a column that a row lacks stays empty, and `columns` are there even if all lack them."""
        named = [*(name for row in self.rows for name in row), *(columns if self.rows else ())]
        columns = list(dict.fromkeys(named)) or ["epoch"]
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)


@dataclass(frozen=True)
class Curve:
    """How one model learned.

    Attributes:
        model: which one.
        epochs: shape (E,), ascending.
        means: measure → mean over seeds, shape (E,); NaN where it was not measured.
        lows, highs: the smallest and the largest over seeds, likewise.
    """

    model: str
    epochs: np.ndarray
    means: dict[str, np.ndarray]
    lows: dict[str, np.ndarray]
    highs: dict[str, np.ndarray]

    def shown(self) -> str | None:
        """The accuracy to draw: on validation if it was measured, else in training; None if neither was."""
        for measure in ("validation_accuracy", "accuracy"):
            if np.isfinite(self.means[measure]).any():
                return measure
        return None


def read_curve(model: str, path: Path) -> Curve | None:
    """Read a `curves.csv` with a row per epoch (and seed); None if it is missing, empty or not such a table."""
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        at = np.array([float(row["epoch"]) for row in rows])
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError):
        return None
    if not len(at) or not np.isfinite(at).all():
        return None
    epochs = np.unique(at)
    curve = Curve(model, epochs, {}, {}, {})
    for measure in MEASURES:
        values = np.array([_value(row, _COLUMNS[measure]) for row in rows])
        groups = [values[(at == epoch) & np.isfinite(values)] for epoch in epochs]
        for summary, into in ((np.mean, curve.means), (np.min, curve.lows), (np.max, curve.highs)):
            into[measure] = np.array([summary(group) if len(group) else math.nan for group in groups])
    return curve


def write_curves(path: Path, curves: Sequence[Curve]) -> None:
    """Write the means as a tidy CSV: model, epoch, accuracy, validation_accuracy, loss; empty = not measured."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "epoch", *MEASURES])
        for curve in curves:
            for index, epoch in enumerate(curve.epochs):
                numbers = [curve.means[measure][index] for measure in MEASURES]
                writer.writerow([curve.model, f"{epoch:g}", *("" if np.isnan(n) else f"{n:.6g}" for n in numbers)])


def _value(row: dict[str, str], names: tuple[str, ...]) -> float:
    for name in names:
        if row.get(name):
            try:
                return float(row[name])
            except ValueError:
                return math.nan
    return math.nan
