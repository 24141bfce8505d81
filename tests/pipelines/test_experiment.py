"""`contrastive experiment`: options are checked before DVC runs them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
import yaml

from components.shared.params.composing import compose_params
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
  images:
    cmd: python -c "import pathlib; pathlib.Path('images').mkdir(); pathlib.Path('images/a').write_text('1')"
    params: [data]
    outs: [images]
  refuse:
    cmd: python -c "import sys, yaml; sys.exit(yaml.safe_load(open('params.yaml'))['runtime']['epochs'] == 13)"
    deps: [images]
    params: [runtime]
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
    assert written == compose_params(["preset=supcon-keras", "runtime.epochs=9", "gate.open_test=false"])[1]
    assert written["data"]["name"] == "cifar10"
    assert (repository / "shown.txt").read_text().split() == ["9", sys.prefix]


def test_options_reach_the_stages(repository):
    done = experiment(repository, "runtime.epochs=7")
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load((repository / "params.yaml").read_text())["runtime"]["epochs"] == 7
    assert (repository / "shown.txt").read_text().split() == ["7", sys.prefix]


def contents(folder):
    """Path → bytes of what an experiment may change."""
    files = [folder / "params.yaml", folder / "dvc.lock", folder / "shown.txt", *(folder / "images").rglob("*")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.exists()}


@pytest.mark.parametrize("epochs", [7, 13])
def test_a_step_that_refuses_leaves_everything_as_it_was(repository, epochs):
    """Whether or not there was a run before: the first experiment fails, or the one after a good one."""
    if epochs == 7:
        assert experiment(repository, "runtime.epochs=7").returncode == 0
    before = contents(repository)
    assert ("images/a" in before) == (epochs == 7)
    done = experiment(repository, "runtime.epochs=13", "data.seed=5")
    assert done.returncode != 0
    if epochs == 7:
        assert contents(repository) == before
    else:
        assert contents(repository)["params.yaml"] == before["params.yaml"]
        assert not (repository / "dvc.lock").exists()
    assert done.stderr.endswith("are as before the experiment\n")


def test_the_test_set_is_opened_only_on_request(repository):
    def opened():
        return yaml.safe_load((repository / "params.yaml").read_text())["gate"]["open_test"]

    done = experiment(repository, "runtime.epochs=7")
    assert not opened()
    assert "the same command with --judge" in done.stdout
    done = experiment(repository, "runtime.epochs=7", "--judge")
    assert done.returncode == 0, done.stderr
    assert opened()
    refused = experiment(repository, "gate.open_test=true")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "with --judge, and only so" in refused.stderr
