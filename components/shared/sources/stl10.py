"""STL-10: 100,000 unlabelled and 5,000 + 8,000 labelled images of 10 classes, 96×96 (Coates et al. 2011).

`data.fold` keeps the labels of one of the ten folds of 1,000 training images that its authors drew; the others
count as unlabelled.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

from components.shared.artifacts import UNLABELLED
from components.shared.errors import UserError
from components.shared.params.schema import DataParams
from components.shared.sources.tfds import TensorFlowDataset

PUBLISHED = True
IMAGES, FOLDS = "stl10_binary/train_X.bin", "stl10_binary/fold_indices.txt"
SIDE = 96
IMAGE_BYTES = 3 * SIDE**2


def open_source(data: DataParams) -> Stl10:
    """Prepare the data set if it is not yet; `data.path` may hold stl10_binary.tar.gz."""
    return Stl10(Path(data.path), data.image_size, data.fold)


class Stl10(TensorFlowDataset):
    """STL-10.

    Args:
        archives: folder where stl10_binary.tar.gz may have been put by hand.
        image_size: height and width to resize to, in pixels.
        fold: whose images alone keep their labels, 0 to 9, or None for all.

    Raises:
        UserError: as of `TensorFlowDataset`, or the archive, which holds the folds, is gone.
    """

    def __init__(self, archives: Path, image_size: int, fold: int | None):
        super().__init__("stl10", archives, image_size)
        if fold is not None:
            own, labels = self._labels["train"]
            self._labels["train"] = own, np.where(self._in_fold(fold), labels, UNLABELLED)

    def _in_fold(self, fold: int) -> np.ndarray:
        """Which images of train are in a fold: bool, shape (N,).

        TensorFlow Datasets shuffles them and keeps no numbers, so each is found again by its pixels.
        """
        digests, folds = _read_archive(self._archive())
        if fold >= len(folds):
            raise UserError(f"data.fold = {fold}: {FOLDS} has {len(folds)} folds, counted from 0")
        members, numbers = set(folds[fold]), defaultdict(list)
        for number, digest in enumerate(digests):
            numbers[digest].append(number)
        # of equal images each is found once
        return np.array([numbers[_digest(file.read())].pop() in members for file in self._files("train")], bool)


def _digest(content: bytes) -> bytes:
    """Of the pixels of a file, as the array (height, width, 3)."""
    return hashlib.sha256(np.asarray(Image.open(io.BytesIO(content))).tobytes()).digest()


def _read_archive(path: Path) -> tuple[list[bytes], list[list[int]]]:
    """SHA-256 of each training image's pixels, as the array (height, width, 3), and the numbers of each fold's."""
    digests: list[bytes] = []
    folds: list[list[int]] = []
    try:
        with tarfile.open(path, "r|*") as archive:
            for entry in archive:
                file = archive.extractfile(entry) if entry.name in (IMAGES, FOLDS) else None
                if file is None:
                    continue
                if entry.name == FOLDS:
                    folds = [[int(number) for number in line.split()] for line in file.read().splitlines() if line]
                while entry.name == IMAGES and (content := file.read(IMAGE_BYTES)):
                    # colour by colour, and each of them column by column
                    image = np.frombuffer(content, np.uint8).reshape(3, SIDE, SIDE).transpose(2, 1, 0)
                    digests.append(hashlib.sha256(image.tobytes()).digest())
                if digests and folds:
                    return digests, folds
    except (OSError, EOFError, ValueError, tarfile.TarError) as error:
        raise UserError(f"{path}: can't be read: {error}; get it again") from None
    raise UserError(f"{path}: holds no {FOLDS if digests else IMAGES}; get the original archive")
