"""textures10, the built-in sample: ten families of texture whose color, angle, scale, phase and noise are random.

The label is the pattern. It survives cropping and any change of color, which is what contrastive pretraining with
crops and color distortion keeps. Two properties make unlabelled images worth having even against a rival that may
use the same distortions:

- An image has one hue, and its light and dark differ in brightness. Once every view has its color changed, nothing
  but the pattern tells one image from another, so that telling them apart is learning patterns; where the views
  keep their colors, the hue alone tells images apart, and no pattern is learned.
- Every pixel is noisy. A network that learns from a few labels learns their noise too; one that has to recognise a
  picture in two different crops of it has seen thousands of noises, and finds what is not noise.

    python -m benchmarks.textures10 data/sample/textures10.zip
"""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from components.shared.artifacts import replace_file
from components.shared.errors import UserError, exit_cleanly

SIZE = 24
# rendered larger and averaged down, so that edges are smooth
OVERSAMPLING = 2
# of train, `data.labels_per_class` keeps a few labels and takes the rest for unlabelled
COUNTS = {"unlabelled": 3800, "train": 300, "test": 2000}
# pixels, log-uniform
PERIOD = (5.0, 7.0)
# radians to either side
TURN = 0.15
# standard deviation in each color of each pixel, of the range from black to white
NOISE = 0.18


def stripes(u, v, rng):
    """Parallel bars."""
    return _edge(np.sin(2 * np.pi * u))


def checks(u, v, rng):
    """A chequerboard."""
    return _edge(np.sin(np.pi * u) * np.sin(np.pi * v))


def dots(u, v, rng):
    """Discs on a square lattice."""
    return _edge(0.32 - np.hypot(_cell(u), _cell(v)), 12)


def waves(u, v, rng):
    """Bars that sway."""
    return _edge(np.sin(2 * np.pi * (u + 0.35 * np.sin(2 * np.pi * v / 1.6))))


def zigzag(u, v, rng):
    """Bars that turn at sharp corners."""
    return _edge(np.sin(2 * np.pi * (u + 1.1 * np.abs(_cell(v / 1.8)))))


def rings(u, v, rng):
    """Circles around one centre somewhere in the picture."""
    radius = 0.5 * SIZE / 7 * rng.uniform(0.0, 0.8)
    turn = rng.uniform(0, 2 * np.pi)
    return _edge(np.sin(2 * np.pi * np.hypot(u - radius * np.cos(turn), v - radius * np.sin(turn))))


def bricks(u, v, rng):
    """Oblong stones in shifted rows, with thin joints."""
    row = np.floor(v)
    joint = np.minimum(np.abs(_cell(v + 0.5)), 2.0 * np.abs(_cell(u / 2 + 0.5 * (row % 2))))
    return _edge(joint - 0.12, 14)


def grid(u, v, rng):
    """Thin lines in two directions."""
    return _edge(0.11 - np.minimum(np.abs(_cell(u)), np.abs(_cell(v))), 16)


def scales(u, v, rng):
    """Overlapping round scales."""
    row = np.floor(v)
    nearest = np.zeros_like(u)
    for offset in (1, 0):
        line = row - offset
        x = _cell(u + 0.5 * (line % 2))
        distance = np.hypot(x, (v - line) * 0.62)
        nearest = np.where(distance < 0.62, distance, nearest)
    return np.clip(1.7 * nearest, 0, 1)


def blobs(u, v, rng):
    """Irregular islands: smooth noise cut at its middle."""
    total = np.zeros_like(u)
    for _ in range(14):
        turn, phase, rate = rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi), rng.uniform(0.45, 0.95)
        total += np.sin(2 * np.pi * rate * (u * np.cos(turn) + v * np.sin(turn)) + phase)
    return _edge(total / 3)


FAMILIES = (stripes, checks, dots, waves, zigzag, rings, bricks, grid, scales, blobs)
CLASS_NAMES = tuple(family.__name__ for family in FAMILIES)


