"""A dataset as tables: one row per image, then one row per split and one row per class of a split.

Images are read once, a few megabytes at a time, so that memory does not grow with the dataset.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np
import pandas as pd

from components.shared.artifacts import SPLITS, Dataset, Manifest, open_array
from components.shared.progress import Progress

LABELLED = ("train", "validation", "test")
CHUNK_BYTES = 16 * 2**20
DIGITS = 4  # of grey levels: what lies below differs between processors


def array_table(data: Dataset) -> pd.DataFrame:
    """One row per split: types, shapes and lengths of its arrays, as they lie on disk, and what is missing.

    Columns: split, image_dtype, image_shape (of one image), label_dtype, label_shape (of one label: empty), images,
    labels, missing_images and missing_labels (the manifest's count minus the array's length).

    Raises:
        UserError: a file is missing or is not a NumPy array.
    """
    rows = []
    for split in SPLITS:
        row: dict[str, Any] = {"split": split}
        for kind in ("image", "label"):
            array = open_array(data.folder / f"{split}.{kind}s.npy")
            length = len(array) if array.ndim else 0
            row |= {
                f"{kind}_dtype": str(array.dtype),
                f"{kind}_shape": shape_text(array.shape[1:]),
                f"{kind}s": length,
                f"missing_{kind}s": data.manifest.counts.get(split, 0) - length,
            }
        rows.append(row)
    return pd.DataFrame(rows)


def shape_text(shape: Sequence[int]) -> str:
    """A shape as text: (32, 32, 3) becomes "32×32×3", no axis "scalar"."""
    return "×".join(str(length) for length in shape) or "scalar"


def image_table(data: Dataset, min_pixel_std: float) -> pd.DataFrame:
    """One row per image.

    Columns: split, row (in the split's arrays), label, class_name (empty without a known class), mean (brightness),
    red, green, blue (means of the channels), std (the largest standard deviation of a channel over the pixels: 0
    for an image of one colour), all in grey levels of 0 to 255, digest (of the pixels), blank (std below
    `min_pixel_std`), repeated (an earlier image of the same split is the same; blank ones don't count).

    Args:
        data: arrays that have the types, shapes and lengths that the manifest promises.
        min_pixel_std: in grey levels.
    """
    parts = []
    length = max(1, CHUNK_BYTES // int(np.prod(data.manifest.image_shape)))
    with closing(Progress("validate", sum(data.manifest.counts.values()), "image")) as progress:
        for split in SPLITS:
            images, labels = data.images(split), data.labels(split)
            for start in range(0, len(images), length):
                chunk = np.asarray(images[start : start + length])
                rows = np.arange(start, start + len(chunk))
                parts.append(pd.DataFrame({"split": split, "row": rows, "label": labels[rows], **_measure(chunk)}))
                progress.step(count=len(chunk))
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
    table = _brightness(images, ["split"])
    shares = images.groupby("split", sort=False)[["blank", "repeated"]].mean()
    table[["blank_fraction", "repeated_fraction"]] = shares
    seen = images[~images["blank"]]
    digests: dict[Any, Any] = {split: part["digest"] for split, part in seen.groupby("split", sort=False)}
    for split, count in table["images"].items():
        own = digests.get(split, pd.Series(dtype=object))
        found = pd.DataFrame({other: own.isin(theirs) for other, theirs in digests.items() if other != split})
        copied = int(found.any(axis=1).sum())
        places = ", ".join(f"{there} in {other}" for other, there in found.sum().items() if there)
        table.loc[split, "copied_fraction"] = copied / count
        table.loc[split, "copies"] = f"{copied} of {count} images" + (f": {places}" if places else "")
    sizes = images[images["class_name"] != ""].groupby(["split", "label"]).size().groupby("split")
    table["imbalance"] = (sizes.max() / sizes.min()).reindex(table.index, fill_value=1.0)
    return table.reset_index()


def class_table(images: pd.DataFrame, manifest: Manifest) -> pd.DataFrame:
    """One row per class of each labelled split.

    Columns: split, label, class_name, images, missing_images (the manifest's count minus the images), mean and
    deviation (of brightness; 0 without images), repeated.
    """
    classes = range(len(manifest.class_names))
    every = pd.MultiIndex.from_product([LABELLED, classes], names=["split", "label"])
    table = _brightness(images, ["split", "label"])
    table["repeated"] = images.groupby(["split", "label"])["repeated"].sum()
    table = table.reindex(every, fill_value=0).reset_index()
    table.insert(2, "class_name", [manifest.class_names[label] for label in table["label"]])
    listed = [dict(enumerate(manifest.class_counts.get(split, []))).get(label, 0) for split, label in every]
    table.insert(4, "missing_images", listed - table["images"])
    return table


def class_means(data: Dataset, classes: int, images: int = 500) -> list[tuple[str, list[np.ndarray]]]:
    """For each of the first classes its name and the mean of its first images in train, validation and test.

    Float in [0, 1]; a class without an image in a split is drawn white there.
    """
    rows = []
    for label, name in enumerate(data.manifest.class_names[:classes]):
        means = []
        for split in LABELLED:
            own = np.flatnonzero(data.labels(split) == label)[:images]
            pixels = data.images(split)[own] if len(own) else np.full((1, *data.manifest.image_shape), 255)
            means.append(pixels.mean(axis=0) / 255)
        rows.append((name, means))
    return rows


def _brightness(images: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Number of images of each group, mean and deviation of their brightness, in the order of the images."""
    groups = images.groupby(keys, sort=False)["mean"]
    columns = {"images": groups.size(), "mean": groups.mean(), "deviation": groups.std(ddof=0)}
    return pd.DataFrame(columns).round(DIGITS)


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
        **dict(zip(("red", "green", "blue"), means.T.round(DIGITS), strict=True)),
        "digest": [hashlib.blake2b(image, digest_size=16).hexdigest() for image in images],
    }
