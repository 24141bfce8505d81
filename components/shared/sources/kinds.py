"""What a file is, told by its first bytes; its ending only where these say nothing."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

# so many bytes tell what a file is
HEAD = 512
# the kinds that are read → Pillow's names of their decoders
READ = {
    "JPEG": ("JPEG",),
    "PNG": ("PNG",),
    "WebP": ("WEBP",),
    "GIF": ("GIF",),
    "BMP": ("BMP",),
    "TIFF": ("TIFF",),
    "PNM": ("PPM",),
    "JPEG 2000": ("JPEG2000",),
    "AVIF": ("AVIF",),
}
# in the order in which they are tried; the later ones are weaker
_FIRST_BYTES: tuple[tuple[str, bytes], ...] = (
    ("JPEG", rb"\xff\xd8\xff"),
    ("PNG", rb"\x89PNG\r\n\x1a\n"),
    ("WebP", rb"RIFF....WEBP"),
    ("GIF", rb"GIF8[79]a"),
    ("camera raw", rb"II\*\x00....CR|II[R*]O|IIRS|MMOR|IIU\x00|FUJIFILMCCD-RAW|FOVb|....ftypcrx"),
    ("TIFF", rb"II[*+]\x00|MM\x00[*+]"),
    ("JPEG 2000", rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51"),
    ("AVIF", rb"....ftypavi[fs]"),
    ("HEIC", rb"....ftyp(?:hei|hev|mif1|msf1)"),
    ("JPEG XL", rb"\xff\x0a|\x00\x00\x00\x0cJXL "),
    ("Photoshop", rb"8BPS"),
    ("GIMP", rb"gimp xcf"),
    ("OpenEXR", rb"v/1\x01"),
    ("Radiance", rb"#\?(?:RADIANCE|RGBE)"),
    ("DDS", rb"DDS "),
    ("DICOM", rb".{128}DICM"),
    ("FITS", rb"SIMPLE  = "),
    ("PostScript", rb"%!PS|\xc5\xd0\xd3\xc6"),
    ("icon", rb"\x00\x00[\x01\x02]\x00[^\x00]\x00"),
    ("SVG", rb"\s*(?:\xef\xbb\xbf)?\s*(?:<\?xml.{0,400})?(?:<!--.{0,400}-->\s*)?(?:<!DOCTYPE svg|<svg)"),
    ("PNM", rb"P[1-6][ \t\r\n][\s#\d]"),
    ("PNM of floating point", rb"P[Ff]\s"),
    # two letters alone could be any text's: four bytes kept free, and the length of a header follow
    ("BMP", rb"BM.{4}\x00{4}.{4}[\x0c\x28\x34\x38\x40\x6c\x7c]\x00{3}"),
)
_PATTERNS = tuple((kind, re.compile(pattern, re.DOTALL)) for kind, pattern in _FIRST_BYTES)
_ENDINGS = {".tga": "TGA", ".svgz": "SVG", ".raw": "camera raw", ".wmf": "WMF", ".emf": "EMF", ".pcx": "PCX"}
# files named so are taken for images without a look inside; decoding looks
USUAL_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp"})
# what systems and programs leave behind: no images, whatever is inside; in lower case
JUNK = frozenset(
    {
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx"),
        *("@eadir", "#recycle", "@recycle", "#snapshot", "$recycle.bin", "system volume information", "lost+found"),
    }
)


def is_junk(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or no one's work."""
    return name.startswith(".") or name.lower() in JUNK


def kind_of(head: bytes, name: str) -> str:
    """What kind of image a file is, a key of `READ` or one that is not read; "" if it is none.

    Args:
        head: its first `HEAD` bytes.
        name: of the file.
    """
    found = next((kind for kind, pattern in _PATTERNS if pattern.match(head)), None)
    return found or _ENDINGS.get(PurePosixPath(name).suffix.lower(), "")


def ending(name: str) -> str:
    """How other files are counted: by their ending in lower case."""
    return PurePosixPath(name).suffix.lower() or "no ending"
