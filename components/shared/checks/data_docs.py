"""Data Docs that can be read without a network.

The pages of Great Expectations fetch their styles, their signs for passed and failed and the tables of the first
page from other servers. Here the signs and a list of all pages are put into the files themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

# before the page's own styles, which win where they can be fetched
_SIGNS = """<style>
  .fa-check-circle::before { content: "✓"; }
  .fa-times::before { content: "✗"; }
  .text-success { color: #0072B2; }
  .text-danger { color: #A63D00; }
</style>"""
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
    for page in docs.rglob("*.html"):
        _insert(page, _HEAD, _SIGNS)
    _insert(docs / "index.html", _CONTENT, _list(docs, failures))


def _list(docs: Path, failures: Mapping[str, Sequence[str]]) -> str:
    """What was found in each table, with a link to the page that tells it."""
    items = []
    for table, lines in failures.items():
        # validations/<table>/<run>/<time>/<asset>.html, one run a site
        for page in sorted((docs / "validations" / table).rglob("*.html")):
            title = f'<a href="{escape(page.relative_to(docs).as_posix())}">{escape(table)}</a>'
            details = "".join(f'<br><span class="text-danger">✗</span> {escape(line)}' for line in lines)
            sign = details or ' <span class="text-success">✓</span> everything expected holds'
            items.append(f"<li>{title}{sign}</li>")
    return f"<ul>{''.join(items)}</ul>"


def _insert(page: Path, after: re.Pattern[str], text: str) -> None:
    """Write `text` behind the first place in `page` that matches; a page without one stays as it is."""
    content = page.read_text(encoding="utf-8")
    page.write_text(after.sub(lambda found: f"{found[0]}\n{text}", content, count=1), encoding="utf-8")
