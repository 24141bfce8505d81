"""Bridges between training in `models` and what users see: progress lines, curves in MLflow and in CSV files."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.shared.artifacts import Dataset
from components.shared.errors import UserError
from components.shared.params.methods import AugmentationParams
from components.shared.params.schema import EncoderParams
from components.shared.tracking.run import Run


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


def labelled(data: Dataset, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (memory-mapped) and labels of a split in which each image must have a label.

    Raises:
        UserError: the split is empty, or a label is no class.
    """
    from models.batches import check_labels

    labels = data.labels(split)
    try:
        check_labels(labels, data.classes)
    except ValueError as error:
        raise UserError(f"{data.folder / split}.labels.npy: {error}; run the ingest step again") from None
    return data.images(split), labels


def augmentation(params: AugmentationParams) -> Any:
    """The parameters as a `models.augmentation.Augmentation`."""
    from models.augmentation import Augmentation

    return Augmentation(**dict(params))


def network(params: EncoderParams, data: Dataset) -> dict[str, Any]:
    """Arguments of `models.encoders.build` for the images of a dataset.

    The statistics, where the parameters ask for them, are those of all images that pretraining sees, so that the
    baseline and the fine-tuned network see the same input as the pretrained one.
    """
    statistics = None
    if params.normalization == "statistics":
        from models.encoders.normalization import pixel_statistics

        statistics = pixel_statistics([data.images(split) for split in ("unlabelled", "train")])
    return {**dict(params), "image_size": data.manifest.image_size, "statistics": statistics}
