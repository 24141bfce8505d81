"""From image files of any kind to square arrays of one size and number of channels."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image, ImageOps

from components.shared.errors import UserError
from components.shared.sources.kinds import HEAD, READ, kind_of

MEMORY = 512  # MiB that decoding may take where nothing else is said
# their decoders scale values of any range to 16 bits
SCALED = ("PNM", "JPEG 2000")
# the ranges of values that cameras and scanners store in 16 bits
RANGES = (8, 10, 12, 14, 16)
_UNIT = 1 << 20  # bytes by which memory is shared out
# channels → the mode in which Pillow holds them. Not RGBA: what lies under a transparent part would be resized away
MODES = {1: "L", 3: "RGB", 4: "RGBX"}
_STRIP = 1 << 20  # pixels that are converted at a time
# a limit in bytes takes the place of Pillow's in pixels, which would warn about what fits
Image.MAX_IMAGE_PIXELS = None


class BadImageError(UserError):
    """An image that can't be read, told in one line.

    Args:
        name: of its file, for people.
        path: of its file below the source.
        kind: what kind of file it is, such as "PNG"; "" if none is known.
        reason: why it can't be read.
    """

    def __init__(self, name: str, path: str, kind: str, reason: str):
        self.name, self.path, self.kind, self.reason = name, path, kind, " ".join(reason.split())
        super().__init__(f"{name}: can't be read as an image: {self.reason}; repair or remove it")

    def __reduce__(self) -> tuple[type[BadImageError], tuple[str, str, str, str]]:
        # for its way between processes
        return BadImageError, (self.name, self.path, self.kind, self.reason)


class Budget:
    """Memory that threads or processes share: one that needs some waits until the others have given enough back.

    Args:
        total: in bytes.
        context: what makes locks and semaphores: `threading`, or a context of `multiprocessing`.
    """

    def __init__(self, total: int, context: Any = threading):
        self.total = total
        self._units = max(1, total // _UNIT)
        # one at a time takes them, else two could each wait for what the other one holds
        self._turn, self._free = context.Lock(), context.Semaphore(self._units)

    @contextmanager
    def taken(self, amount: int) -> Iterator[None]:
        """Hold so many bytes, at most `total`, during the block."""
        units = min(-(-amount // _UNIT), self._units)
        with self._turn:
            for _ in range(units):
                self._free.acquire()
        try:
            yield
        finally:
            for _ in range(units):
                self._free.release()


class Limits:
    """What reading may take in memory: a quarter for files as they are, the rest for their pixels.

    Args:
        memory: in MiB.
        parameter: that sets it, for messages; "" for none.
        context: see `Budget`.
    """

    def __init__(self, memory: int = MEMORY, parameter: str = "data.memory", context: Any = threading):
        self.memory, self.parameter = memory, parameter
        self.files = Budget((memory << 20) // 4, context)
        self.pixels = Budget((memory << 20) - self.files.total, context)

    def among(self, context: Any) -> Limits:
        """The same ones for processes to share."""
        return Limits(self.memory, self.parameter, context)

    def advice(self, needed: int, budget: Budget) -> str:
        """How much is needed, how much there is, and how to get more."""
        enough = -(-needed * self.memory // budget.total)
        there = f"takes {in_mib(needed)}, and {in_mib(budget.total)} are allowed"
        return f"{there} by {self.parameter} = {self.memory}; {enough} is enough" if self.parameter else there


# of what is read without parameters
LIMITS = Limits(1024, "")


@dataclass(frozen=True)
class Picture:
    """One image of a source.

    Attributes:
        pixels: the centre square, resized (see `fit`): uint8, shape (size, size, channels).
        path: of its file below the source, or what else tells where it is from.
        width: of the whole image, upright, in pixels.
        height: likewise.
        digest: of the whole image, see `content_digest`.
        group: images of one group belong together, such as views of one thing; None: it belongs to none.
        mode: of the pixels as stored, by Pillow's names, such as "RGB", "L" (grey), "P" (palette) or "I;16".
        bytes: of its file; 0 where it is in none of its own.
        bits: of a picture stored in 16 bits how many its values need, one of `RANGES`; None of all others.
    """

    pixels: np.ndarray
    path: str
    width: int
    height: int
    digest: str
    group: str | None = None
    mode: str = "RGB"
    bytes: int = 0
    bits: int | None = None

    @classmethod
    def of(cls, image: Image.Image, size: int, path: str, group: str | None = None, **about: Any) -> Picture:
        """From an upright image in one of `MODES`, to be resized to `size`; `about`: what else it keeps."""
        digest, pixels = _head_of_digest(image.width, image.height), fit(image, size)
        if image.size == (size, size):
            # what is stored is the whole image: it need not be taken from Pillow twice
            digest.update(pixels)
        else:
            for top in range(0, image.height, rows := _rows(image)):
                bottom = min(top + rows, image.height)
                strip = image if bottom - top == image.height else image.crop((0, top, image.width, bottom))
                digest.update(strip.tobytes())
        return cls(pixels, path, image.width, image.height, digest.hexdigest(), group, **about)


def content_digest(pixels: np.ndarray) -> str:
    """SHA-256, hexadecimal, of an image's shape and pixels, uint8 (H, W, C), whatever its name and format."""
    digest = _head_of_digest(pixels.shape[1], pixels.shape[0])
    digest.update(np.ascontiguousarray(pixels))
    return digest.hexdigest()


