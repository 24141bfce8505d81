"""The pages of the site that are written for readers of the repository: moved, and every link with them.

MkDocs calls these functions as it builds (see mkdocs.yml). What the site does not hold, such as code, stays named
and is no longer a link.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
# files outside docs/ → pages
MOVED = {
    "README.md": "index.md",
    "mlflow/README.md": "tracking-server.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie elsewhere."""
    for source, page in MOVED.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


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
