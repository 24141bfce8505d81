"""Progress in a log: few lines, each with what is done, the numbers, and the time that is left."""

from __future__ import annotations

import re

import pytest

from components.shared import progress
from components.shared.progress import Progress


class Clock:
    """A clock that moves only when told to."""

    now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def lines(capsys):
    return capsys.readouterr().out.splitlines()


def test_the_first_and_the_last_unit_are_always_told(capsys, clock):
    bar = Progress("pretrain", 50, "epoch", every=5)
    for _ in range(50):
        bar.step({"loss": 1.23456})
    assert [line.split("  ")[:2] for line in lines(capsys)] == [
        ["pretrain: epoch 1/50", "loss 1.235"],
        ["pretrain: epoch 50/50", "loss 1.235"],
    ]


def test_in_between_a_line_comes_every_so_many_seconds(capsys, clock):
    bar = Progress("pretrain", 100, "epoch", every=5)
    for _ in range(100):
        clock.now += 1
        bar.step()
    told = [int(re.search(r"epoch (\d+)/100", line)[1]) for line in lines(capsys)]
    assert told == [1, *range(6, 100, 5), 100]


def test_the_time_left_follows_the_pace(capsys, clock):
    bar = Progress("pretrain", 10, "epoch", every=0)
    clock.now += 3
    bar.step()
    assert lines(capsys) == ["pretrain: epoch 1/10  (27 s left)"]


def test_epochs_of_an_earlier_run_do_not_count_for_the_pace(capsys, clock):
    bar = Progress("pretrain", 10, "epoch", every=0)
    bar.start_at(8)
    clock.now += 3
    bar.step()
    assert lines(capsys) == ["pretrain: epoch 9/10  (3 s left)"]


def test_several_units_at_once(capsys, clock):
    bar = Progress("ingest", 250, "image")
    for count in (100, 100, 50):
        clock.now += 10
        bar.step(count=count)
    assert lines(capsys) == [
        "ingest: image 100/250  (15 s left)",
        "ingest: image 200/250  (5 s left)",
        "ingest: image 250/250  (0 s left)",
    ]


def test_on_a_terminal_there_is_a_bar_and_no_lines(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    bar = Progress("ingest", 3, "image")
    for _ in range(3):
        bar.step({"loss": 0.5})
    bar.close()
    out, err = capsys.readouterr()
    assert out == ""
    assert "3/3" in err
    assert "loss=0.5" in err
