"""Options that follow from others: `${name_of:…}` and its like in `conf/`, for us and for DVC's own composing."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from omegaconf import OmegaConf

_PACKED = re.compile(r"\.(zip|parquet|tgz|txz|tbz2?|tar(\.\w+)?)$", re.IGNORECASE)
# MLflow takes 256 characters for a registered model, whose name is longer
_LONGEST = 100
# pixels, the least that an augmentation takes
_SMALLEST_VIEW = 16


def register() -> None:
    """Let what `conf/` works out of other options be understood where configurations are composed."""
    OmegaConf.register_new_resolver("name_of", name_of, replace=True)
    OmegaConf.register_new_resolver("three_quarters", three_quarters, replace=True)


def name_of(path: object) -> str:
    """The last part of a path or address, without the ending of an archive or of Parquet.

    What `data.name` and the names of registered models can't hold becomes a dash: `own/My photos.tar.gz` is
    `My-photos`. `images` where nothing is left.
    """
    text = str(path)
    if "://" in text:
        address = urlsplit(text)
        text = f"{address.hostname or ''}/{unquote(address.path)}"
    parts = [part for part in text.split("/") if part.strip(".")]
    name = _PACKED.sub("", parts[-1]) if parts else ""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("._-")[:_LONGEST] or "images"


def three_quarters(side: int) -> int | None:
    """The side of views, in pixels, of images with such a side: None, which is the images', for very small ones."""
    views = round(0.75 * side)
    return views if views >= _SMALLEST_VIEW else None
