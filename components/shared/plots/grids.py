"""Pictures of images: in rows, each row with a name, and single ones within a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image


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
    axes: Any = figure.subplots(len(rows), columns, squeeze=False)
    for row, (name, images) in enumerate(rows):
        axes[row, 0].set_ylabel(name[:24], rotation=0, ha="right", va="center")
        for column in range(columns):
            cell = axes[row, column]
            cell.set_xticks([])
            cell.set_yticks([])
            cell.spines[:].set_visible(False)
            if column < len(images):
                cell.imshow(as_rgb(images[column]))
    for column, title in enumerate(titles[:columns]):
        axes[0, column].set_title(title, fontsize=9)
    return figure
