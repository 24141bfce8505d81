"""From image files of any kind to square RGB arrays of one size."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps

from components.shared.errors import UserError

FORMATS = ("JPEG", "PNG", "WEBP")
Item = TypeVar("Item")
Result = TypeVar("Result")
CHUNK = 8  # images a thread decodes at a time: few enough that a window of large photographs fits in memory


def decode(data: bytes, size: int, name: str) -> np.ndarray:
    """Decode a JPEG, PNG or WebP file.

    Turned upright as its EXIF data say; transparent parts become white; 16-bit grey is scaled to 8 bits; the first
    frame of an animation counts.

    Args:
        data: the file's content.
        size: height and width of the result in pixels.
        name: of the file, for the error message.

    Returns:
        uint8, shape (size, size, 3): the centre square, resized (see `fit`).

    Raises:
        UserError: the file is not such an image, or is damaged.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            # the JPEG decoder halves large photographs while it decodes; from 3 × the result looks the same
            image.draft(None, (3 * size, 3 * size))
            return fit(_rgb(image), size)
    except Exception as error:  # Pillow's decoders answer to damaged files with exceptions of a dozen kinds
        reason = (
            str(error) if not isinstance(error, Image.UnidentifiedImageError) else "not a JPEG, PNG or WebP file"
        )
        raise UserError(f"{name}: can't be read as an image: {reason}; repair or remove it") from None


def fit(image: Image.Image, size: int) -> np.ndarray:
    """Resize the shorter side to `size` and cut out the centre; an image of the right size is left as it is.

    Bicubic, which Pillow widens when it shrinks (no aliasing) and which rings less than Lanczos.

    Returns:
        uint8, shape (size, size, 3).
    """
    if image.size != (size, size):
        width, height = image.size
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        image = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    return np.asarray(image)


def decode_all(files: Iterable[tuple[str, bytes]], size: int) -> Iterator[np.ndarray]:
    """Decode (name, content) pairs on all processors, in order, holding only a few at a time; see `decode`."""
    return in_threads(lambda file: decode(file[1], size, file[0]), files)


def in_threads(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Do `work` for each item on all processors; yields the results in order, holding only a few at a time."""
    workers = os.cpu_count() or 1
    source = iter(items)
    pending: deque[Future[list[Result]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            while chunk := list(islice(source, CHUNK)):
                pending.append(pool.submit(lambda chunk: list(map(work, chunk)), chunk))
                if len(pending) > 2 * workers:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _rgb(image: Image.Image) -> Image.Image:
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I"):
        # Pillow's own conversion of 16-bit grey clips at 255 instead of scaling
        grey = (np.asarray(image).astype(np.int64) + 128) // 257
        return Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        # what lies under a transparent part is arbitrary, often black with bright edges
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
