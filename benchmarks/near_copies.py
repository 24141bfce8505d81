"""How well, and how fast, are near-copies of test images found?

Recall for each change of clean test images put among the training images, strangers taken for copies, seconds and
peak memory; on textures10, on folders of photographs and on CIFAR-10 where they are given.

    python -m benchmarks.near_copies --cifar ../shared/data/cifar10 --photos ../shared/data/flowers/flowers.zip
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.textures10 import COUNTS, SIZE, draw_split
from components.shared.checks.near_copies import near_copies
from components.shared.sources.folder import Folder
from components.shared.sources.parquet import Parquet
from components.shared.sources.pixels import fit

# how many test images are changed, each in every way
CHANGED = 500


def _resaved(quality: int) -> Callable[[Image.Image], Image.Image]:
    def save(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file).convert("RGB")

    return save


def _one_bit(image: Image.Image) -> Image.Image:
    pixels = np.array(image)
    pixels[pixels.shape[0] // 3, pixels.shape[1] // 2, 1] ^= 1
    return Image.fromarray(pixels)


def _cropped(left: int, top: int, right: int, bottom: int) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.crop((left, top, image.width - right, image.height - bottom))


def _resized(factor: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.resize((round(image.width * factor), round(image.height * factor)), 3)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "one bit": _one_bit,
    "JPEG 95": _resaved(95),
    "JPEG 75": _resaved(75),
    "flip": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "upside down": lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    "crop all sides": _cropped(1, 1, 1, 1),
    "crop left, top": _cropped(1, 1, 0, 0),
    "crop right": _cropped(0, 0, 1, 0),
    "half size": _resized(0.5),
    "3/4 size": _resized(0.75),
    "3/2 size": _resized(1.5),
    "brightness +3": lambda image: image.point(lambda value: min(value + 3, 255)),
}


def changed(images: np.ndarray, change: str, size: int | None = None) -> np.ndarray:
    """Images uint8 (N, size, size, 3) after a change, and ingested again."""
    size = size or images.shape[1]
    return np.stack([fit(CHANGES[change](Image.fromarray(image)), size) for image in images])


def scenes(count: int, size: int, seed: int = 0) -> np.ndarray:
    """Made-up images with the spectrum of photographs (amplitude as 1/frequency): uint8 (N, size, size, 3)."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size))
    frequency[0, 0] = np.inf
    noise = np.fft.fft2(rng.standard_normal((count, size, size, 3)), axes=(1, 2)) / frequency[..., None]
    waves = np.fft.ifft2(noise, axes=(1, 2)).real
    waves = waves.mean(axis=3, keepdims=True) * 1.5 + waves * 0.5
    waves /= waves.std(axis=(1, 2, 3), keepdims=True)
    return np.clip(rng.uniform(90, 160, (count, 1, 1, 3)) + 45 * waves, 0, 255).astype(np.uint8)


def measure(train: np.ndarray, test: np.ndarray, original: np.ndarray | None = None) -> dict[str, Any]:
    """Recall of each change and the strangers that are taken for copies.

    Args:
        train, test: uint8 (N, size, size, 3).
        original: the test images as they were before they were resized; None: the same.
    """
    original = test if original is None else original
    pairs = near_copies(test, train)
    alarms = pairs["image"].unique()
    clean = np.setdiff1d(np.arange(len(test)), alarms)
    chosen = clean[np.random.default_rng(0).permutation(len(clean))[:CHANGED]]
    recall = {}
    for change in CHANGES:
        copies = changed(original[chosen], change, test.shape[1])
        found = near_copies(test[chosen], np.concatenate([copies, train]))
        recall[change] = float((found["image"] == found["other"]).sum() / len(chosen))
    twins = _brightness_twins(test, train, 0.95)
    return {
        "train": len(train),
        "test": len(test),
        "size": test.shape[1],
        "recall": recall,
        "test_images_with_a_copy": len(alarms),
        "of_these_above_0.95_brightness_correlation": len(np.intersect1d(alarms, twins)),
        "above_0.95_brightness_correlation": len(twins),
        "pairs": len(pairs),
    }


