"""Near-copies: pairs of images that show the same picture although their pixels differ.

A re-saved, resized, brightened, mirrored or slightly cropped copy has its edges where the original has them, so the
gradients of the brightness are compared, not the brightness: two skies, or two portraits on white, are alike in
brightness (correlation 0.95 and more) and differ in their edges. Two stages:

1. coarse: both images as 8×8 brightnesses, weighted so that a dot product is the correlation of their gradients:
   one matrix product for all pairs, in blocks, as they are and mirrored;
2. fine, for the few pairs that stage 1 leaves: the same at half the image's size, for all crops of one pixel at any
   side of either image.

The thresholds are measured, see benchmarks/near_copies.py.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import Protocol

import numpy as np
import pandas as pd
from PIL import Image

CELLS = 8
# correlation of coarse gradients that makes a pair a candidate. In images smaller than SMALL pixels one pixel is
# much of a cell, and a crop of one changes more
COARSE, COARSE_SMALL, SMALL = 0.8, 0.6, 32
# of fine gradients: a pair below HOPELESS has no crop that makes it alike. From ALIKE on it is a near-copy if the
# mean colors agree within COLOR grey levels, from SAME on whatever the colors: of textures10's 2,000 test images
# 11 have a stranger above ALIKE, all in other colors, and none one above SAME
HOPELESS, ALIKE, SAME, COLOR = 0.45, 0.9, 0.94, 30.0
# standard deviation in grey levels below which an image shows nothing that could be compared
BLANK = 1.0
# a larger image is compared at this size: there a crop of one pixel is nothing
LARGEST = 64
# images at a time, and of each block of pairs at most one in so many goes on: where all images look alike (X-rays,
# scanned pages) the most alike, so that time stays bounded
BLOCK, PAIRS, ONE_IN, AT_LEAST = 1024, 256, 200, 5000
GREY = (0.299, 0.587, 0.114)
# change → what undoes it in an array (N, height, width, …)
CHANGES: dict[str, tuple[slice, ...]] = {
    "": (slice(None),),
    "mirrored": np.s_[:, :, ::-1],
    "upside down": np.s_[:, ::-1],
}


class Images(Protocol):
    """An array uint8 (N, size, size, channels), or what reads like one, by slices and by row numbers."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray: ...


def near_copies(images: Images, others: Images | None = None) -> pd.DataFrame:
    """Find the pairs of near-copies between two sets of images, or within one.

    Takes about 20 s and 70 MB for 10,000 × 100,000 images of 32 pixels on two cores.

    Args:
        images: uint8 (N, size, size, channels).
        others: uint8 (M, size, size, channels); None: `images` themselves, each pair once.

    Returns:
        A row for each pair, sorted: image and other (row numbers, int64; within one set image < other), change ("",
        "mirrored" or "upside down") and similarity (correlation of the fine gradients, at most 1).
    """
    within = others is None
    others = images if others is None else others
    found: list[pd.DataFrame] = []
    if len(images) and len(others):
        size = images[:1].shape[1]
        threshold = COARSE_SMALL if size < SMALL else COARSE
        views = {change: _coarse(images, change) for change in CHANGES}
        plain = views[""] if within else _coarse(others, "")
        buffer = np.empty((BLOCK, BLOCK * 4), np.float32)
        for low, left in product(range(0, len(others), BLOCK * 4), range(0, len(images), BLOCK)):
            if within and left >= low + BLOCK * 4:
                continue
            for change, view in views.items():
                rows, columns = view[left : left + BLOCK], plain[low : low + BLOCK * 4]
                block = np.matmul(rows, columns.T, out=buffer[: len(rows), : len(columns)])
                if within and left + len(rows) > low:
                    # each pair once, and none of an image with itself
                    block[np.tri(len(rows), len(columns), left - low, dtype=bool)] = 0
                image, other = _candidates(block, threshold)
                found.append(_confirmed(images, others, image + left, other + low, change))
    empty = {"image": np.int64, "other": np.int64, "change": str, "similarity": np.float64}
    table = pd.concat([pd.DataFrame(columns=list(empty)).astype(empty), *(part for part in found if len(part))])
    # a symmetric picture is its own mirror image
    table = table.sort_values(["image", "other", "similarity", "change"], ascending=[True, True, False, True])
    return table.drop_duplicates(["image", "other"]).reset_index(drop=True)


