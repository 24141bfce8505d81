"""Tables of the test images for MLflow's views of artifacts and evaluations: single answers, and classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from components.shared.artifacts import Dataset
from components.shared.evaluation.measured import Measured
from components.shared.evaluation.predictions import TEST

# a browser draws them all at once
MOST_MISTAKES = 500


def mistakes_table(data: Dataset, before: np.ndarray, after: np.ndarray) -> pd.DataFrame:
    """The surest mistakes of the model that ships, in the order of the test images.

    Args:
        data: the dataset; its test set is open.
        before: probabilities of the baseline that is exported, shape (N, classes).
        after: those of the model that ships, likewise.

    Returns:
        A row for each of at most `MOST_MISTAKES` images: `file`, `actual`, `predicted`, `probability` (of what it
        predicted), `probability_of_actual`, `baseline` (what that predicted), and `row` (from 0, in test).
    """
    labels, names = data.labels(TEST), np.array(data.manifest.class_names)
    answers, sure = after.argmax(axis=1), after.max(axis=1)
    mistakes = np.flatnonzero(answers != labels)
    rows = np.sort(mistakes[np.argsort(-sure[mistakes], kind="stable")][:MOST_MISTAKES])
    return pd.DataFrame(
        {
            "file": data.files(TEST)["path"].to_numpy()[rows],
            "actual": names[labels[rows]],
            "predicted": names[answers[rows]],
            "probability": _shown(after[rows, answers[rows]]),
            "probability_of_actual": _shown(after[rows, labels[rows]]),
            "baseline": names[before[rows].argmax(axis=1)],
            "row": rows,
        }
    )


def _shown(probabilities: np.ndarray) -> np.ndarray:
    # as float32 a rounded number is written with more digits again
    return probabilities.astype(np.float64).round(4)


def classes_table(data: Dataset, measured: Measured, predicted: np.ndarray) -> pd.DataFrame:
    """What the models make of each class.

    Args:
        data: the dataset; its test set is open.
        measured: on test.
        predicted: the answers of the model that ships, int, shape (N,).

    Returns:
        A row for each class: `class`, `images`, `<model>` (the share that it gets right, mean over replicates,
        empty without images) and `most_mistaken_for` (by the model that ships, empty where all are right).
    """
    labels, names = data.labels(TEST), data.manifest.class_names
    wrong = [predicted[(labels == label) & (predicted != label)] for label in range(len(names))]
    taken_for = [names[np.bincount(answers).argmax()] if len(answers) else None for answers in wrong]
    images = np.bincount(labels, minlength=len(names))
    table = {"class": names, "images": images, **measured.recall, "most_mistaken_for": taken_for}
    return pd.DataFrame(table).round(4)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as `mlflow.log_table` does, which would add to one that is there when a call is sent twice."""
    table.to_json(path, orient="split", index=False)
