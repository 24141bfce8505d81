"""Data Docs that can be read without a network.

The pages of Great Expectations fetch their styles, their signs for passed and failed and the tables of the first
page from other servers. Here the signs and a list of all pages are put into the files themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.shared.templates import render

TEMPLATES = Path(__file__).with_name("templates")
_HEAD = re.compile(r"<head>")
_CONTENT = re.compile(r"<div class=\"container-fluid[^>]*>")


def make_readable(docs: Path, failures: Mapping[str, Sequence[str]]) -> None:
    """Put into the finished pages what they would otherwise fetch.

    Args:
        docs: folder of the site.
        failures: table → a line for each of its expectations that failed.
    """
    # moving pictures of a guide that is switched off: nine tenths of the site, and no page shows them
    for picture in docs.glob("static/images/*.gif"):
        picture.unlink()
    # before the page's own styles, which win where they can be fetched
    signs = render(TEMPLATES / "signs.html.j2")
    for page in docs.rglob("*.html"):
        _insert(page, _HEAD, signs)
    tables = [
        # validations/<table>/<run>/<time>/<asset>.html, one run per site
        {"name": table, "page": page.relative_to(docs).as_posix(), "failures": lines}
        for table, lines in failures.items()
        for page in sorted((docs / "validations" / table).rglob("*.html"))
    ]
    _insert(docs / "index.html", _CONTENT, render(TEMPLATES / "tables.html.j2", tables=tables))


def _insert(page: Path, after: re.Pattern[str], text: str) -> None:
    """Write `text` behind the first place in `page` that matches; a page without one stays as it is."""
    content = page.read_text(encoding="utf-8")
    page.write_text(after.sub(lambda found: f"{found[0]}\n{text}", content, count=1), encoding="utf-8")
