"""Slices of the test images: parts of which none may pay for the others' gain."""

from __future__ import annotations

from pathlib import PurePosixPath

import numpy as np

from components.shared.artifacts import Dataset
from components.shared.evaluation.evidence import Slice
from components.shared.evaluation.predictions import TEST

_CHUNK = 1024


def find_slices(data: Dataset) -> list[Slice]:
    """Classes, quarters by brightness and by original size, and source folders other than classes.

    Quarters are cut at the quartiles, and equal values stay together: where all images are of one size there are no
    slices of it.

    Raises:
        UserError: the dataset is damaged.
    """
    labels, files = data.labels(TEST), data.files(TEST)
    classes = [
        Slice("class", name, np.flatnonzero(labels == label))
        for label, name in enumerate(data.manifest.class_names)
    ]
    pixels = files["width"].to_numpy() * files["height"].to_numpy()
    return [
        *classes,
        *_quarters("brightness", ("darkest", "darker", "brighter", "brightest"), _brightness(data.images(TEST))),
        *_quarters("size", ("smallest", "smaller", "larger", "largest"), pixels),
        *_folders([str(PurePosixPath(path).parent) for path in files["path"]], classes),
    ]


def _brightness(images: np.ndarray) -> np.ndarray:
    """Mean over pixels and channels of each image, shape (N,); the images stay on disk."""
    starts = range(0, len(images), _CHUNK)
    means = [images[start : start + _CHUNK].mean(axis=(1, 2, 3), dtype=np.float64) for start in starts]
    return np.concatenate(means) if means else np.zeros(0)


def _quarters(kind: str, names: tuple[str, ...], values: np.ndarray) -> list[Slice]:
    if len(np.unique(values)) < 2:
        return []
    cuts = np.quantile(values, [0.25, 0.5, 0.75])
    quarter = np.searchsorted(cuts, values, side="left")
    members = [(f"{name} quarter", np.flatnonzero(quarter == number)) for number, name in enumerate(names)]
    return [Slice(kind, name, images) for name, images in members if len(images)]


def _folders(folders: list[str], classes: list[Slice]) -> list[Slice]:
    of_classes = {part.images.tobytes() for part in classes}
    names, number = np.unique(np.array(folders, dtype=str), return_inverse=True)
    members = [(str(name), np.flatnonzero(number == index)) for index, name in enumerate(names)]
    if len(members) < 2:
        return []
    return [Slice("folder", name, images) for name, images in members if images.tobytes() not in of_classes]
