"""Slices of the test images: parts of which none may pay for the others' gain."""

from __future__ import annotations

from pathlib import PurePosixPath

import numpy as np

from components.shared.artifacts import Dataset
from components.shared.evaluation.evidence import Slice
from components.shared.evaluation.predictions import TEST

_CHUNK = 1024


def find_slices(data: Dataset) -> list[Slice]:
    """Classes, quarters by brightness and by original size, and source folders below those of the classes.

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
        *_folders(
            [
                _folder(path, data.manifest.class_names[label])
                for path, label in zip(files["path"], labels, strict=True)
            ]
        ),
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


def _folder(path: str, class_name: str) -> str:
    """The folder that an image comes from, below that of its class where there is one."""
    parts = PurePosixPath(path).parts[:-1]
    below = parts[parts.index(class_name) + 1 :] if class_name in parts else parts
    return "/".join(below)


def _folders(folders: list[str]) -> list[Slice]:
    names, number = np.unique(np.array(folders, dtype=str), return_inverse=True)
    if len(names) < 2:
        return []
    return [
        Slice("folder", str(name) or "no folder of its own", np.flatnonzero(number == index))
        for index, name in enumerate(names)
    ]
