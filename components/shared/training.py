"""Bridges between training in `models` and what users see: progress lines, curves in MLflow and in CSV files."""

from __future__ import annotations

import csv
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from components.shared.artifacts import Dataset
from components.shared.errors import UserError
from components.shared.params import AugmentationParams
from components.shared.tracking import Run


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

    def write(self, path: Path) -> None:
        """Write all rows; a column that a row lacks stays empty."""
        columns = list(dict.fromkeys(name for row in self.rows for name in row)) or ["epoch"]
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


def start_backend() -> None:
    """Import Keras and its backend; TensorFlow then gives the same result from the same seed on this machine."""
    with _muted():
        import keras

        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            tf.config.experimental.enable_op_determinism()


@contextmanager
def _muted() -> Iterator[None]:
    """Hold back what a library writes to the error stream's descriptor; show it if the block fails.

    TensorFlow announces its processor features there before any log level of it applies.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(kept, 2)
            held.seek(0)
            os.write(2, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
