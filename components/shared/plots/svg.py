"""Figures as SVG within a page: sharp at every width, in the page's own colours, answering the mouse."""

from __future__ import annotations

import io
import re
from html import escape
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

# what the page's style sheet decides, so that a dark page has light letters and lines
_OF_PAGE = {"#000000": "currentColor", "#dddddd": "var(--line)"}


def tip(artist: Any, text: str) -> None:
    """Let an artist say `text` where the mouse rests on it; a PNG of the figure says nothing."""
    artist.set_gid(f"tip:{text}")


def dot(axes: Any, x: Any, y: Any, text: str, marker: str = "o", **look: Any) -> None:
    """Draw a point that says `text` where the mouse rests on it; `look` as of `Axes.plot`."""
    tip(axes.plot([x], [y], marker, **look)[0], text)


def inline_svg(figure: Figure, name: str, alt: str) -> str:
    """A figure as an `<svg>` element.

    Args:
        figure: black is drawn in the page's colour of text, `GRID` in its colour of lines; there is no background.
        name: of the figure, unlike that of any other on the page.
        alt: what a reader is told who does not see it.
    """
    file = io.StringIO()
    # names of shapes are digests of shape and salt, which are so not the same in two figures
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", transparent=True)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"(?s)<!--.*?-->|<metadata>.*?</metadata>", "", text)
    text = re.sub(r'<g id="tip:([^"]*)">', r"<g><title>\1</title>", text)
    text = re.sub(r'<g id="[^"]*">', "<g>", text)
    # the letters of the page
    text = re.sub(r"font: (?:bold )?([\d.]+px) [^;\"]*", r"font-size: \1", text)
    for drawn, ours in _OF_PAGE.items():
        text = text.replace(drawn, ours)
    width, height = (round(72 * inches) for inches in figure.get_size_inches())
    size = f'viewBox="0 0 {width} {height}" style="max-width: {1.5 * width:.0f}px"'
    head = f'<svg {size} role="img" aria-label="{escape(alt)}">'
    text = re.sub(r"<svg[^>]*>", lambda _: head, text, count=1)
    # within HTML a link needs no name space
    return re.sub(r"\s*\n\s*", "\n", text.replace("xlink:href", "href")).strip()
