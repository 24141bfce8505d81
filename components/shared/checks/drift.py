"""What changed since the last accepted dataset: the one that the registry's champion was trained on."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from components.shared.artifacts import SPLITS, Dataset
from components.shared.checks.image_table import DIGITS, class_table, image_table, split_table
from components.shared.evaluation.predictions import TEST, image_digests
from components.shared.evaluation.wording import points

DATASET_STATISTICS = "dataset_statistics.json"
TRAINING_IMAGES, TEST_IMAGES = "training_images.npy", "test_images.npy"


class SplitStatistics(BaseModel):
    """A split's images together: grey levels of 0 to 255, pixels of the originals, images of each class."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    images: int
    mean: float
    deviation: float
    contrast: float
    width: float
    height: float
    class_counts: dict[str, int]


class DatasetStatistics(BaseModel):
    """What is kept of a dataset with each registered model."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    schema_version: Literal[1] = 1
    class_names: list[str]
    splits: dict[str, SplitStatistics]


def dataset_statistics(data: Dataset) -> DatasetStatistics:
    """Measure a dataset; see `summarize`."""
    images = image_table(data)
    return summarize(split_table(images), class_table(images, data.manifest), data.manifest.class_names)


def summarize(splits: pd.DataFrame, classes: pd.DataFrame, class_names: list[str]) -> DatasetStatistics:
    """From the tables of `components.shared.checks.image_table`."""
    found: dict[str, Any] = {}
    for row in splits.to_dict("records"):
        own = classes[classes["split"] == row["split"]]
        counts = {str(name): int(count) for name, count in zip(own["class_name"], own["images"], strict=True)}
        found[row["split"]] = {**row, "class_counts": counts}
    return DatasetStatistics(class_names=class_names, splits=found)


def moved_images(data: Dataset, training: np.ndarray, test: np.ndarray) -> tuple[int, str]:
    """How many images have changed sides between test and the rest, and that in words, with a file.

    Args:
        data: the dataset.
        training: digests of the earlier dataset's images but those of test, see `image_digests`: uint64.
        test: of those of test.
    """
    names, sides = ("learned from, now in test", "in test, now learned from"), (training, test)
    found = []
    for before, splits in zip(sides, ((TEST,), [split for split in SPLITS if split != TEST]), strict=True):
        # copies of one image may have been on both sides, and then none has moved
        only = np.setdiff1d(before, sides[0] if before is test else sides[1])
        paths = pd.concat([data.files(split)["path"] for split in splits], ignore_index=True)
        found.append(paths[np.isin(image_digests(data, *splits), only)].tolist())
    said = [f"{len(paths):,} {name}, such as {paths[0]}" for name, paths in zip(names, found, strict=True) if paths]
    return sum(map(len, found)), "; ".join(said) or "none"


def drift_table(
    before: DatasetStatistics, now: DatasetStatistics, changed: tuple[int, str] = (0, "none")
) -> pd.DataFrame:
    """One row per split that both datasets have.

    Columns: split, images_ratio (now over before), new_classes and lost_classes (how many), share_shift (largest
    change of a class's share of the split), brightness_shift (in standard deviations between the images before),
    both less three standard errors, so that a small split does not raise the alarm by chance; contrast_shift (as a
    share of that before), size_ratio (of the originals' sides), moved (of test: `changed`,
    what `moved_images` tells), and each in words: …_in_words.
    """
    new = [name for name in now.class_names if name not in before.class_names]
    lost = [name for name in before.class_names if name not in now.class_names]
    said = [f"new: {', '.join(new)}"] * bool(new) + [f"lost: {', '.join(lost)}"] * bool(lost)
    rows = []
    for split, current in now.splits.items():
        if split not in before.splits:
            continue
        old = before.splits[split]
        error = 3 * (1 / max(current.images, 1) + 1 / max(old.images, 1)) ** 0.5
        shares = _shares(current).sub(_shares(old), fill_value=0).sort_values(key=abs, ascending=False)
        share = _shares(old).get(shares.index[0], 0.0) if len(shares) else 0.0
        share_error = error * (share * (1 - share)) ** 0.5
        brightness = (current.mean - old.mean) / max(old.deviation, 1.0)
        moved = f"{shares.index[0]}: {points(shares.iloc[0], '+')}" if len(shares) else "none"
        sides = [f"{split.width:.0f}×{split.height:.0f}" for split in (old, current)]
        size = ((current.width * current.height) / max(old.width * old.height, 1.0)) ** 0.5
        rows.append(
            {
                "split": split,
                "images_ratio": round(current.images / max(old.images, 1), DIGITS),
                "images_in_words": f"{old.images:,} → {current.images:,} images",
                "new_classes": len(new),
                "lost_classes": len(lost),
                "classes_in_words": "; ".join(said) or "the same classes",
                "share_shift": _beyond(float(abs(shares.iloc[0])), share_error) if len(shares) else 0.0,
                "share_in_words": moved,
                "brightness_shift": _beyond(brightness, error),
                "brightness_in_words": f"{old.mean:.0f} → {current.mean:.0f} of 255"
                f" ({abs(brightness):.1f} standard deviations {'brighter' if brightness > 0 else 'darker'})",
                "contrast_shift": round(current.contrast / max(old.contrast, 1.0) - 1, DIGITS),
                "contrast_in_words": f"{old.contrast:.0f} → {current.contrast:.0f} of 127",
                "size_ratio": round(size, DIGITS),
                "size_in_words": f"{sides[0]} → {sides[1]} pixels",
                "moved": changed[0] if split == TEST else 0,
                "moved_in_words": changed[1] if split == TEST else "none",
            }
        )
    return pd.DataFrame(rows)


def in_words(drift: pd.DataFrame) -> list[str]:
    """A line for each split: what changed, or that nothing did."""
    lines = []
    for row in drift.to_dict("records"):
        changes = [
            row[f"{name}_in_words"] if name in ("images", "classes") else f"{name} {row[f'{name}_in_words']}"
            for name, changed in (
                ("images", row["images_ratio"] != 1),
                ("classes", row["new_classes"] + row["lost_classes"] > 0),
                ("share", row["share_shift"] > 0.01),
                ("brightness", abs(row["brightness_shift"]) > 0.05),
                ("contrast", abs(row["contrast_shift"]) > 0.05),
                ("size", abs(row["size_ratio"] - 1) > 0.05),
                ("moved", row["moved"] > 0),
            )
            if changed
        ]
        lines.append(f"{row['split']}: {'; '.join(changes) or 'as before'}")
    return lines


def _beyond(shift: float, error: float) -> float:
    return round(math.copysign(max(abs(shift) - error, 0.0), shift), DIGITS)


def _shares(split: SplitStatistics) -> pd.Series:
    counts = pd.Series(split.class_counts, dtype=float)
    return counts / max(counts.sum(), 1.0)
