"""Sources of images, found by the name in `data.source`.

A source is one module here with a function `open_source(data)`, and one entry in `MODULES`.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from components.shared.params.schema import DataParams

MODULES = {"folder": "folder", "parquet": "parquet", "cifar10": "tfds", "stl10": "tfds"}

# How a folder or a Parquet file may call each split, in lower case.
SPLIT_NAMES = {
    "train": "train",
    "test": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "unlabelled": "unlabelled",
    "unlabeled": "unlabelled",
    "unsupervised": "unlabelled",
}


class Source(ABC):
    """Raw images in up to four splits (`train`, `validation`, `test`, `unlabelled`).

    Opening a source checks all that can be checked without decoding its images. Use it in a `with` block.

    Attributes:
        location: where the images come from, for people to read.
        class_names: names in the order of the labels.
    """

    location: str
    class_names: list[str]

    @abstractmethod
    def labels(self, split: str) -> np.ndarray:
        """Labels of a split: int64, shape (N,), −1 = unlabelled; empty where the source has no such split."""

    @abstractmethod
    def images(self, split: str) -> Iterator[np.ndarray]:
        """Images of a split, one by one in the order of `labels`: uint8, shape (size, size, 3), RGB.

        Raises:
            UserError: an image can't be read.
        """

    @abstractmethod
    def digest(self) -> str:
        """SHA-256 of the raw material."""

    def close(self) -> None:
        """Let go of open files."""
        return None

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_source(data: DataParams) -> Source:
    """Open the source that `data.source` names.

    Args:
        data: the data section of the parameters; `path`, `image_size` and `source` are used.

    Raises:
        UserError: the material is missing or is not laid out as the source expects.
    """
    module = importlib.import_module(f"{__name__}.{MODULES[data.source]}")
    source: Source = module.open_source(data)
    return source
