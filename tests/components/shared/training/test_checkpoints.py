"""A training's state is kept whole or not at all, and nothing but such a state is ever taken for one."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from components.shared.errors import UserError
from components.shared.training.checkpoints import Checkpoint, Finished, keeping
from tests.helpers.repository import ROOT

ROWS = [{"epoch": 1, "loss": 2.5}, {"epoch": 2, "loss": float("inf"), "probe_accuracy": 0.25}]


class Variable:
    """What a Keras variable offers to a checkpoint."""

    def __init__(self, value):
        self.value = np.asarray(value)
        self.shape, self.dtype = self.value.shape, str(self.value.dtype)

    def __array__(self, dtype=None, copy=None):
        return self.value

    def assign(self, value):
        self.value = value


def variables(fill):
    return [
        Variable(np.full((2, 3), fill, "float32")),
        Variable(np.array(fill, "int64")),
        Variable(np.full(2, fill, "uint32")),
        Variable(np.zeros((0, 4), "float32")),
    ]


@pytest.fixture
def kept(tmp_path):
    checkpoint = Checkpoint("0123", tmp_path / "states" / "pretrain")
    checkpoint.save(2, ROWS, variables(7))
    return checkpoint


def restore(checkpoint):
    """What is restored, and the variables afterwards."""
    into = variables(1)
    return checkpoint.restore(into), into


def assert_unused(checkpoint):
    """Nothing is restored and no variable is touched."""
    found, into = restore(checkpoint)
    assert found == (0, [])
    for variable, untouched in zip(into, variables(1), strict=True):
        np.testing.assert_array_equal(variable.value, untouched.value)


def test_what_is_kept_comes_back_bit_by_bit(kept):
    found, into = restore(kept)
    assert found == (2, ROWS)
    for variable, expected in zip(into, variables(7), strict=True):
        assert variable.value.dtype == expected.value.dtype
        np.testing.assert_array_equal(variable.value, expected.value)


def test_a_later_state_replaces_an_earlier_one(kept):
    kept.save(3, [*ROWS, {"epoch": 3}], variables(8))
    found, into = restore(kept)
    assert found[0] == 3
    assert into[1].value == 8
    assert list(kept.path.parent.iterdir()) == [kept.path]


def test_nothing_kept_is_nothing_restored(tmp_path):
    assert_unused(Checkpoint("none", tmp_path / "nowhere"))
    (tmp_path / "file").write_text("")
    assert_unused(Checkpoint("none", tmp_path / "file"))


def test_another_key_has_another_state(kept):
    assert_unused(Checkpoint("4567", kept.path.parent))


def test_a_removed_state_is_gone_and_may_be_removed_again(kept):
    kept.remove()
    assert list(kept.path.parent.iterdir()) == []
    assert_unused(kept)
    kept.remove()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.99])
def test_half_a_file_is_no_state(kept, share):
    data = kept.path.read_bytes()
    kept.path.write_bytes(data[: int(share * len(data))])
    assert_unused(kept)


def test_a_file_with_other_bytes_anywhere_is_no_state_or_the_same(kept):
    data = kept.path.read_bytes()
    outcomes = set()
    for position in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[position] ^= 0x55
        kept.path.write_bytes(bytes(damaged))
        found, into = restore(kept)
        # some bytes of an archive, such as times of day, mean nothing
        expected = variables(7) if found[0] else variables(1)
        assert found in ((2, ROWS), (0, []))
        for variable, value in zip(into, expected, strict=True):
            np.testing.assert_array_equal(variable.value, value.value)
        outcomes.add(found[0])
    assert outcomes == {0, 2}


def foreign_files():
    arrays = {f"v{i:05d}": v.value for i, v in enumerate(variables(7))}
    state = np.frombuffer(b'{"epoch": 2, "rows": []}', "uint8")

    def text(content):
        return {"state": np.frombuffer(content, "uint8"), **arrays}

    return {
        "a text": b"epoch 2",
        "a pickle": pickle.dumps({"epoch": 2}),
        "a list instead of the state": text(b"[1, 2]"),
        "no JSON": text(b"{epoch"),
        "bytes that are no text": text(b"\xff\xfe\x00"),
        "no epoch": text(b'{"rows": []}'),
        "an epoch that is no number": text(b'{"epoch": null, "rows": []}'),
        "rows that are none": text(b'{"epoch": 2, "rows": [3]}'),
        "no state": arrays,
        "a variable too few": {"state": state, **dict(list(arrays.items())[:-1])},
        "a variable too many": {"state": state, **arrays, "v00004": np.zeros(1)},
        "another shape": {"state": state, **arrays, "v00000": np.zeros((3, 2), "float32")},
        "another type": {"state": state, **arrays, "v00000": np.zeros((2, 3), "float64")},
        "an object": {"state": state, **arrays, "v00000": np.array([[None] * 3] * 2)},
    }


@pytest.mark.parametrize("name", foreign_files())
def test_a_foreign_file_is_no_state(kept, name):
    content = foreign_files()[name]
    if isinstance(content, bytes):
        kept.path.write_bytes(content)
    else:
        np.savez(kept.path, **content)
    assert_unused(kept)


def test_an_array_or_another_archive_or_a_folder_is_no_state(kept):
    with kept.path.open("wb") as file:
        np.save(file, np.zeros(3))
    assert_unused(kept)
    with zipfile.ZipFile(kept.path, "w") as archive:
        archive.writestr("notes.txt", "epoch 2")
    assert_unused(kept)
    kept.path.unlink()
    kept.path.mkdir()
    assert_unused(kept)


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_writer_that_dies_leaves_the_earlier_state(kept, monkeypatch, moment):
    def die(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(*{"fsync": (os, "fsync", die), "replace": (Path, "replace", die)}[moment])
    with pytest.raises(KeyboardInterrupt):
        kept.save(3, [], variables(9))
    monkeypatch.undo()
    found, into = restore(kept)
    assert found == (2, ROWS)
    assert into[1].value == 7
    # what it left does not hinder the next one
    kept.save(4, [], variables(9))
    assert restore(kept)[0] == (4, [])
    assert list(kept.path.parent.iterdir()) == [kept.path]


def test_a_state_that_cannot_be_written_is_told_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be kept: Not a directory") as caught:
        Checkpoint("0123", tmp_path / "file" / "pretrain").save(1, [], variables(0))
    assert "\n" not in str(caught.value)


# claims a state, says so, and lets go of it when it is told to
HOLDER = """
import sys
from pathlib import Path
from components.shared.training.checkpoints import Checkpoint

