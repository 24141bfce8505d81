"""The pages of the site that are written for readers of the repository: moved, and every link with them.

MkDocs calls these functions as it builds (see mkdocs.yml). What the site does not hold, such as code, stays named
and is no longer a link.
"""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
# files outside docs/, and a notebook → pages
MOVED = {
    "README.md": "index.md",
    "mlflow/README.md": "tracking-server.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "docs/first-hour.ipynb": "first-hour.md",
}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie elsewhere, or are no Markdown yet."""
    for source, page in MOVED.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        content = _as_markdown(text) if source.endswith(".ipynb") else text
        files.append(File.generated(config, page, content=content))
    return files


def _as_markdown(notebook: str) -> str:
    """A notebook's text and code; it is kept without what the code shows."""
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(notebook)["cells"]]
    return "\n\n".join(text if kind == "markdown" else f"```python\n{text}\n```" for kind, text in cells)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let each link lead to where its target is on the site."""
    here = page.file.src_uri
    source = next((source for source, moved in MOVED.items() if moved == here), f"docs/{here}")

    def moved(link: re.Match[str]) -> str:
        mark, text, target, anchor = link.groups(default="")
        if "://" in target or target.startswith("mailto:"):
            return link[0]
        there = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        name = MOVED.get(there) or there.removeprefix("docs/")
        if files.get_file_from_path(name) is None:
            if not (ROOT / there).exists():
                raise PluginError(f"{source}: {link[0]} leads nowhere")
            return text
        return f"{mark}[{text}]({posixpath.relpath(name, posixpath.dirname(here) or '.')}{anchor})"

    return _LINK.sub(moved, markdown)
