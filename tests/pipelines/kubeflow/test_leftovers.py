"""What interrupted trainings left on a cluster's claim goes when it is old, and nothing else does."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from components.shared.training import checkpoints
from components.shared.training.checkpoints import Checkpoint, keeping
from pipelines.kubeflow.leftovers import remove_unused

OLD, NEW = "a" * 64, "b" * 64


@pytest.fixture
def folder(tmp_path):
    for key in (OLD, NEW):
        Checkpoint(key, tmp_path).save(1, [], [np.zeros(2)])
    return tmp_path


def age(path, days):
    moment = time.time() - days * 24 * 3600
    os.utime(path, (moment, moment))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_an_old_state_goes_with_what_killed_writers_left_of_it(folder):
    for name in (f".{OLD}.lock", f".{OLD}.npz.0123.partial"):
        (folder / name).touch()
    for path in folder.glob(f"*{OLD}*"):
        age(path, 31)
    remove_unused(folder, 30)
    assert names(folder) == [f"{NEW}.npz"]


def test_a_state_that_a_running_training_has_claimed_stays(folder):
    with Checkpoint(OLD, folder) as state:
        assert state.claim()
        for path in folder.iterdir():
            age(path, 400)
        remove_unused(folder, 30)
        assert names(folder) == [f".{OLD}.lock", f"{OLD}.npz"]


def test_where_there_are_no_locks_a_training_that_began_lately_keeps_its_state(folder):
    age(folder / f"{OLD}.npz", 31)
    (folder / f".{OLD}.lock").touch()
    remove_unused(folder, 30)
    assert f"{OLD}.npz" in names(folder)


def test_finished_trainings_go_when_the_last_of_them_is_old(tmp_path, monkeypatch):
    def interrupted(key):
        monkeypatch.setattr(checkpoints, "training_key", lambda *_: key)
        with pytest.raises(KeyboardInterrupt), keeping("search", None, 0, {}, tmp_path) as finished:
            for name in ("first", "second"):
                finished.once(name, lambda: {"steps": 7})
            raise KeyboardInterrupt
        kept = tmp_path / key[:32]
        age(kept / "first.npz", 31)
        age(kept, 31)
        return kept

    old, going_on = interrupted(OLD), interrupted(NEW)
    age(old / "second.npz", 31)
    remove_unused(tmp_path, 30)
    assert list(tmp_path.iterdir()) == [going_on]
    assert names(going_on) == ["first.npz", "second.npz"]


def test_what_is_not_ours_stays(folder):
    for name in ("notes", "lost+found"):
        (folder / name).mkdir()
        age(folder / name, 400)
    (folder / "read.me").touch()
    age(folder / "read.me", 400)
    remove_unused(folder, 30)
    assert {"notes", "lost+found", "read.me"} <= set(names(folder))


def test_a_first_training_finds_nothing(tmp_path):
    remove_unused(tmp_path / "pretrain", 30)
    assert names(tmp_path) == []
