"""A warning where the environment was made from another lock."""

from __future__ import annotations

import sys

import pytest

from components.shared.step import command_line
from pipelines.__main__ import cli
from tests.helpers.repository import make_root

WARNING = "warning: .venv is older than requirements.lock; run `make env`\n"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository with the environment that runs this, made from its lock for cards."""
    (make_root(tmp_path) / ".venv").mkdir()
    (tmp_path / "requirements.lock").write_text("keras==1\n")
    (tmp_path / "requirements-gpu.lock").write_text("keras==1\njax==1\n")
    (tmp_path / ".venv" / "installed.lock").write_text("keras==1\njax==1\n")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(monkeypatch, capsys):
    """What a command and a step say on the error stream."""
    monkeypatch.setattr(sys, "argv", ["contrastive", "health"])
    with pytest.raises(SystemExit):
        cli()
    command = capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["champion", "--params", "none.yaml"])
    with pytest.raises(SystemExit):
        command_line("champion", lambda *_: None)
    return command, capsys.readouterr().err.partition("error: none.yaml")[0]


def test_a_lock_that_was_changed_since_is_told_by_commands_and_steps(root, monkeypatch, capsys):
    (root / "requirements-gpu.lock").write_text("keras==2\njax==1\n")
    assert told(monkeypatch, capsys) == (WARNING, WARNING)


def test_an_environment_of_one_of_the_locks_is_no_matter(root, monkeypatch, capsys):
    assert told(monkeypatch, capsys) == ("", "")


@pytest.mark.parametrize("other", ["not made by make", "not the one in use"])
def test_another_environment_is_no_matter(root, monkeypatch, capsys, other):
    if other == "not made by make":
        (root / ".venv" / "installed.lock").unlink()
    else:
        (root / ".venv" / "installed.lock").write_text("keras==0\n")
        monkeypatch.setattr(sys, "prefix", str(root / "conda"))
    assert told(monkeypatch, capsys) == ("", "")
