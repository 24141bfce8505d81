"""The notebook of the docs, as it is committed; that it runs, test_whole_runs.py and .ci/hour see."""

from __future__ import annotations

import ast
from importlib.util import find_spec

import nbformat
import pytest

from tests.helpers.repository import tracked_files

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
