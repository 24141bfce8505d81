"""Which modules shape a step's result, and a digest of what they do.

Found by following import statements, without running them, and by the choices of the parameters where a module is
found by name. DVC's list of dependencies is compared with it by a test; the kept state of a training and Kubeflow's
cache use it themselves.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache, reduce
from pathlib import Path, PurePosixPath

from components.shared.digests import file_digest, value_digest
from components.shared.params.schema import Params

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("components", "models")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
# They check, explain, track, watch, resume, draw, fetch what a digest names and choose where to compute: what a
# step learns or decides is not theirs, and a better message must not cost a training.
AROUND = tuple(
    f"components/shared/{name}"
    for name in (
        *("code.py", "cost.py", "errors.py", "git.py", "params", "progress.py", "step.py", "steps.py", "tracking"),
        *("repository.py", "plots/grids.py", "plots/probe.py"),
        *(f"training/{name}.py" for name in ("checkpoints", "devices", "distributed", "monitor")),
        *(f"training/{name}.py" for name in ("side_by_side", "start")),
    )
)
# packages whose modules are found by name → the parameter that names the one that counts; None: all count
CHOSEN_BY = {
    "components/shared/evaluation/rules": None,
    "models/methods": "method.name",
    "models/encoders": "encoder.name",
    "components/shared/sources": "data.source",
}


def code_digest(step: str, params: Params, root: Path = ROOT) -> str:
    """Digest of the code that shapes a step's result, comments and docstrings aside.

    Args:
        step: the step's name.
        params: of the whole run, or those of the step.
        root: the folder with `components/` and `models/`.
    """
    return value_digest({file: _digest(root / file) for file in shaping(step, params, root)})


def shaping(step: str, params: Params, root: Path = ROOT) -> list[str]:
    """The modules that shape a step's result, and their templates, as paths below `root`.

    Arguments as of `code_digest`.
    """
    found: set[str] = set()
    todo = [f"components/{step}.py"]
    while todo:
        file = todo.pop()
        if file not in found and not any(PurePosixPath(file).is_relative_to(around) for around in AROUND):
            found.add(file)
            todo += [*imported(file, root), *_chosen(file, params, root)]
    return sorted(found.union(*(_templates(file, root) for file in found)))


def imported(file: str, root: Path = ROOT) -> Iterator[str]:
    """Modules of this project that a module imports, at its top or inside its functions."""
    for parts in (name.split(".") for name in _imports((root / file).read_bytes())):
        for path in ("/".join(parts) + ".py", "/".join(parts) + "/__init__.py"):
            if parts[0] in PACKAGES and (root / path).exists():
                yield path


def _chosen(file: str, params: Params, root: Path) -> Iterable[str]:
    """The modules that a package finds by name: the one that the parameters choose; all where they don't tell."""
    package, _, name = file.rpartition("/")
    if name != "__init__.py" or package not in CHOSEN_BY:
        return []
    option = CHOSEN_BY[package]
    try:
        chosen = reduce(getattr, option.split("."), params) if option else "*"
    except AttributeError:
        chosen = "*"
    if chosen == "*":
        return [f"{package}/{path.name}" for path in (root / package).glob("*.py")]
    return [f"{package}/{chosen}.py"]


def _templates(file: str, root: Path) -> set[str]:
    """Templates that a module names; they lie in a folder beside it."""
    text = (root / file).read_text(encoding="utf-8")
    folder = root / PurePosixPath(file).parent / "templates"
    return {path.relative_to(root).as_posix() for path in folder.glob("*") if path.name in text}


def _digest(file: Path) -> str:
    return _meaning(file.read_bytes()) if file.suffix == ".py" else file_digest(file)


@cache
def _imports(source: bytes) -> list[str]:
    """Names of all modules that might be meant by the import statements."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


@cache
def _meaning(source: bytes) -> str:
    """Digest of a module without its comments and docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()
