"""A dataset as tables: one row per image, then one row per split and one row per class of a split.

Images are read once, a few megabytes at a time, with plain reads: the touched pages of a mapped file would count as
this process's memory, so that it would grow with the dataset.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np
import pandas as pd

from components.shared.artifacts import SPLITS, UNLABELLED, Dataset, Manifest, open_array
from components.shared.errors import UserError
from components.shared.progress import Progress

LABELLED = ("train", "validation", "test")
CHUNK_BYTES = 16 * 2**20
DIGITS = 4  # of grey levels: what lies below differs between processors


def array_table(data: Dataset) -> pd.DataFrame:
    """One row per split: types, shapes and lengths of its arrays, as they lie on disk, and what is missing.

    Columns: split, image_dtype, image_shape (of one image), label_dtype, label_shape (of one label: empty), images,
    labels, missing_images, missing_labels and missing_files (the manifest's count minus what is there).

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
        row["missing_files"] = data.manifest.counts.get(split, 0) - len(data.files(split))
        rows.append(row)
    return pd.DataFrame(rows)


def shape_text(shape: Sequence[int]) -> str:
    """A shape as text: (32, 32, 3) becomes "32×32×3", no axis "scalar"."""
    return "×".join(str(length) for length in shape) or "scalar"


def image_table(data: Dataset, min_pixel_std: float = 0.0) -> pd.DataFrame:
    """One row per image.

    Columns: split, row (in the split's arrays), label, class_name (empty without a known class); path, width,
    height (of the original) and what else `files.parquet` tells; mean (brightness), red, green, blue (means of the
    channels, where there are three), std (the largest standard deviation of a channel over the pixels: 0 for an
    image of one colour), all in grey levels of 0 to 255; digest (of the pixels), upscaled (the original is
    smaller), cropped (share of it that the centre square leaves out), blank (std below `min_pixel_std`), repeated
    (an earlier image of the same split is the same), copied (one of another split is), labels_of_image (different
    labels of the same image; 0 without a label). Blank images are nobody's copies.

    Args:
        data: arrays that have the types, shapes and lengths that the manifest promises.
        min_pixel_std: in grey levels.
    """
    parts = []
    length = max(1, CHUNK_BYTES // int(np.prod(data.manifest.image_shape)))
    with closing(Progress("validate", sum(data.manifest.counts.values()), "image")) as progress:
        for split in SPLITS:
            labels, measured = data.labels(split), []
            for start in range(0, len(labels), length):
                chunk = read_images(data, split, range(start, min(start + length, len(labels))))
                measured.append(pd.DataFrame(_measure(chunk)))
                progress.step(count=len(chunk))
            if measured:
                # the labels are those of the array, which is learned from
                about = data.files(split).drop(columns="digest").assign(split=split, label=labels)
                about["row"] = np.arange(len(labels))
                parts.append(pd.concat([about, pd.concat(measured, ignore_index=True)], axis=1))
    table = pd.concat(parts, ignore_index=True)
    names = dict(enumerate(data.manifest.class_names))
    table.insert(3, "class_name", table["label"].map(names).fillna(""))
    shorter = table[["width", "height"]].min(axis=1)
    table["upscaled"] = shorter < data.manifest.image_size
    table["cropped"] = (1 - shorter / table[["width", "height"]].max(axis=1)).round(DIGITS)
    table["blank"] = table["std"] < min_pixel_std
    seen = table[~table["blank"]]
    alike = seen.groupby("digest")
    table["repeated"] = table.duplicated(["split", "digest"]) & ~table["blank"]
    table["copied"] = (alike["split"].transform("nunique") > 1).reindex(table.index, fill_value=False)
    labelled = seen[seen["label"] != UNLABELLED]
    labels_of_image = labelled.groupby("digest")["label"].transform("nunique")
    table["labels_of_image"] = labels_of_image.reindex(table.index, fill_value=0)
    return table


def read_images(data: Dataset, split: str, rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """Some images of a split, in memory of their own: uint8, shape (len(rows), H, W, C).

    Raises:
        UserError: the array is missing or damaged, or shorter than that.
    """
    mapped = data.images(split)
    images = np.empty((len(rows), *mapped.shape[1:]), np.uint8)
    with (data.folder / f"{split}.images.npy").open("rb") as file:
        start, size = file.seek(0, 2) - mapped.nbytes, int(np.prod(mapped.shape[1:]))
        for row, image in zip(rows, images, strict=True):
            file.seek(start + int(row) * size)
            if file.readinto(image) != size:
                raise UserError(f"{file.name}: ends before image {row}; run the ingest step again")
    return images


def split_table(images: pd.DataFrame) -> pd.DataFrame:
    """One row per split that has images.

    Columns: split, images, mean and deviation (of the images' brightness), contrast (mean of their std), width and
    height (medians of the originals), smallest (side of an original), upscaled_fraction, cropped (mean),
    blank_fraction, repeated_fraction, copied_fraction (images that also lie in another split), copies (that in
    words), imbalance (images of the largest class over those of the smallest that is there; 1 for unlabelled).
    """
    table = _summary(images, ["split"])
    groups = images.groupby("split", sort=False)
    table["smallest"] = groups[["width", "height"]].min().min(axis=1)
    for column in ("upscaled", "blank", "repeated"):
        table[f"{column}_fraction"] = groups[column].mean()
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
    deviation (of brightness), contrast, width and height (medians of the originals), cropped (mean), repeated and
    upscaled (images); all 0 without images.
    """
    classes = range(len(manifest.class_names))
    every = pd.MultiIndex.from_product([LABELLED, classes], names=["split", "label"])
    table = _summary(images, ["split", "label"])
    table[["repeated", "upscaled"]] = images.groupby(["split", "label"])[["repeated", "upscaled"]].sum()
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
            pixels = read_images(data, split, own) if len(own) else np.full((1, *data.manifest.image_shape), 255)
            means.append(pixels.mean(axis=0) / 255)
        rows.append((name, means))
    return rows


def _summary(images: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """What the images of each group are like together, in the order of the images."""
    groups = images.groupby(keys, sort=False)
    columns = {
        "images": groups.size(),
        "mean": groups["mean"].mean(),
        "deviation": groups["mean"].std(ddof=0),
        "contrast": groups["std"].mean(),
        "width": groups["width"].median(),
        "height": groups["height"].median(),
        "cropped": groups["cropped"].mean(),
    }
    return pd.DataFrame(columns).round(DIGITS)


def _measure(images: np.ndarray) -> dict[str, Any]:
    """Statistics and digests of images uint8 (N, H, W, C)."""
    # whole numbers until the last division: exact, alike on every processor, and faster than floating point
    channels = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), images.shape[3], -1)
    pixels = channels.shape[2]
    totals = channels.sum(axis=2, dtype=np.int64)
    squares = np.square(channels, dtype=np.uint16).sum(axis=2, dtype=np.int64)
    means = totals / pixels
    stds = np.sqrt(pixels * squares - totals**2) / pixels
    colors = ("red", "green", "blue") if images.shape[3] == 3 else ()
    return {
        "mean": means.mean(axis=1).round(DIGITS),
        "std": stds.max(axis=1).round(DIGITS),
        **{color: means[:, channel].round(DIGITS) for channel, color in enumerate(colors)},
        "digest": [hashlib.blake2b(image, digest_size=16).hexdigest() for image in images],
    }
