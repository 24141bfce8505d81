"""Small trees of image files for tests, as folders and archives."""

from __future__ import annotations

import io
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def picture(name: str, size: int | tuple[int, int] = 12) -> np.ndarray:
    """Random pixels that depend on the name alone: uint8, shape (height, width, 3)."""
    height, width = (size, size) if isinstance(size, int) else size
    return np.random.default_rng(zlib.crc32(name.encode())).integers(0, 256, (height, width, 3), np.uint8)


def encode(pixels: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    """An image file's content."""
    return saved(Image.fromarray(pixels), kind, **options)


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """The content of the file of an image of any mode."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def write_tree(root: Path, counts: Mapping[str, int], ending: str = ".png", size: int = 12) -> Path:
    """Write so many different images into each folder below `root`; PNG whatever the ending."""
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            name = f"{folder}/{index:04d}{ending}"
            (root / name).write_bytes(encode(picture(name, size)))
    return root


def pack_zip(folder: Path, path: Path, prefix: str = "") -> Path:
    """Put a folder into a zip archive, last file first."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*"), reverse=True):
            archive.write(file, prefix + str(file.relative_to(folder)))
    return path


def pack_tar(folder: Path, path: Path, mode: str, prefix: str = "./") -> Path:
    """Put a folder into a tar archive (`mode` as in tarfile, such as "w:gz"), last file first."""
    with tarfile.open(path, mode) as archive:
        for file in sorted(folder.rglob("*"), reverse=True):
            archive.add(file, prefix + str(file.relative_to(folder)), recursive=False)
    return path
