"""From image files of any kind to square RGB arrays of one size."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageOps

from components.shared.errors import UserError

FORMATS = ("JPEG", "PNG", "WEBP")
Item = TypeVar("Item")
Result = TypeVar("Result")
CHUNK = 8  # images a thread decodes of each window: few enough that one of large photographs fits in memory


@dataclass(frozen=True)
class Picture:
    """One image of a source.

    Attributes:
        pixels: the centre square, resized (see `fit`): uint8, shape (size, size, 3).
        path: of its file below the source, or what else tells where it is from.
        width: of the whole image, upright, in pixels.
        height: likewise.
        digest: of the whole image, see `content_digest`.
        group: images of one group belong together, such as views of one thing; None: it belongs to none.
    """

    pixels: np.ndarray
    path: str
    width: int
    height: int
    digest: str
    group: str | None = None

    @classmethod
    def of(cls, image: Image.Image, size: int, path: str, group: str | None = None) -> Picture:
        """From an upright RGB image, to be resized to `size`."""
        digest = content_digest(np.asarray(image))
        return cls(fit(image, size), path, image.width, image.height, digest, group)


def content_digest(pixels: np.ndarray) -> str:
    """SHA-256, hexadecimal, of an image's shape and pixels, uint8 (H, W, 3), whatever its name and format."""
    digest = hashlib.sha256(f"{pixels.shape[1]}×{pixels.shape[0]}".encode())
    digest.update(np.ascontiguousarray(pixels))
    return digest.hexdigest()


def decode(data: bytes, size: int, name: str, path: str = "", group: str | None = None) -> Picture:
    """Decode a JPEG, PNG or WebP file, the whole of it, so that its digest does not depend on the size asked for.

    Turned upright as its EXIF data say; transparent parts become white; 16-bit grey is scaled to 8 bits; the first
    frame of an animation counts.

    Args:
        data: the file's content.
        size: height and width of the result in pixels.
        name: of the file, for the error message.
        path: of the picture.
        group: of the picture.

    Returns:
        The picture.

    Raises:
        UserError: the file is not such an image, or is damaged.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return Picture.of(_rgb(image), size, path, group)
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


class ImageFile(NamedTuple):
    """An image file still to be decoded: its content, its name for messages, and what `Picture` keeps of it."""

    content: bytes
    name: str
    path: str
    group: str | None = None


def decode_all(files: Iterable[ImageFile], size: int) -> Iterator[Picture]:
    """Decode files on all processors, in order, holding only a few at a time; see `decode`."""
    return in_threads(lambda file: decode(file.content, size, *file[1:]), files)


def in_threads(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Do `work` for each item on all processors; yields the results in order, holding only a few at a time."""
    workers = os.cpu_count() or 1
    source = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        while window := list(islice(source, CHUNK * workers)):
            yield from pool.map(work, window)


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
