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


@pytest.mark.parametrize(
    ("label", "values", "shown"),
    [
        (
            "pretrain (seed 14)",
            {
                "contrastive_loss": 4.1372,
                "contrastive_accuracy": 0.06152,
                "validation_probe_accuracy": 0.73333,
                "knn_accuracy": 0.7,
            },
            "loss 4.137  val_probe 0.7333",
        ),
        (
            "finetune (seed 0)",
            {"accuracy": 0.91234, "loss": 0.23456, "validation_accuracy": 0.73333, "validation_loss": 0.87654},
            "loss 0.2346  val_acc 0.7333",
        ),
        (
            "search",
            {"learning_rate": 0.0003, "weight_decay": 0.0001, "epochs": 30, "log_loss": 1.2345},
            "loss 1.234  lr 0.0003  wd 0.0001",
        ),
    ],
)
def test_a_line_fits_80_columns_with_what_tells_most(capsys, clock, label, values, shown):
    bar = Progress(label, 200, "epoch")
    clock.now += 9
    bar.step(values, count=100)
    bar.step(values, count=100)
    told = lines(capsys)
    assert all(len(line) <= 80 for line in told)
    assert told[0].startswith(f"{label}: epoch 100/200  {shown}")
    assert told[0].endswith("  (9 s left)")


def test_short_names_are_told_in_whole(capsys, clock):
    bar = Progress("finetune", 1, "epoch")
    bar.step({"accuracy": 0.5, "loss": 2.0, "validation_accuracy": 0.25, "validation_loss": 3.0, "x": 7})
    assert lines(capsys) == ["finetune: epoch 1/1  loss 2  val_acc 0.25  val_loss 3  acc 0.5  x 7  (0 s left)"]


def test_a_bar_fits_80_columns(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    bar = Progress("finetune (seed 0)", 30, "epoch")
    for _ in range(30):
        bar.step({"accuracy": 0.91234, "loss": 0.23456, "validation_accuracy": 0.73333, "validation_loss": 0.87654})
    bar.close()
    last = capsys.readouterr().err.split("\r")[-1].rstrip()
    assert len(last) <= 80
    assert last.startswith("finetune (seed 0): 30/30, loss=0.2346, val_acc=0.7333")
    assert " left) " in last


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
