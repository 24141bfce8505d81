"""The report once more as Markdown, for places that show no HTML: a run's description in MLflow, a diff, a mail."""

from __future__ import annotations

import re
from html.parser import HTMLParser

# what is folded away in the page, or only draws it
_LEFT_OUT = ("style", "title", "nav", "svg", "details")
# elements with text of their own, and what stands before it
_BLOCKS = {"h1": "# ", "h2": "## ", "h3": "### "} | dict.fromkeys(
    ("p", "li", "ul", "table", "tr", "figure", "figcaption", "pre", "div"), ""
)
_MARKS = {"strong": "**", "em": "*", "code": "`"}


def to_markdown(page: str) -> str:
    """Headings, paragraphs, lists, tables and pictures of a page whose elements are all closed.

    A picture is a link to the file that its figure names in `data-file`; images without a figure are left out, and
    so is what is folded away.
    """
    writer = _Writer()
    writer.feed(page)
    return "\n\n".join(writer.parts) + "\n"


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
    """Collects the parts of the text, each a heading, a paragraph, a list, a table or a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._text = ""
        # of the list or table that is read: its lines, the cells of a row, whether the table has a head
        self._lines: list[str] = []
        self._row: list[str] = []
        self._head = False
        self._left_out = 0
        self._code = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        if tag in _LEFT_OUT:
            self._left_out += 1
        elif self._left_out:
            return
        elif tag in _BLOCKS:
            self._end()
            self._code = tag == "pre"
            if tag == "figure" and known.get("data-file"):
                self.parts.append(f"![{_one_line(known.get('data-alt') or '')}]({known['data-file']})")
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
        elif tag == "li":
            self._lines.append(f"- {_one_line(self._text)}")
            self._text = ""
        elif tag in ("table", "ul"):
            self.parts.append("\n".join(self._lines))
            self._lines, self._head = [], False
        elif tag == "pre":
            self.parts.append(f"```sh\n{self._text.strip()}\n```")
            self._text, self._code = "", False
        elif tag in _BLOCKS:
            self._end(_BLOCKS[tag])
        elif tag in _MARKS and not self._code:
            self._text += _MARKS[tag]

    def handle_data(self, data: str) -> None:
        if not self._left_out:
            # a name from the data is no markup
            self._text += data if self._code else data.replace("<", "&lt;")

    def _end_row(self) -> None:
        rows = [self._row]
        if not self._lines:
            # a table without a head has an empty one
            rows = [self._row if self._head else [""] * len(self._row), ["---"] * len(self._row)]
            rows += [] if self._head else [self._row]
        self._lines += [f"| {' | '.join(row)} |" for row in rows]
        self._row = []

    def _end(self, mark: str = "") -> None:
        if text := _one_line(self._text):
            self.parts.append(f"{mark}{text}")
        self._text = ""


def _one_line(text: str) -> str:
    return " ".join(text.split())
