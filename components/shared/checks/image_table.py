"""A dataset as tables: one row per image, then one row per split and one row per class of a split.

Images are read once, a few megabytes at a time, so that memory does not grow with the dataset.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from components.shared.artifacts import SPLITS, Dataset, Manifest, open_array

LABELLED = ("train", "validation", "test")
CHUNK_BYTES = 16 * 2**20
DIGITS = 4  # of grey levels: what lies below differs between processors


class MeanImages:
    """The mean image of each of the first classes, in each labelled split.

    Args:
        classes: how many classes to keep, the first ones.
        image_size: height and width in pixels.
    """

    def __init__(self, classes: int, image_size: int):
        self.counts = np.zeros((len(LABELLED), classes), np.int64)
        self._sums = np.zeros((len(LABELLED), classes, image_size, image_size, 3))

    def add(self, split: str, images: np.ndarray, labels: np.ndarray) -> None:
        """Take images uint8 (N, H, W, 3) with labels (N,) into account; unlabelled ones are left out."""
        if split not in LABELLED:
            return
        place = LABELLED.index(split)
        for label in np.unique(labels):
            if 0 <= label < self.counts.shape[1]:
                chosen = images[labels == label]
                self.counts[place, label] += len(chosen)
                self._sums[place, label] += chosen.sum(axis=0, dtype=np.float64)

    def rows(self, names: Sequence[str]) -> list[tuple[str, list[np.ndarray]]]:
        """For each class its name and its mean images in train, validation and test, float in [0, 1].

        A class without an image in a split is drawn white there.
        """
        rows = []
        for label in range(self.counts.shape[1]):
            means = [
                self._sums[place, label] / count / 255 if count else np.ones(self._sums.shape[2:])
                for place, count in enumerate(self.counts[:, label])
            ]
            rows.append((names[label], means))
        return rows


def array_table(data: Dataset) -> pd.DataFrame:
    """One row per split: types, shapes and lengths of its arrays, as they lie on disk, and what is missing.

    Columns: split, image_dtype, image_shape (of one image), label_dtype, label_shape (of one label: empty), images,
    labels, missing_images and missing_labels (the manifest's count minus the array's length).

    Raises:
        UserError: a file is missing or is not a NumPy array.
    """
    rows = []
    for split in SPLITS:
        images = open_array(data.folder / f"{split}.images.npy")
        labels = open_array(data.folder / f"{split}.labels.npy")
        listed = data.manifest.counts.get(split, 0)
        rows.append(
            {
                "split": split,
                "image_dtype": str(images.dtype),
                "image_shape": shape_text(images.shape[1:]),
                "label_dtype": str(labels.dtype),
                "label_shape": shape_text(labels.shape[1:]),
                "images": _length(images),
                "labels": _length(labels),
                "missing_images": listed - _length(images),
                "missing_labels": listed - _length(labels),
            }
        )
    return pd.DataFrame(rows)


def shape_text(shape: Sequence[int]) -> str:
    """A shape as text: (32, 32, 3) becomes "32×32×3", no axis "scalar"."""
    return "×".join(str(length) for length in shape) or "scalar"


def image_table(
    data: Dataset, min_pixel_std: float, means: MeanImages, advance: Callable[[int], None]
) -> pd.DataFrame:
    """One row per image.

    Columns: split, row (in the split's arrays), label, class_name (empty without a known class), mean (brightness),
    red, green, blue (means of the channels), std (the largest standard deviation of a channel over the pixels: 0
    for an image of one colour), all in grey levels of 0 to 255, digest (of the pixels), blank (std below
    `min_pixel_std`), repeated (an earlier image of the same split is the same; blank ones don't count).

    Args:
        data: arrays that have the types, shapes and lengths that the manifest promises.
        min_pixel_std: in grey levels.
        means: gathers the mean images on the way.
        advance: called with the number of images that were read.
    """
    parts = []
    for split in SPLITS:
        images, labels = data.images(split), data.labels(split)
        length = max(1, CHUNK_BYTES // max(1, images[:1].nbytes))
        for start in range(0, len(images), length):
            chunk, chunk_labels = np.asarray(images[start : start + length]), labels[start : start + length]
            means.add(split, chunk, chunk_labels)
            rows = np.arange(start, start + len(chunk))
            parts.append(pd.DataFrame({"split": split, "row": rows, "label": chunk_labels, **_measure(chunk)}))
            advance(len(chunk))
    table = pd.concat(parts, ignore_index=True)
    names = dict(enumerate(data.manifest.class_names))
    table.insert(3, "class_name", table["label"].map(names).fillna(""))
    table["blank"] = table["std"] < min_pixel_std
    table["repeated"] = table.duplicated(["split", "digest"]) & ~table["blank"]
    return table


def split_table(images: pd.DataFrame) -> pd.DataFrame:
    """One row per split that has images.

    Columns: split, images, mean and deviation (of the images' brightness), blank_fraction, repeated_fraction,
    copied_fraction (images that also lie in another split), copies (that in words), imbalance (images of the
    largest class over those of the smallest that is there; 1 for unlabelled).
    """
    seen = images[~images["blank"]]
    digests = {split: set(part["digest"]) for split, part in seen.groupby("split")}
    rows = []
    for split in SPLITS:
        part, visible = images[images["split"] == split], seen[seen["split"] == split]
        if part.empty:
            continue
        found = {
            other: visible["digest"].isin(digests[other]).to_numpy()
            for other in SPLITS
            if other != split and other in digests
        }
        copied = int(np.any([np.zeros(len(visible), bool), *found.values()], axis=0).sum())
        places = ", ".join(f"{there.sum()} in {other}" for other, there in found.items() if there.any())
        sizes = part.loc[part["class_name"] != "", "label"].value_counts()
        rows.append(
            {
                "split": split,
                "images": len(part),
                "mean": round(float(part["mean"].mean()), DIGITS),
                "deviation": round(float(part["mean"].std(ddof=0)), DIGITS),
                "blank_fraction": float(part["blank"].mean()),
                "repeated_fraction": float(part["repeated"].mean()),
                "copied_fraction": copied / len(part),
                "copies": f"{copied} of {len(part)} images" + (f": {places}" if places else ""),
                "imbalance": float(sizes.max() / sizes.min()) if len(sizes) else 1.0,
            }
        )
    return pd.DataFrame(rows)


def class_table(images: pd.DataFrame, manifest: Manifest) -> pd.DataFrame:
    """One row per class of each labelled split.

    Columns: split, label, class_name, images, missing_images (the manifest's count minus the images), mean and
    deviation (of brightness; 0 without images), repeated.
    """
    groups = {key: part for key, part in images.groupby(["split", "label"])}
    rows = []
    for split in LABELLED:
        listed = manifest.class_counts.get(split, [])
        for label, name in enumerate(manifest.class_names):
            part = groups.get((split, label))
            count = 0 if part is None else len(part)
            rows.append(
                {
                    "split": split,
                    "label": label,
                    "class_name": name,
                    "images": count,
                    "missing_images": (listed[label] if label < len(listed) else 0) - count,
                    "mean": 0.0 if part is None else round(float(part["mean"].mean()), DIGITS),
                    "deviation": 0.0 if part is None else round(float(part["mean"].std(ddof=0)), DIGITS),
                    "repeated": 0 if part is None else int(part["repeated"].sum()),
                }
            )
    return pd.DataFrame(rows)


def _length(array: np.ndarray) -> int:
    return len(array) if array.ndim else 0


def _measure(images: np.ndarray) -> dict[str, Any]:
    """Statistics and digests of images uint8 (N, H, W, 3)."""
    # whole numbers until the last division: exact, alike on every processor, and faster than floating point
    channels = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), 3, -1)
    pixels = channels.shape[2]
    totals = channels.sum(axis=2, dtype=np.int64)
    squares = np.square(channels, dtype=np.uint16).sum(axis=2, dtype=np.int64)
    means = totals / pixels
    stds = np.sqrt(pixels * squares - totals**2) / pixels
    return {
        "mean": means.mean(axis=1).round(DIGITS),
        "std": stds.max(axis=1).round(DIGITS),
        "red": means[:, 0].round(DIGITS),
        "green": means[:, 1].round(DIGITS),
        "blue": means[:, 2].round(DIGITS),
        "digest": [hashlib.blake2b(image, digest_size=16).hexdigest() for image in images],
    }
