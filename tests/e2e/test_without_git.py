"""A downloaded archive of the repository, in no git."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from components.shared.errors import UserError
from pipelines.__main__ import main
from tests.helpers.repository import ROOT, make_root


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """What `make env` and DVC need of the repository, its environment in place."""
    make_root(tmp_path)
    for name in ("Makefile", "requirements.lock", "data.dvc"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / ".dvc" / "sample", tmp_path / ".dvc" / "sample")
    shutil.copy(ROOT / ".dvc" / "config", tmp_path / ".dvc")
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    shutil.copy(ROOT / "requirements.lock", tmp_path / ".venv" / "installed.lock")
    for name in ("dvc", "contrastive"):
        (programs / name).symlink_to(Path(sys.executable).with_name(name))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(*words):
    done = subprocess.run(["make", "--no-print-directory", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_sample_is_pulled_without_git_and_git_is_used_once_it_is_there(archive):
    assert make("env").startswith("No git repository here")
    # told once
    make("data")
    assert (archive / "data" / "sample").is_dir()
    assert make("env") == ""
    with pytest.raises(UserError, match=rf"^{archive}: is no git repository, .*`git init && git add -A"):
        main(["experiment", "runtime.epochs=2"])
    subprocess.run(["git", "init", "--quiet"], check=True)
    with pytest.raises(UserError, match=r"core\.no_scm.*`make env` undoes it"):
        main(["experiment", "runtime.epochs=2"])
    assert make("env") == ""
    assert "no_scm" not in (archive / ".dvc" / "config.local").read_text()


def test_a_run_is_tracked_without_a_word_about_git(in_tmp):
    program = "from components.shared.tracking.client import connect; connect(); import mlflow; mlflow.start_run()"
    # MLflow leaves the experiment that another test has set in the environment
    here = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    env = {**here, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db", "PATH": str(in_tmp)}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