def _head_of_digest(width: int, height: int) -> Any:
    return hashlib.sha256(f"{width}×{height}".encode())


def decode(
    data: bytes,
    size: int,
    name: str,
    path: str = "",
    group: str | None = None,
    bits: int | None = None,
    limits: Limits = LIMITS,
    channels: int = 3,
) -> Picture:
    """Decode an image file (see `kinds.READ`), the whole of it, so that its digest does not depend on `size`.

    So a large JPEG is not decoded at a fraction of its size either, which would be faster. Turned upright as its
    EXIF data say; the first frame of an animation counts. As RGB or as grey, transparent parts become white, and of
    16-bit grey the range that its values need becomes that of 8 bits. As four channels it is taken as it is stored.

    Args:
        data: the file's content.
        size: height and width of the result in pixels.
        name: of the file, for the error message.
        path: of the picture.
        group: of the picture.
        bits: the range of 16-bit grey, one of `RANGES`; None: as many as this image needs.
        limits: of the memory that it may take.
        channels: 1 for grey (the luminance of colours, ITU-R BT.601), 3 for RGB, 4 for the four that the file has:
            an alpha channel is one of them, whatever it holds.

    Returns:
        The picture.

    Raises:
        BadImageError: the file is not such an image, is damaged or too large, has not the four channels that are
            asked for, or its values are out of range.
    """
    kind = kind_of(data[:HEAD], path or name)
    if kind not in READ:
        raise BadImageError(name, path, kind, _why_not(kind, data))
    try:
        with Image.open(io.BytesIO(data), formats=READ[kind]) as image:
            _refuse_previews(image)
            if channels == 4:
                _take_four_channels(image)
            needed = _memory(image, kind, MODES[channels])
            if needed > limits.pixels.total:
                raise ValueError(f"{image.width:,}×{image.height:,} pixels: {limits.advice(needed, limits.pixels)}")
            with limits.pixels.taken(needed):
                if kind == "JPEG" and channels == 3 and (pixels := _of_its_size(image, data, size)) is not None:
                    return Picture(pixels, path, size, size, content_digest(pixels), group, "RGB", len(data))
                mode, deep = image.mode, ";16" in str(image.tile)
                upright, found = _converted(image, kind, bits, MODES[channels])
                if deep and found is None:
                    _refuse_dark_16_bits(upright)
                return Picture.of(upright, size, path, group, mode=mode, bytes=len(data), bits=found)
    except Image.UnidentifiedImageError:
        raise BadImageError(name, path, kind, f"damaged {kind} file") from None
    except Exception as error:  # Pillow's decoders answer to damaged files with exceptions of a dozen kinds
        raise BadImageError(name, path, kind, str(error) or type(error).__name__) from None


def fit(image: Image.Image, size: int) -> np.ndarray:
    """Resize the shorter side to `size` and cut out the centre; an image of the right size is left as it is.

    Bicubic, which Pillow widens when it shrinks (no aliasing) and which rings less than Lanczos.

    Returns:
        uint8, shape (size, size, channels).
    """
    if image.size != (size, size):
        width, height = image.size
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        image = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    # of grey Pillow gives no axis of channels
    return np.asarray(image).reshape(size, size, -1)


def _of_its_size(image: Image.Image, data: bytes, size: int) -> np.ndarray | None:
    """The pixels of an opened JPEG that has the size already, uint8 (size, size, 3); None where Pillow must decode.

    The same ones in half the time: they need not go through Pillow's four bytes a pixel. Both use libjpeg-turbo.
    """
    if image.mode != "RGB" or image.size != (size, size) or image.getexif().get(0x0112, 1) != 1:
        return None
    try:
        return simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:  # damaged: Pillow tells what it thinks of it
        return None


def in_mib(count: int) -> str:
    """A number of bytes for people."""
    return f"{-(-count >> 20):,} MiB"


def _why_not(kind: str, data: bytes) -> str:
    if kind:
        return f"{kind} images are not read; convert it to JPEG or PNG"
    return f"not a {', '.join(list(READ)[:-1])} or {list(READ)[-1]} file" if data else "the file is empty"


def _refuse_previews(image: Image.Image) -> None:
    """A camera's raw file may look like TIFF whose first picture is a small preview."""
    tags: Any = getattr(image, "tag_v2", {})
    # DNGVersion; sensor values behind colour filters, or linear ones; NewSubfileType: a smaller copy
    if 50706 in tags or tags.get(262) in (32803, 34892) or tags.get(254, 0) & 1:
        raise ValueError("camera raw images are not read; develop it to JPEG or PNG")


