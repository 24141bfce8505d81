"""Small finished `dataset/` folders for tests: textures that a network learns from a few hundred images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from components.shared.artifacts import FILES, SPLITS, UNLABELLED, Manifest, save_array, write_record
from components.shared.digests import file_digest, files_digest, value_digest
from components.shared.sources.pixels import content_digest

Arrays = dict[str, tuple[np.ndarray, np.ndarray]]
Pattern = Callable[[np.ndarray, np.ndarray, float, np.random.Generator], np.ndarray]

# Each is unchanged by a left-right flip, so that augmentation never turns one class into another.
# Arguments: x and y in [−1, 1], about the number of half waves across the image, a random generator.
PATTERNS: dict[str, Pattern] = {
    "rows": lambda x, y, f, rng: np.sin(np.pi * f * y + 6 * rng.random()),
    "columns": lambda x, y, f, rng: np.sin(np.pi * f * x + 6 * rng.random()),
    "rings": lambda x, y, f, rng: np.sin(np.pi * f * np.hypot(x, y) + 6 * rng.random()),
    "checks": lambda x, y, f, rng: np.sign(np.sin(np.pi * f * x) * np.sin(np.pi * f * y + 6 * rng.random())),
    "diamonds": lambda x, y, f, rng: np.sin(np.pi * f * (np.abs(x) + np.abs(y)) + 6 * rng.random()),
    "rays": lambda x, y, f, rng: np.sin(8 * np.arctan2(y, x) + 6 * rng.random()),
    "frames": lambda x, y, f, rng: np.sin(np.pi * f * np.maximum(np.abs(x), np.abs(y)) + 6 * rng.random()),
    "dots": lambda x, y, f, rng: np.sign(np.cos(np.pi * f * x) + np.cos(np.pi * f * y) - 0.8),
    "speckle": lambda x, y, f, rng: np.sign(rng.standard_normal(x.shape)),
    "ramp": lambda x, y, f, rng: y * np.sign(rng.random() - 0.5),
}


def texture(pattern: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """One image of a texture between two random colours with a little noise: uint8, shape (size, size, 3)."""
    y, x = np.meshgrid(*[np.linspace(-1, 1, size)] * 2, indexing="ij")
    mix = (PATTERNS[pattern](x, y, rng.uniform(2, 4), rng)[..., None] + 1) / 2
    dark, light = rng.uniform(0, 110, 3), rng.uniform(145, 255, 3)
    image = dark * (1 - mix) + light * mix + rng.normal(0, 4, (size, size, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


def make_arrays(
    counts: Mapping[str, int], *, classes: int = 3, image_size: int = 32, seed: int = 0, channels: int = 3
) -> Arrays:
    """Images and labels of each split; labelled splits are balanced, the labels of `unlabelled` are −1.

    Args:
        counts: number of images of each split.
        classes: 2 to 10.
        image_size: height and width in pixels.
        seed: of everything random.
        channels: of each image; a fourth one is the first upside down.
    """
    rng = np.random.default_rng(seed)
    names = list(PATTERNS)[:classes]
    arrays = {}
    for split, count in counts.items():
        truth = rng.permutation(np.arange(count) % classes)
        images = [texture(names[label], image_size, rng) for label in truth]
        labels = np.full(count, UNLABELLED) if split == "unlabelled" else truth
        stacked = np.stack(images) if images else np.zeros((0, image_size, image_size, 3), np.uint8)
        stacked = np.concatenate([stacked, stacked[:, ::-1, :, :1]], axis=3)[..., :channels]
        arrays[split] = (np.ascontiguousarray(stacked), labels.astype(np.int64))
    return arrays


def write_dataset(
    folder: Path,
    arrays: Arrays,
    class_names: list[str],
    *,
    name: str = "tiny",
    seed: int = 0,
    channels: Literal[1, 3, 4] = 3,
) -> Path:
    """Write arrays, right or wrong, as the `dataset/` folder that the ingest step would have left."""
    folder.mkdir(parents=True)
    for split, (images, labels) in arrays.items():
        save_array(folder / f"{split}.images.npy", images)
        save_array(folder / f"{split}.labels.npy", labels)
    rows = [
        {
            **dict(split=split, row=row, label=label, path=f"{split}/{row}.png", group=None),
            **dict(width=image.shape[1], height=image.shape[0], digest=content_digest(image)),
        }
        for split, (images, labels) in arrays.items()
        for row, (image, label) in enumerate(zip(images, labels, strict=True))
    ]
    columns = ["split", "row", "label", "path", "group", "width", "height", "digest"]
    pd.DataFrame(rows, columns=columns).to_parquet(folder / FILES, index=False)
    classes = range(len(class_names))
    write_record(
        folder,
        Manifest(
            step="ingest",
            params={},
            params_digest=value_digest({}),
            inputs={},
            seconds=0.0,
            mlflow_run_id="0" * 32,
            name=name,
            source="tests/helpers/datasets.py",
            source_digest=value_digest([name, seed]),
            class_names=class_names,
            counts={split: len(images) for split, (images, _) in arrays.items()},
            class_counts={
                split: [int(np.sum(labels == label)) for label in classes] for split, (_, labels) in arrays.items()
            },
            image_size=int(arrays["train"][0].shape[1]),
            channels=channels,
            labels_per_class=None,
            seed=seed,
            cuts_validation=False,
            digest=value_digest([files_digest(folder.glob("*.npy")), class_names]),
            test_digest=files_digest(folder.glob("test.*.npy")),
            files={path.name: file_digest(path) for path in sorted(folder.iterdir())},
        ),
    )
    return folder


def make_dataset(
    folder: Path,
    *,
    classes: int = 3,
    image_size: int = 32,
    unlabelled: int = 60,
    train: int = 24,
    validation: int = 12,
    test: int = 30,
    seed: int = 0,
    name: str = "tiny",
    channels: Literal[1, 3, 4] = 3,
) -> Path:
    """Write a small learnable dataset with all four splits; returns `folder`, which must not exist yet.

    Each class is one of `PATTERNS` in random colours, so the label survives cropping, flipping and recolouring.
    """
    counts = dict(zip(SPLITS, (unlabelled, train, validation, test), strict=True))
    arrays = make_arrays(counts, classes=classes, image_size=image_size, seed=seed, channels=channels)
    return write_dataset(folder, arrays, list(PATTERNS)[:classes], name=name, seed=seed, channels=channels)
