"""The report once more as Markdown, for places that show no HTML: a run's description in MLflow, a diff, a mail."""

from __future__ import annotations

import re
from html.parser import HTMLParser

# what is folded away in the page, or only draws it
_LEFT_OUT = ("style", "title", "nav", "svg", "details")
_MARKS = {"strong": "**", "em": "*", "code": "`"}


def to_markdown(page: str) -> str:
    """Headings, paragraphs, lists, tables and pictures of a page whose elements are all closed.

    A picture is a link to the file that its figure names in `data-file`; images without a figure are left out, and
    so is what is folded away.
    """
    writer = _Writer()
    writer.feed(page)
    text = "\n\n".join(part for part in writer.parts if part)
    # items of a list, and rows of a table, belong together
    text = re.sub(r"(?m)^([-|] ?)(.*)\n\n(?=\1)", r"\1\2\n", text)
    return f"{text}\n"


def excerpt(text: str, most: int = 7500) -> str:
    """What a place without files and with little room shows of such a text: whole sections, as many as fit.

    Args:
        text: as of `to_markdown`.
        most: so many characters at most; MLflow keeps 8,000 of a description.
    """
    text = re.sub(r"(?m)^!\[.*\n\n", "", text)
    if len(text) <= most:
        return text
    sections = re.split(r"(?m)^(?=## )", text)
    kept = next(n for n in range(len(sections), -1, -1) if sum(map(len, sections[:n])) <= most)
    return "".join(sections[:kept]) + "The rest stands in report.html and report.md.\n"


class _Writer(HTMLParser):
    """Collects the parts of the text, each a paragraph, an item of a list, or a row of a table."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._text = ""
        self._row: list[str] = []
        self._first = self._head = False
        self._left_out = 0
        self._code = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        if tag in _LEFT_OUT:
            self._left_out += 1
        elif self._left_out:
            return
        elif tag in ("h1", "h2", "h3", "p", "li", "table", "figure", "tr", "pre", "div"):
            self._end()
            self._text = {"h1": "# ", "h2": "## ", "h3": "### ", "li": "- ", "pre": "```sh\n"}.get(tag, "")
            self._code, self._first = tag == "pre", self._first or tag == "table"
            if tag == "figure" and known.get("data-file"):
                self.parts.append(f"![{known.get('data-alt') or ''}]({known['data-file']})")
        elif tag == "br":
            self._text += " "
        elif tag in _MARKS and not self._code:
            self._text += _MARKS[tag]

    def handle_endtag(self, tag: str) -> None:
        if tag in _LEFT_OUT:
            self._left_out -= 1
        elif self._left_out:
            return
        elif tag in ("td", "th"):
            self._head = self._head or tag == "th"
            self._row.append(_one_line(self._text).replace("|", "\\|"))
            self._text = ""
        elif tag == "tr":
            self._end_row()
        elif tag == "pre":
            self.parts.append(f"{self._text.rstrip()}\n```")
            self._text, self._code = "", False
        elif tag in ("h1", "h2", "h3", "p", "li", "ul", "figcaption", "table", "div"):
            self._end()
        elif tag in _MARKS and not self._code:
            self._text += _MARKS[tag]

    def handle_data(self, data: str) -> None:
        if not self._left_out:
            # a name from the data is no markup
            self._text += data if self._code else data.replace("<", "&lt;")

    def _end_row(self) -> None:
        rows = [self._row]
        if self._first:
            # a table without a head has an empty one
            rows = [self._row if self._head else [""] * len(self._row), ["---"] * len(self._row)]
            rows += [] if self._head else [self._row]
        self.parts += [f"| {' | '.join(row)} |" for row in rows]
        self._row, self._first, self._head = [], False, False

    def _end(self) -> None:
        text = _one_line(self._text)
        self.parts.append("" if text in ("-", "#", "##", "###") else text)
        self._text = ""


def _one_line(text: str) -> str:
    return " ".join(text.split())
