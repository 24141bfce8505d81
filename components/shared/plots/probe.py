"""Pictures of a representation: accuracy over the number of labels, and which images it holds to be alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from components.shared.artifacts import Dataset
from components.shared.plots.style import COLORS, MARKERS, make_figure


def draw_budgets(rows: Sequence[Mapping[str, float]]) -> Figure:
    """Accuracy of the linear probe over labels per class, with the range over seeds."""
    figure, axes = make_figure(5.5, 3.6)
    budgets = [row["labels_per_class"] for row in rows]
    accuracy, lowest, highest = (
        np.array([row[name] for row in rows]) for name in ("accuracy", "lowest", "highest")
    )
    # the mean of equal numbers can lie a rounding outside them
    reach = np.maximum(np.stack([accuracy - lowest, highest - accuracy]), 0)
    look = {"marker": MARKERS["probe"], "color": COLORS["probe"]}
    axes.errorbar(budgets, 100 * accuracy, yerr=100 * reach, capsize=3, **look)
    axes.set_xscale("log")
    axes.set_xticks(budgets, [f"{budget:g}" for budget in budgets])
    axes.minorticks_off()
    axes.set_xlabel("labels per class")
    axes.set_ylabel("test accuracy, %")
    axes.set_title("linear probe on frozen features")
    return figure


def nearest_rows(
    data: Dataset, features: Mapping[str, np.ndarray], queries: int = 8, neighbours: int = 7
) -> list[tuple[str, list[np.ndarray]]]:
    """Test images, spread over the classes, each with its nearest other test images by cosine similarity."""
    labels, images = data.labels("test"), data.images("test")
    unit = features["test"] / np.maximum(np.linalg.norm(features["test"], axis=1, keepdims=True), 1e-12)
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
