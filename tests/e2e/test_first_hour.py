"""The first hour: .ci/hour asks nothing that README.md does not name, and the notebook is as it should be.

That they run, .ci/hour and test_whole_runs.py see.
"""

from __future__ import annotations

import ast
import re
import shlex
from importlib.util import find_spec

import nbformat
import pytest

from tests.helpers.repository import ROOT, tracked_files

NOTEBOOKS = [path for path in tracked_files() if path.suffix == ".ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_valid_and_holds_no_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) > 5
    assert [cell.id for cell in cells if cell.outputs or cell.execution_count is not None] == []
    # what editors leave there names their machine
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_imports_what_the_environment_has(path):
    cells = nbformat.read(path, as_version=4).cells
    lines = "\n".join(cell.source for cell in cells if cell.cell_type == "code").splitlines()
    tree = ast.parse("\n".join(line for line in lines if not line.startswith("%")))
    wanted = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    wanted |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert len(wanted) > 5
    assert {name for name in wanted if find_spec(name) is None} == set()


def commands(script):
    """Each command of the script that calls what a user calls, as its words."""
    text = re.sub(r"<<'PYTHON'\n.*?\nPYTHON\n", "\n", script.replace("\\\n", " "), flags=re.DOTALL)
    lines = [
        line.strip().removeprefix("(cd own && ").rstrip(")").removeprefix("run ") for line in text.splitlines()
    ]
    found = [shlex.split(line) for line in lines if re.match(r"(contrastive|dvc|jupyter|mkdir|uv|zip|cp) ", line)]
    # options that make a training smaller
    return [[word for word in words if word != "${small[@]}"] for words in found]


def test_the_script_of_the_first_hour_has_no_step_that_its_pages_do_not_name():
    pages = " ".join((ROOT / name).read_text() for name in ("README.md", "docs/solar-cells.md"))
    assert "docs/solar-cells.md" in (ROOT / "README.md").read_text()
    asked = commands((ROOT / ".ci" / "hour").read_text())
    assert {words[0] for words in asked} == {"contrastive", "dvc", "jupyter", "mkdir", "uv", "zip", "cp"}
    assert len(asked) >= 18
    missing = set()
    for words in asked:
        # what is told apart by a version, a size or a variable is another value of the same command
        named = next((n for n, word in enumerate(words) if n and re.search(r"^--|\$|(^|=)\d", word)), len(words))
        options = {word for word in words if word.startswith("--") or re.match(r"[a-z_.]+=", word)}
        missing |= {text for text in {" ".join(words[:named]), *options} if text not in pages}
    assert missing == set()
