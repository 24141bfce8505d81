"""The images most like a given one, by an encoder's features: printed, and as a page that needs nothing else."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from components.shared.artifacts import replace_file
from components.shared.errors import UserError
from components.shared.plots.grids import in_page
from components.shared.progress import Progress
from components.shared.repository import in_repository
from components.shared.templates import render
from pipelines.command_line import printable
from pipelines.inference.batches import apply
from pipelines.inference.inputs import Images
from pipelines.inference.model import load_ready

if TYPE_CHECKING:
    from pipelines.inference.networks import ReadyModel

TEMPLATE = Path(__file__).parent / "templates" / "similar.html.j2"
SIDE = 256  # of a picture on the page, in pixels


@dataclass(frozen=True)
class Tile:
    """An image on the page: its name, its cosine similarity to the query, and the picture as a `data:` address."""

    name: str
    similarity: float
    picture: str


def show_similar(query: str, images: Sequence[str], address: str | None, top: int, out: Path) -> int:
    """Print the nearest images and write the page; returns 1 if an image was skipped, else 0.

    Args:
        query: an image file, or the address of one.
        images: to search, see `Images`; the query itself is left out.
        address: of the model, see `load_ready`; None is the encoder of the repository's last run.
        top: so many of the nearest.
        out: page to write, `.html`.

    Raises:
        UserError: no image, no such model, or the page can't be written.
    """
    if out.suffix.lower() != ".html" or not out.parent.is_dir():
        raise UserError(f"{out}: must be an .html file in a folder that is there; choose another place")
    asked, searched = Images([query]), Images(images)
    if len(asked) != 1:
        raise UserError(f"{printable(query)}: names {len(asked)} images; give one")
    model = load_ready(address or str(in_repository("encoder/encoder.keras"))).encoder()
    center = next((features for _, features in apply(model, asked)), None)
    if center is None:
        raise UserError(f"{printable(query)}: can't be read as an image; choose another")
    nearest = _nearest(model, _unit(center)[0], searched, Path(query), top)
    if not nearest:
        raise UserError(f"{printable(', '.join(images))}: holds no image but the query; name others")
    for similarity, name in nearest:
        print(f"{printable(name)}  {similarity:.4f}")
    tiles = [Tile(printable(name), similarity, _picture(name, model.channels)) for similarity, name in nearest]
    page = render(
        TEMPLATE,
        query=Tile(printable(query), 1.0, _picture(query, model.channels)),
        tiles=tiles,
        searched=len(searched) - searched.skipped,
        model=model.name,
    )
    try:
        replace_file(out, page.encode())
    except OSError as error:
        raise UserError(f"{out}: can't be written: {error.strerror}; choose another place") from None
    print(f"{out}: the {len(tiles)} nearest of {len(searched):,} images by {model.name}")
    return searched.finish()


def _nearest(
    model: ReadyModel, center: np.ndarray, images: Images, query: Path, top: int
) -> list[tuple[float, str]]:
    """Similarity and name of the nearest, the most similar first; only they are kept while the others pass by."""
    best: list[tuple[float, str]] = []
    with closing(Progress("similar", len(images), "image")) as progress:
        for names, features in apply(model, images, progress):
            found = zip((_unit(features) @ center).tolist(), names, strict=True)
            best = heapq.nlargest(top, best + [one for one in found if not _same(Path(one[1]), query)])
    return best


def _same(one: Path, other: Path) -> bool:
    return one == other or (one.name == other.name and one.exists() and other.exists() and one.samefile(other))


def _unit(features: np.ndarray) -> np.ndarray:
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def _picture(name: str, channels: int) -> str:
    """The centre square of an image, as the encoder sees it but larger, within the page."""
    ((_, pixels),) = Images([name]).read(SIDE, channels)
    if isinstance(pixels, UserError):
        # it was there a moment ago
        raise pixels
    return in_page(pixels, SIDE)
