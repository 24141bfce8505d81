"""Pictures of a representation: which images it holds to be alike."""

from __future__ import annotations

import numpy as np

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