def _take_four_channels(image: Image.Image) -> None:
    """Refuse an opened image of fewer channels, and let Pillow read all of a TIFF's."""
    tags: Any = getattr(image, "tag_v2", {})
    # SamplesPerPixel. One that is not called alpha, such as near infrared, Pillow would leave out
    if image.mode == "RGB" and tags.get(277) == 4:
        image._mode = MODES[4]
    found = image.getbands()
    if len(found) != 4:
        channels = f"{len(found)} channel{'s' * (len(found) > 1)} ({image.mode})"
        raise ValueError(f"it has {channels}, and four are asked for: RGBA, CMYK or a TIFF of four")
    # ExtraSamples: Pillow would divide the other channels by it
    if tags.get(338) == (1,):
        raise ValueError("its fourth channel is premultiplied alpha; store it as unassociated alpha")


def _memory(image: Image.Image, kind: str, mode: str) -> int:
    """Bytes that decoding an opened image into a mode takes at most, besides its file."""
    # Pillow keeps one byte a pixel of these, four of all others
    stored = 1 if image.mode in ("1", "L", "P") else 4
    each = stored + (0 if image.mode == mode else 4)
    # Pillow decodes a PNG to answer `getexif`
    if "exif" in image.info if kind == "PNG" else image.getexif().get(0x0112, 1) != 1:
        each += 4
    if image.info.get("progressive"):
        # the coefficients of the whole image, 16 bits each
        each += 6
    if kind in ("WebP", "AVIF", "JPEG 2000"):
        # their libraries decode whole frames of their own
        each += 8
    return image.width * image.height * each


def _rows(image: Image.Image) -> int:
    """How many rows of an image are converted at a time."""
    return max(1, _STRIP // image.width)


def _converted(image: Image.Image, kind: str, bits: int | None, mode: str) -> tuple[Image.Image, int | None]:
    """The image upright in a mode, and how many bits the values of a 16-bit grey one need."""
    ImageOps.exif_transpose(image, in_place=True)
    if mode == MODES[4]:
        if image.mode != mode:
            image = _in_strips(image, lambda strip: Image.merge(mode, strip.split()), mode)
        return image, None
    if image.mode == "F":
        raise ValueError("it holds floating-point values, of which nobody knows the range; convert it to 8 bits")
    if image.mode.startswith("I"):
        scaled, needed = _from_16_bits(image, 16 if kind in SCALED else bits, mode)
        return scaled, None if kind in SCALED else needed
    if image.has_transparency_data:
        # what lies under a transparent part is arbitrary, often black with bright edges
        return _in_strips(image, lambda strip: _on_white(strip).convert(mode), mode), None
    return image if image.mode == mode else image.convert(mode), None


def _from_16_bits(image: Image.Image, bits: int | None, mode: str) -> tuple[Image.Image, int]:
    """Grey of at most 16 bits to 8, and how many its values need; Pillow's own conversion clips at 255."""
    transparent = image.info.get("transparency")
    lowest, highest = 0, 0
    for strip in _strips(image):
        values = np.asarray(strip)
        values = values[values != transparent] if transparent is not None else values
        if values.size:
            lowest, highest = min(lowest, int(values.min())), max(highest, int(values.max()))
    needed = next((known for known in RANGES if highest < 1 << known), None)
    if lowest < 0 or needed is None or needed > (bits or 16):
        values_of = f"values from {lowest:,} to {highest:,}"
        raise ValueError(
            f"it holds {values_of}, not within the 0 to {(1 << (bits or 16)) - 1:,} of {bits or 16} bits"
        )
    top = (1 << (bits or needed)) - 1

    def scaled(strip: Image.Image) -> Image.Image:
        values = np.asarray(strip)
        grey = ((values.astype(np.uint32) * 255 + top // 2) // top).astype(np.uint8)
        if transparent is not None:
            grey[values == transparent] = 255
        return Image.fromarray(grey).convert(mode)

    return _in_strips(image, scaled, mode), needed


def _refuse_dark_16_bits(image: Image.Image) -> None:
    """Of 16-bit colour Pillow keeps the upper 8 bits, of which smaller values have few or none."""
    highest = int(np.asarray(image.getextrema()).max())
    if 0 < highest < 64:
        raise ValueError("its 16-bit colours use only the lowest 14 bits or fewer; convert it to 8 bits")


def _on_white(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def _strips(image: Image.Image) -> Iterator[Image.Image]:
    """The image from top to bottom in parts small enough to be copied."""
    rows = _rows(image)
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(top + rows, image.height)))


def _in_strips(image: Image.Image, convert: Callable[[Image.Image], Image.Image], mode: str) -> Image.Image:
    """An image of a mode made part by part, so that memory never holds more copies than the one."""
    whole = Image.new(mode, image.size)
    top = 0
    for strip in _strips(image):
        whole.paste(convert(strip), (0, top))
        top += strip.height
    return whole
