"""Pages made of jinja2 files, which stand in a folder `templates/` beside the module that fills them."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


@dataclass(frozen=True)
class Picture:
    """A PNG within a page.

    Attributes:
        address: its content as a `data:` address.
        caption: what to write below it.
        alt: what it shows, for who does not see it; empty: the caption says it.
        svg: the same as an `<svg>` element; empty where there is none.
    """

    address: str
    caption: str
    alt: str = ""
    svg: str = ""

    @classmethod
    def read(cls, path: Path, caption: str, alt: str = "", svg: str = "") -> Picture:
        """Read the file."""
        address = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
        return cls(address, caption, alt or caption, svg)


def render(template: Path, **values: Any) -> str:
    """Fill a template `<name>.<html or md>.j2`.

    Values are escaped in HTML, and no line ends between a number and its per cent. In Markdown, the filter `cell`
    keeps one within its cell of a table; the filter `number` writes numbers to four digits, and None as nothing.
    """
    html = ".html." in template.name
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"cell": _cell, "number": _number}
    page = environment.get_template(template.name).render(**values)
    return re.sub(r"(?<=\d) %", "\N{NO-BREAK SPACE}%", page) if html else page


def _cell(value: Any) -> str:
    text = _number(value) if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
