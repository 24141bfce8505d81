"""Ending a pretraining early, where a figure on validation images no longer improves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from components.shared.artifacts import Dataset
from components.shared.errors import UserError
from components.shared.params.schema import MonitorParams

# of these, less is better
LOWER = ("validation_probe_loss", "validation_view_rank")


def best_epoch(rows: Sequence[Mapping[str, Any]], figure: str) -> tuple[int, int]:
    """The first epoch at which a figure was best, and the last one at which it was measured; zeros where at none.

    Args:
        rows: of the curves, each with its `epoch`; the figure may be missing from some.
        figure: its name; what is no number is never best.
    """
    sign = -1 if figure in LOWER else 1
    measured = {row["epoch"]: sign * row[figure] for row in rows if figure in row}
    finite = {epoch: value for epoch, value in measured.items() if math.isfinite(value)}
    return max(finite, key=finite.__getitem__, default=0), max(measured, default=0)


def is_over(rows: Sequence[Mapping[str, Any]], options: MonitorParams) -> bool:
    """Whether the training ends after the last row: `stop_by` has not improved for `stop_after` epochs.

    It depends on the curves alone, so that a training that goes on from a kept state ends where one that was never
    interrupted does.
    """
    if options.stop_by is None:
        return False
    best, last = best_epoch(rows, options.stop_by)
    return last - best >= options.stop_after


def require_figure(options: MonitorParams, data: Dataset, views: int) -> None:
    """Check that what is to end the training will be measured.

    Args:
        options: name it.
        data: the dataset.
        views: of each image, of the method.

    Raises:
        UserError: it will not.
    """
    name, counts = options.stop_by, data.manifest.counts
    if name is None:
        return
    of_views = name.startswith("validation_view_")
    fewest = 2 if of_views else 1
    missing = ""
    if counts.get("validation", 0) < fewest:
        missing = f"the dataset has {counts.get('validation', 0)} validation images"
    elif name == "knn_accuracy" and not counts.get("train", 0):
        missing = "the dataset has no labelled training images"
    elif of_views and views < 2:
        missing = "the method has one view of each image"
    if missing:
        raise UserError(f"monitor.stop_by = {name}: is never measured: {missing}; set it to null")
