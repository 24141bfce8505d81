"""Pictures of images: in rows, each row with a name, and single ones within a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

# of the place of an image in a row
_FILLED = 0.9


def as_rgb(image: np.ndarray) -> np.ndarray:
    """What a picture can show of an image (H, W, C): grey, or its first three channels; (H, W, 3)."""
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[..., :3]


def in_page(image: np.ndarray, largest: int) -> str:
    """An image, uint8 (H, W, C), as an address that holds it; made smaller where a side has more pixels."""
    small, file = Image.fromarray(np.ascontiguousarray(as_rgb(image))), io.BytesIO()
    small.thumbnail((largest, largest))
    small.save(file, "WebP", quality=90)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def draw_rows(rows: Sequence[tuple[str, Sequence[np.ndarray]]], titles: Sequence[str] = ()) -> Figure:
    """Draw images row by row.

    Args:
        rows: the row's name and its images, uint8 (H, W, C) or float in [0, 1]; rows may differ in length.
        titles: names of the first columns; those beyond the longest row are left out.

    Returns:
        A Matplotlib figure.
    """
    columns = max(len(images) for _, images in rows)
    figure = Figure(figsize=(columns * 0.8 + 1.5, len(rows) * 0.8 + 0.3 + 0.2 * bool(titles)), layout="constrained")
    # one pair of axes, since one for each image takes ten times as long to draw
    axes = figure.add_subplot()
    for row, (_, images) in enumerate(rows):
        for column, image in enumerate(images):
            height, width = np.divide(image.shape[:2], max(image.shape[:2])) * _FILLED
            left, top = column + (1 - width) / 2, row + (1 - height) / 2
            axes.imshow(as_rgb(image), extent=(left, left + width, top + height, top))
    axes.set(xlim=(0, columns), ylim=(len(rows), 0), aspect="equal")
    axes.set_yticks(np.arange(len(rows)) + 0.5, [name[:24] for name, _ in rows])
    axes.set_xticks(np.arange(len(titles[:columns])) + 0.5, titles[:columns], fontsize=9)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    return figure
