"""dvc.yaml and the code it names, as plain data: stages, who depends on whom, what a module imports."""

from __future__ import annotations

import ast
from pathlib import Path, PurePosixPath

import yaml

from components.shared.steps import STEPS
from tests.helpers.repository import ROOT

# step → the folder it writes
FOLDERS = {step.name: step.out for step in STEPS.values()}


def load(name="dvc.yaml"):
    return yaml.safe_load((ROOT / name).read_text())


def outs(stage):
    """Output folders of a stage; an out with options is a mapping of one key."""
    return [next(iter(out)) if isinstance(out, dict) else out for out in stage["outs"]]


def covers(dependency, path):
    """Whether a dependency is this path or a folder that holds it."""
    return PurePosixPath(path).is_relative_to(dependency)


def downstream(stages, first):
    """The stage and all that DVC reproduces after it."""
    found = {first}
    while True:
        made = [out for name in found for out in outs(stages[name])]
        more = {
            name for name, stage in stages.items() if any(covers(o, d) for o in made for d in stage.get("deps", []))
        }
        if more <= found:
            return found
        found |= more


def imports(path):
    """Files of this project that a module imports, at its top or inside its functions."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            for file in (Path(*name.split(".")).with_suffix(".py"), Path(*name.split("."), "__init__.py")):
                if name.split(".")[0] in ("components", "models") and (ROOT / file).exists():
                    yield file.as_posix()


def closure(path, leave_out=()):
    """The module and everything of this project that it needs, without following `leave_out`."""
    found, todo = set(), [path]
    while todo:
        file = todo.pop()
        if file not in found and file not in leave_out:
            found.add(file)
            todo.extend(imports(file))
    return found