def _brightness_twins(test: np.ndarray, train: np.ndarray, threshold: float) -> np.ndarray:
    """Test images of which a training image, mirrored or not, has this correlation of brightness."""

    def unit(images: np.ndarray) -> np.ndarray:
        # half the size
        grey = (images @ np.array([0.299, 0.587, 0.114], np.float32)).reshape(
            len(images), images.shape[1] // 2, 2, -1, 2
        )
        flat = grey.mean(axis=(2, 4)).reshape(len(images), -1)
        flat -= flat.mean(axis=1, keepdims=True)
        return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)

    left, right = np.concatenate([unit(test), unit(test[:, :, ::-1])]), unit(train)
    best = np.zeros(len(left), np.float32)
    for start in range(0, len(right), 2000):
        best = np.maximum(best, (left @ right[start : start + 2000].T).max(axis=1))
    return np.flatnonzero(best.reshape(2, -1).max(axis=0) > threshold)


def measure_speed(images: int, others: int, size: int) -> dict[str, Any]:
    """Seconds and peak memory (of the whole process, the images among it) for so many images of one size."""
    small, large = (scenes(2000, size, seed) for seed in (0, 1))
    left, right = (np.resize(made, (count, size, size, 3)) for made, count in ((small, images), (large, others)))
    # no two alike
    rng = np.random.default_rng(2)
    for array in (left, right):
        for start in range(0, len(array), 2000):
            part = array[start : start + 2000]
            part[:] = np.roll(part, rng.integers(1, size, 2), axis=(1, 2))
    before, start, cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic(), time.process_time()
    pairs = near_copies(left, right)
    return {
        "images": images,
        "others": others,
        "size": size,
        "seconds": round(time.monotonic() - start, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000,
        "of_it_before_mb": before // 1000,
        "pairs": len(pairs),
    }


def _sample() -> dict[str, Any]:
    splits = {}
    for index, (split, count) in enumerate(COUNTS.items()):
        drawn, _ = draw_split(count, np.random.default_rng((10, index)))
        splits[split] = np.stack([_as_webp(image) for image in drawn])
    assert splits["test"].shape[1] == SIZE
    return measure(np.concatenate([splits["unlabelled"], splits["train"]]), splits["test"])


def _as_webp(image: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "WEBP", quality=80, method=6)
    return np.asarray(Image.open(file).convert("RGB"))


def _photos(path: Path, size: int) -> dict[str, Any]:
    with Folder(path, 128) as source:
        whole = np.stack([picture.pixels for picture in source.images("train")])
    whole = whole[np.random.default_rng(0).permutation(len(whole))]
    images = np.stack([fit(Image.fromarray(image), size) for image in whole])
    return measure(images[1000:], images[:1000], whole[:1000])


def _cifar(path: Path) -> dict[str, Any]:
    source = Parquet(path, 32)
    return measure(*(np.stack([picture.pixels for picture in source.images(split)]) for split in ("train", "test")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar", type=Path, help="folder of CIFAR-10's Parquet files")
    parser.add_argument("--photos", type=Path, help="folder or archive of photographs, as for data=folder")
    parser.add_argument("--images", type=int, nargs=2, default=(10_000, 100_000), help="how many for the speed")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    # first: peak memory only ever grows
    found: dict[str, Any] = {"speed": measure_speed(*options.images, 32)}
    print(json.dumps(found["speed"]), flush=True)
    for name, run in {
        "textures10": _sample,
        **({"photographs": lambda: _photos(options.photos, 64)} if options.photos else {}),
        **({"cifar10": lambda: _cifar(options.cifar)} if options.cifar else {}),
    }.items():
        found[name] = run()
        print(name, json.dumps(found[name]), flush=True)
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
