"""Training curves of several models, read from their folders and put into one tidy file."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MEASURES = ("accuracy", "validation_accuracy", "loss")
PRETRAINING_PROBE = "pretraining probe"
# probe/ keeps the curve of the linear probe that was trained beside the encoder; there, accuracy has a prefix
_COLUMNS = {
    "accuracy": ("accuracy", "probe_accuracy"),
    "validation_accuracy": ("validation_accuracy", "validation_probe_accuracy", "probe_validation_accuracy"),
    "loss": ("loss",),
}


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
    """Read a `curves.csv` with a row an epoch (and seed); None if it is missing, empty or not such a table."""
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
