"""Pictures of a representation: which images it holds to be alike."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from components.shared.artifacts import Dataset


def nearest_rows(
    data: Dataset, split: str, features: np.ndarray, queries: int = 8, neighbours: int = 7
) -> list[tuple[str, list[np.ndarray]]]:
    """Images of a split, spread over the classes, each with its nearest others of it by cosine similarity.

    Args:
        data: the dataset.
        split: whose images.
        features: theirs, shape (N, D).
        queries: at most so many classes.
        neighbours: at most so many of each.
    """
    labels, images = data.labels(split), data.images(split)
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    rows = []
    for label in range(min(queries, data.classes)):
        own = np.flatnonzero(labels == label)
        if not len(own):
            continue
        similarities = unit @ unit[own[0]]
        similarities[own[0]] = -np.inf
        # the image itself comes last and is no neighbour
        nearest = np.argsort(-similarities)[:-1][:neighbours]
        rows.append((data.manifest.class_names[label], [images[own[0]], *(images[index] for index in nearest)]))
    return rows


def suspect_rows(
    data: Dataset,
    table: pd.DataFrame,
    features: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
    rows: int,
    neighbours: int = 5,
) -> list[tuple[str, list[np.ndarray]]]:
    """Images whose labels may be wrong, each with the nearest training images of the label that others give it.

    Args:
        data: the dataset.
        table: the suspects: split, row, label and neighbours_label (names).
        features: of train and validation, shape (N, D).
        labels: likewise.
        rows: at most so many suspects.
        neighbours: at most so many of each.
    """
    drawn = []
    for split, row, label, other in table[["split", "row", "label", "neighbours_label"]].head(rows).to_numpy():
        own = np.flatnonzero(labels["train"] == data.manifest.class_names.index(other))
        bank = features["train"][own]
        unit = bank / np.maximum(np.linalg.norm(bank, axis=1, keepdims=True), 1e-12)
        nearest = own[np.argsort(-(unit @ features[split][row]), kind="stable")[:neighbours]]
        drawn.append((f"{label} → {other}", [data.images(split)[row], *(data.images("train")[i] for i in nearest)]))
    return drawn
