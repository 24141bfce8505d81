"""A copy of the repository in git, shrunk to a run of seconds on the built-in sample, for tests of whole runs."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.repository import ROOT, tracked_files

# as small as still lets the pretrained encoder beat the baseline, which is hardly trained
TINY: dict[str, dict[str, Any]] = {
    "encoder": {"width": 16},
    # of so short trainings the start of more processes is what costs
    "runtime": {"epochs": 4, "replicates": [0, 1], "threads": None},
    "supervised": {
        "search": {"learning_rates": [0.001], "weight_decays": [0.0001], "epochs": [1], "augmentations": ["weak"]}
    },
    "probe": {"label_budgets": [1, 2], "l2": [0.01], "steps": 50},
    # With two trainings a side, 0.05 would leave the test set closed. Whether so small models beat the baseline by
    # enough depends on the processor; that none is so often right does not.
    "gate": {"min_replicates": 2, "alpha": 0.2, "min_accuracy": 0.99},
}


class Project:
    """The copy, with commands run as in the activated environment."""

    def __init__(self, root: Path):
        self.root = root
        self.env = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "DVC_"))}
        self.env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), self.env["PATH"]])

    def tried(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command, whatever becomes of it."""
        return subprocess.run(command, cwd=self.root, env=self.env, capture_output=True, text=True, timeout=1500)

    def run(self, *command: str) -> str:
        """Run a command; returns what it printed."""
        done = self.tried(*command)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def stages_run(self, *command: str) -> list[str]:
        """Run a command; returns the stages that DVC says it ran."""
        lines = self.run(*command).splitlines()
        return [line.split("'")[1] for line in lines if line.startswith("Running stage")]

    def answer(self, *command: str) -> Any:
        """Run a command of DVC; returns its answer."""
        return json.loads(self.run(*command, "--json"))

    def commit(self, message: str) -> None:
        """Commit everything."""
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", message)


def make_project(root: Path) -> Project:
    """Copy the repository to `root`, make the tiny run the default one, pull the sample, and commit."""
    for file in tracked_files():
        name = file.relative_to(ROOT)
        if name.as_posix() not in ("dvc.lock", "metrics.json"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, root / name)
    _shrink(root / "conf")
    project = Project(root)
    project.run("git", "init", "--quiet")
    project.run("git", "config", "user.name", "Test")
    project.run("git", "config", "user.email", "test@example.org")
    project.run("python", "-m", "pipelines", "compose")
    project.run("dvc", "pull", "--quiet", "--remote", "sample", "data.dvc")
    project.commit("Start")
    return project


def finished_project(factory: pytest.TempPathFactory, root: Path) -> tuple[Project, list[str]]:
    """A copy at `root` of the tiny project after its first `dvc repro`, which one test process makes for all.

    Returns:
        The project, not committed, and the stages that DVC said it ran.
    """
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    place, stages = shared / "finished", shared / "finished.json"
    with (shared / "finished.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stages.exists():
            shutil.rmtree(place, ignore_errors=True)
            stages.write_text(json.dumps(make_project(place).stages_run("dvc", "repro")))
    shutil.copytree(place, root, symlinks=True, dirs_exist_ok=True)
    return Project(root), json.loads(stages.read_text())


def _shrink(conf: Path) -> None:
    """Change conf/ itself, as `dvc exp run -S` composes from there."""
    config = yaml.safe_load((conf / "config.yaml").read_text())
    _merge(config, TINY)
    (conf / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def _merge(values: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for name, value in changes.items():
        if isinstance(value, Mapping):
            _merge(values.setdefault(name, {}), value)
        else:
            values[name] = value
