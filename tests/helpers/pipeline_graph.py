"""dvc.yaml and the code it names, as plain data: stages, and who depends on whom."""

from __future__ import annotations

from pathlib import PurePosixPath

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