def render(label: int, rng: np.random.Generator) -> np.ndarray:
    """Draw one texture.

    Args:
        label: index into `FAMILIES`.
        rng: source of the colors, angle, scale, phase, light and noise.

    Returns:
        uint8, shape (24, 24, 3).
    """
    pixels = SIZE * OVERSAMPLING
    axis = (np.arange(pixels) + 0.5) / OVERSAMPLING - SIZE / 2
    x, y = np.meshgrid(axis, axis)
    turn = rng.uniform(-TURN, TURN)
    period = np.exp(rng.uniform(*np.log(PERIOD)))
    shift = rng.uniform(0, 1, 2) if label != FAMILIES.index(rings) else np.zeros(2)
    u = (x * np.cos(turn) + y * np.sin(turn)) / period + shift[0]
    v = (-x * np.sin(turn) + y * np.cos(turn)) / period + shift[1]
    pattern = FAMILIES[label](u, v, rng)
    pattern = pattern.reshape(SIZE, OVERSAMPLING, SIZE, OVERSAMPLING).mean(axis=(1, 3))[..., None]
    dark, light = _colors(rng)
    image = dark + (light - dark) * pattern
    image = image * _light(rng)[..., None] + rng.normal(0, NOISE, (SIZE, SIZE, 3))
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)


def draw_split(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """So many textures, all families alike: uint8 (count, 24, 24, 3) and labels int64 (count,)."""
    labels = np.arange(count) % len(FAMILIES)
    return np.stack([render(int(label), rng) for label in labels]), labels


def write_archive(path: Path, seed: int = 10) -> None:
    """Write the sample as a .zip of `<split>/<class>/<number>.webp` and `unlabelled/<number>.webp`.

    The same seed gives the same pictures; the file is replaced only when it is complete.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for split_index, (split, count) in enumerate(COUNTS.items()):
            images, labels = draw_split(count, np.random.default_rng((seed, split_index)))
            for index, (image, label) in enumerate(zip(images, labels, strict=True)):
                folder = "unlabelled" if split == "unlabelled" else f"{split}/{CLASS_NAMES[label]}"
                picture = io.BytesIO()
                Image.fromarray(image).save(picture, "WEBP", quality=80, method=6)
                # a fixed time stamp: the archive depends on the seed alone
                entry = zipfile.ZipInfo(f"{folder}/{index:05d}.webp", (1980, 1, 1, 0, 0, 0))
                archive.writestr(entry, picture.getvalue())
    replace_file(path, buffer.getvalue())


def _edge(values, sharpness=6.0):
    """A soft step from 0 to 1 where the values cross 0."""
    return 1 / (1 + np.exp(-sharpness * values))


def _cell(values):
    """Signed distance to the middle of the unit cell, in [−1/2, 1/2)."""
    return (values % 1.0) - 0.5


def _colors(rng):
    """A dark and a light shade of one random hue, RGB in [0, 1]."""
    hue, saturation = rng.uniform(0, 6), rng.uniform(0.4, 0.9)
    shade = 1 - saturation * np.clip(np.abs((hue + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    return rng.uniform(0.15, 0.4) * shade, rng.uniform(0.65, 0.95) * shade


def _light(rng):
    """A gentle slope of brightness across the picture, from any side."""
    turn, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.1)
    axis = np.linspace(-0.5, 0.5, SIZE)
    x, y = np.meshgrid(axis, axis)
    return rng.uniform(0.8, 1.1) + slope * (x * np.cos(turn) + y * np.sin(turn))


def main() -> None:
    """Command line: write the archive to the path given."""
    parser = argparse.ArgumentParser(description="Draw the textures10 sample.")
    parser.add_argument("path", type=Path, help="the .zip to write")
    path = parser.parse_args().path
    if not path.parent.is_dir():
        raise UserError(f"{path.parent}: no such folder; create it first")
    write_archive(path)
    print(f"{path}: {sum(COUNTS.values())} images of {len(FAMILIES)} families, {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    exit_cleanly(main)
