"""`contrastive experiment`: options are checked before DVC runs them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
import yaml

from components.shared.params.composing import compose
from tests.helpers.repository import ROOT

# a stage that runs wherever DVC does, and shows which parameters and which interpreter it was given
STAGE = """
stages:
  show:
    cmd: >-
      python -c "import sys, yaml; print(yaml.safe_load(open('params.yaml'))['runtime']['epochs'], sys.prefix)"
      > shown.txt
    params: [runtime]
    outs: [shown.txt]
"""


def experiment(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "pipelines", "experiment", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def repository(tmp_path):
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc" / "config", tmp_path / ".dvc")
    (tmp_path / "dvc.yaml").write_text(STAGE)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "start"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.parametrize(
    ("override", "named"),
    [("data=cifar", "did you mean cifar10?"), ("method.temperature=0", "method.temperature = 0")],
)
def test_a_wrong_option_is_one_line_and_changes_nothing(repository, override, named):
    before = (repository / "params.yaml").read_text()
    done = experiment(repository, override)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and named in done.stderr and done.stderr.count("\n") == 1
    assert (repository / "params.yaml").read_text() == before
    assert not (repository / "shown.txt").exists()


def test_a_preset_reaches_the_stages(repository):
    done = experiment(repository, "preset=supcon-keras", "runtime.epochs=9")
    assert done.returncode == 0, done.stderr
    written = yaml.safe_load((repository / "params.yaml").read_text())
    assert written == compose(["preset=supcon-keras", "runtime.epochs=9"])[1]
    assert written["data"]["name"] == "cifar10"
    assert (repository / "shown.txt").read_text().split() == ["9", sys.prefix]


def test_options_reach_the_stages(repository):
    done = experiment(repository, "runtime.epochs=7")
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load((repository / "params.yaml").read_text())["runtime"]["epochs"] == 7
    assert (repository / "shown.txt").read_text().split() == ["7", sys.prefix]