def _candidates(block: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of a block of correlations that reach the threshold."""
    places = np.flatnonzero(block >= threshold)
    most = max(block.size // ONE_IN, AT_LEAST)
    if len(places) > most:
        values = block.reshape(-1)[places] if block.flags.c_contiguous else block[np.divmod(places, block.shape[1])]
        places = np.sort(places[np.argpartition(-values, most)[:most]])
    return np.divmod(places, block.shape[1])


def _coarse(images: Images, change: str) -> np.ndarray:
    """Of each image the vector whose dot product with another's is the correlation of their coarse gradients.

    Float32 (N, 64); zeros for a blank image.
    """
    vectors = np.zeros((len(images), CELLS**2), np.float32)
    for start in range(0, len(images), BLOCK):
        grey = _grey(images[start : start + BLOCK])
        cells = _shrink(grey, CELLS)[CHANGES[change]].reshape(len(grey), -1)
        blank = grey.std(axis=(1, 2)) < BLANK
        vectors[start : start + BLOCK] = np.where(blank[:, None], 0, _unit(cells @ _gradient_root()))
    return vectors


@cache
def _gradient_root() -> np.ndarray:
    """The matrix R with |Rx|² = the sum of squared differences between neighboring cells of x."""
    steps = np.diff(np.eye(CELLS), axis=0)
    one_axis = steps.T @ steps
    values, vectors = np.linalg.eigh(np.kron(one_axis, np.eye(CELLS)) + np.kron(np.eye(CELLS), one_axis))
    root: np.ndarray = ((vectors * np.sqrt(values.clip(0))) @ vectors.T).astype(np.float32)
    return root


def _confirmed(images: Images, others: Images, image: np.ndarray, other: np.ndarray, change: str) -> pd.DataFrame:
    """Those of the candidates that are near-copies."""
    similarity = np.zeros(len(image))
    for start in range(0, len(image), PAIRS):
        part = slice(start, start + PAIRS)
        first, second = images[image[part]][CHANGES[change]], others[other[part]]
        color = np.abs(_color(first) - _color(second)).max(axis=1)
        fine = _similarity(_grey(first), _grey(second))
        similarity[part] = np.where(fine >= np.where(color <= COLOR, ALIKE, SAME), fine, 0)
    rows = similarity > 0
    values = {"image": image[rows], "other": other[rows], "change": change, "similarity": similarity[rows]}
    return pd.DataFrame(values)


def _grey(images: np.ndarray) -> np.ndarray:
    """Brightness of images uint8 (N, size, size, channels): float32 (N, size, size)."""
    channels = images.shape[3]
    grey: np.ndarray = images @ np.array(GREY if channels == 3 else [1 / channels] * channels, np.float32)
    return grey


def _color(images: np.ndarray) -> np.ndarray:
    """Mean color of images uint8 (N, size, size, channels): float32 (N, channels)."""
    pixels = images.reshape(len(images), -1, images.shape[3]).astype(np.float32)
    color: np.ndarray = np.full(pixels.shape[1], 1 / pixels.shape[1], np.float32) @ pixels
    return color


def _similarity(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Correlation of the fine gradients of images (N, size, size): the best over all crops of one pixel."""
    size = min(first.shape[1], LARGEST)
    first, second = _shrink(first, size), _shrink(second, size)
    whole, *_ = crops = _crops(size)
    targets = [_gradients(whole @ images @ whole.T) for images in (first, second)]
    best: np.ndarray = (targets[0] * targets[1]).sum(axis=1)
    rest = np.flatnonzero((best >= HOPELESS) & (best < SAME))
    for images, target in ((first[rest], targets[1][rest]), (second[rest], targets[0][rest])):
        for vertical in crops:
            rows = vertical @ images
            for horizontal in crops:
                found = (_gradients(rows @ horizontal.T) * target).sum(axis=1)
                best[rest] = np.maximum(best[rest], found)
    return best.clip(-1, 1)


def _gradients(images: np.ndarray) -> np.ndarray:
    """Differences between neighbors of images (N, S, S), each image's of length 1: float32 (N, 2·S·(S−1))."""
    count, size, _ = images.shape
    steps = [np.diff(images, axis=axis).reshape(count, size * (size - 1)) for axis in (1, 2)]
    return _unit(np.concatenate(steps, axis=1))


@cache
def _crops(size: int) -> list[np.ndarray]:
    """What takes an axis to half its size after cutting off none or one pixel at each end: (size/2, size)."""
    eye = Image.fromarray(np.eye(size, dtype=np.float32))
    ends = product((0, 1), (0, 1))
    resized = (eye.resize((size, size), Image.Resampling.BICUBIC, box=(a, 0, size - b, size)) for a, b in ends)
    return [_averages(size, size // 2) @ np.asarray(matrix).T for matrix in resized]


def _shrink(images: np.ndarray, size: int) -> np.ndarray:
    """Averages over a grid of `size` × `size` cells: float32 (N, size, size)."""
    matrix = _averages(images.shape[1], size)
    return matrix @ images @ matrix.T


@cache
def _averages(size: int, cells: int) -> np.ndarray:
    """The matrix that averages `size` values over so many cells of equal width: float32 (cells, size)."""
    edges = np.linspace(0, size, cells + 1)[:, None]
    covered = np.diff(np.clip(edges, np.arange(size), np.arange(1, size + 1)), axis=0)
    return (covered * cells / size).astype(np.float32)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (N, D) of length 1; zeros stay zeros."""
    unit: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    return unit
