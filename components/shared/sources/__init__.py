"""Sources of images, found by the name in `data.source`.

A source is one module here, under its name, with two things: `open_source(data)`, which gives a `Source`, and
`PUBLISHED`: True if its images never change, as those of a published data set that is checked against its authors'
checksum; False if whoever runs the pipeline may change them. Modules without the two are what sources share.
"""

from __future__ import annotations

import importlib
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING

import numpy as np

from components.shared.errors import UserError, without_account

if TYPE_CHECKING:
    from components.shared.params.schema import DataParams
    from components.shared.sources.pixels import BadImageError, Picture

# How a folder or a Parquet file may call each split, in lower case.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "holdout": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "eval": "validation",
    "unlabelled": "unlabelled",
    "unlabeled": "unlabelled",
    "unsupervised": "unlabelled",
    "unsup": "unlabelled",
}
_ADDRESS = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")
_IS_SOURCE = re.compile(r"^PUBLISHED = ", re.MULTILINE)


class Source(AbstractContextManager["Source"]):
    """Raw images in up to four splits (`train`, `validation`, `test`, `unlabelled`).

    Opening a source checks all that can be checked without decoding its images. Use it in a `with` block.

    Attributes:
        location: where the images come from, for people to read.
        class_names: names in the order of the labels.
        splits: how the source calls the splits that it has, for people to read.
        others: files that are no images: path, and kind, such as its ending.
        bits: the range of 16-bit grey, one of `pixels.RANGES`; None: of each image what it needs. May be set later.
        channels: of its images, see `pixels.decode`; set by `open_source`.
    """

    location: str
    class_names: list[str]
    splits: Mapping[str, str] = MappingProxyType({})
    others: Sequence[tuple[str, str]] = ()
    bits: int | None = None
    channels: int = 3

    @abstractmethod
    def labels(self, split: str) -> np.ndarray:
        """Labels of a split: int64, shape (N,), −1 = unlabelled; empty where the source has no such split."""

    @abstractmethod
    def images(self, split: str) -> Iterator[Picture | BadImageError]:
        """Images of a split, one by one in the order of `labels`; of one that can't be read, why."""

    @abstractmethod
    def digest(self) -> str:
        """SHA-256 of the raw material."""

    def close(self) -> None:
        """Let go of open files."""
        return None

    def __exit__(self, *_: object) -> None:
        self.close()


def open_source(data: DataParams) -> Source:
    """Open the source that `data.source` names.

    Args:
        data: the data section of the parameters; `path` may be an address, which is fetched first.

    Raises:
        UserError: the material is missing, is not laid out as the source expects, or is not that of `data.digest`.
    """
    here = data
    if is_address(data.path):
        here = data.model_copy(update={"path": str(_module("remote").fetch(data))})
    source: Source = _module(data.source).open_source(here)
    source.channels = data.channels
    if here is not data:
        source.location = without_account(data.path)
    if data.digest is not None and (found := source.digest()) != data.digest:
        source.close()
        raise UserError(
            f"{source.location}: its SHA-256 is {found}, not data.digest = {data.digest}; find out what changed, "
            "or give the new one"
        )
    return source


def is_address(path: str) -> bool:
    """Whether `data.path` is an address such as https://…, not a path."""
    return _ADDRESS.match(path) is not None


@cache
def source_names() -> tuple[str, ...]:
    """Names of all sources, sorted. The modules are read, not imported, which for some takes seconds."""
    modules = Path(__file__).parent.glob("*.py")
    return tuple(sorted(path.stem for path in modules if _IS_SOURCE.search(path.read_text(encoding="utf-8"))))


def is_published(name: str) -> bool:
    """Whether the images of this source never change."""
    published: bool = _module(name).PUBLISHED
    return published


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name}")
