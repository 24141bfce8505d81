"""Where what outlasts a run is kept, above all where the working folder can't be written, as in an image."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from components.shared import repository
from components.shared.errors import UserError
from components.shared.repository import state_folder
from components.shared.tracking.client import connect, default_uri
from components.shared.training import checkpoints
from components.shared.training.checkpoints import cache_folder


@pytest.fixture
def closed(in_tmp, monkeypatch):
    """Folders that can't be written, the working one among them; chmod does not stop root."""
    closed, access = {in_tmp / "app"}, os.access

    def asked(path, *args, **kwargs):
        return not closed.intersection([Path(path).absolute(), *Path(path).absolute().parents]) and access(
            path, *args, **kwargs
        )

    (in_tmp / "app").mkdir()
    monkeypatch.chdir(in_tmp / "app")
    monkeypatch.setattr(os, "access", asked)
    monkeypatch.setattr(checkpoints, "CACHE", Path(".cache"))
    monkeypatch.setenv("HOME", str(in_tmp / "home"))
    for name in ("XDG_STATE_HOME", "MLFLOW_TRACKING_URI", "PIPELINE_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    repository._tell.cache_clear()
    return closed


def test_what_can_be_written_is_where_state_is_kept(closed, capsys):
    closed.clear()
    assert state_folder() == Path()
    assert (default_uri(), cache_folder("search")) == ("sqlite:///mlflow.db", Path(".cache/search"))
    assert capsys.readouterr().err == ""


def test_else_it_is_the_users_own_folder_and_one_line_says_so(closed, in_tmp, monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", str(in_tmp / "temporary"))
    own = in_tmp / "home" / ".local" / "state" / "contrastive"
    assert state_folder() == own
    assert cache_folder("search") == own / ".cache" / "search"
    assert default_uri() == f"sqlite:///{own}/mlflow.db"
    assert capsys.readouterr().err == f"{in_tmp}/app can't be written: state is kept in {own}\n"


def test_the_user_may_name_it(closed, in_tmp, monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", str(in_tmp / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", str(in_tmp / "volume"))
    assert state_folder() == in_tmp / "volume" / "contrastive"
    assert "lost" not in capsys.readouterr().err


def test_what_lies_in_a_temporary_folder_is_said_to_be_lost_with_a_container(closed, in_tmp, monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", str(in_tmp / "home"))
    state_folder()
    assert capsys.readouterr().err.endswith(
        "/contrastive, and lost with a container: name a volume by XDG_STATE_HOME\n"
    )


def test_where_nothing_can_be_written_the_working_folder_is_refused(closed, in_tmp):
    closed.add(in_tmp)
    assert state_folder() == Path()
    with pytest.raises(UserError, match="app can't be written; set it to a server"):
        connect()


def test_a_database_that_is_there_is_the_one_that_is_meant(closed, in_tmp):
    (in_tmp / "app" / "mlflow.db").touch()
    with pytest.raises(UserError, match=r"app/mlflow\.db can't be written; set it to a server"):
        connect()


def test_a_task_of_kubeflow_has_no_registry_of_its_own(closed, monkeypatch):
    """It would find no champion to compare with, and what it registers would be gone with the pod."""
    monkeypatch.setenv("PIPELINE_RUN_ID", "1")
    with pytest.raises(UserError, match="app can't be written; set it to a server"):
        connect()
