"""Weighted nearest neighbours in feature space: how good a representation is before anything is trained on it."""

from __future__ import annotations

import numpy as np

from models.batches import check_labels


def knn_probabilities(
    features: np.ndarray,
    labels: np.ndarray,
    queries: np.ndarray,
    classes: int,
    neighbours: int = 200,
    temperature: float = 0.1,
    chunk: int = 1024,
    itself: np.ndarray | None = None,
) -> np.ndarray:
    """Votes of the most similar labelled images, each weighted by exp(cosine similarity / temperature).

    Args:
        features: labelled images' features, shape (N, D).
        labels: int64, shape (N,), in [0, classes).
        queries: features to classify, shape (M, D).
        classes: number of classes.
        neighbours: how many vote, ≥ 1; at most N do.
        temperature: > 0; smaller lets the nearest ones decide.
        chunk: queries handled at once, to bound memory.
        itself: of each query its row in `features`, int64, shape (M,), −1 where it is none of them: no image votes
            on itself. `neighbours` must then be < N.

    Returns:
        Float32, shape (M, classes); each row sums to 1.

    Raises:
        ValueError: temperature or neighbours is not > 0, there is no labelled image, or a label outside
            [0, classes).

    Source: Wu et al. 2018, arXiv:1805.01978, section 3.4.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, not {temperature}")
    if neighbours < 1:
        raise ValueError(f"neighbours must be ≥ 1, not {neighbours}")
    check_labels(labels, classes)
    bank = _unit(features)
    k = min(neighbours, len(bank))
    votes = np.zeros((len(queries), classes), "float32")
    for start in range(0, len(queries), chunk):
        similarities = _unit(queries[start : start + chunk]) @ bank.T
        if itself is not None:
            own = itself[start : start + chunk]
            similarities[np.flatnonzero(own >= 0), own[own >= 0]] = -np.inf
        nearest = np.argpartition(-similarities, k - 1, axis=1)[:, :k]
        chosen = np.take_along_axis(similarities, nearest, axis=1)
        # the largest weight is 1: cosine / 0.01 would leave float32
        weights = np.exp((chosen - chosen.max(axis=1, keepdims=True)) / temperature)
        rows = np.repeat(np.arange(len(chosen)), k)
        np.add.at(votes[start : start + chunk], (rows, labels[nearest].ravel()), weights.ravel())
    return votes / votes.sum(axis=1, keepdims=True)


def _unit(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, "float32")
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