with Checkpoint(sys.argv[1], Path(sys.argv[2])) as checkpoint:
    print(checkpoint.claim(), flush=True)
    input()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that keeps a state in `tmp_path`."""
    command = [sys.executable, "-c", HOLDER, "0123", str(tmp_path)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout.readline() == "True\n"
        yield process
        process.kill()


def test_one_process_keeps_a_state_until_it_ends(holder, tmp_path):
    with Checkpoint("0123", tmp_path) as second, Checkpoint("4567", tmp_path) as other:
        assert other.claim()
        assert not second.claim()
        holder.communicate("\n")
        assert second.claim() and second.claim()
    # nothing is left
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_keeps_no_state_from_the_next_one(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with Checkpoint("0123", tmp_path) as second:
        assert second.claim()


def test_a_claim_that_was_let_go_between_two_looks_is_not_shared(tmp_path, monkeypatch):
    """Who waits at a file that was removed would hold it, and so would who made it anew."""
    with Checkpoint("0123", tmp_path) as first, Checkpoint("0123", tmp_path) as third:
        opened = os.open

        def removed(path, *arguments):
            descriptor = opened(path, *arguments)
            monkeypatch.undo()
            Path(path).unlink()
            assert third.claim()
            return descriptor

        monkeypatch.setattr(os, "open", removed)
        assert not first.claim()


def test_processes_that_find_another_training_write_look_again(kept, monkeypatch):
    """Of several processes one found the state a moment before another training replaced it."""
    others = iter([1, 2, 2])
    monkeypatch.setattr("components.shared.training.checkpoints.all_gather", lambda epoch: [epoch, next(others)])
    assert restore(kept)[0] == (2, ROWS)
    others = iter([1, 1])
    into = variables(1)
    with pytest.raises(UserError, match=r"found states after \[1, 2\] epochs; mount one shared folder there"):
        kept.restore(into)
    np.testing.assert_array_equal(into[0].value, variables(1)[0].value)


GIVEN = {"answers": np.array([[0.1, 0.9]], "float32"), "steps": 7, "loss": float("inf"), "error": "became NaN"}


@pytest.fixture
def block(tmp_path, monkeypatch):
    """A function that gives the block of a step in whose folder its trainings are kept."""
    monkeypatch.setattr("components.shared.training.checkpoints.training_key", lambda *args: "0123")
    return lambda: keeping("search", None, 0, {}, tmp_path / "kept")


def assert_given(found):
    assert set(found) == set(GIVEN)
    for name, value in GIVEN.items():
        assert found[name].dtype == np.asarray(value).dtype
        np.testing.assert_array_equal(found[name], value)


def never():
    raise AssertionError("it is kept")


def test_a_finished_training_is_kept_until_its_step_has_finished(block, tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt), block() as finished:
        assert_given(finished.once("first", lambda: GIVEN))
        raise KeyboardInterrupt
    assert capsys.readouterr().out == ""
    with block() as finished:
        assert_given(finished.once("first", never))
        assert finished.once("second", lambda: {"steps": 8})["steps"] == 8
    said = capsys.readouterr().out
    assert said == f"search: going on after 1 finished trainings, kept in {tmp_path}/kept/0123\n"
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_damaged_file_is_trained_again(tmp_path):
    (tmp_path / "first.npz").write_text("half of it")
    assert_given(Finished(tmp_path).once("first", lambda: GIVEN))
    assert_given(Finished(tmp_path).once("first", never))


def test_where_nothing_is_kept_each_training_is_made(tmp_path):
    assert_given(Finished().once("first", lambda: GIVEN))
    assert Finished().once("first", lambda: {"steps": 8})["steps"] == 8


def test_a_folder_for_finished_trainings_that_can_not_be_written_is_refused_at_once(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match="file/kept: finished trainings can't be written there"),
        keeping("search", None, 0, {}, tmp_path / "file" / "kept"),
    ):
        pass
