"""The month of nights: what it is compared with, and a short one in full."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks import month
from tests.helpers.repository import ROOT


def test_a_month_has_thirty_nights_and_each_kind_of_event():
    nights = month.month()
    assert len(nights) == 30
    assert {night.away for night in nights} == {"", "twice", "until morning", "all night"}
    assert {night.look for night in nights} == {None, 1, 2}
    assert {night.verdict for night in nights} == {"blessed", "not judged", "run failed"}
    assert {night.review[:1] for night in nights} == {(), ("approve",), ("reject",)}
    assert max(night.runs for night in nights) == 2


@pytest.mark.parametrize(
    ("change", "status", "told"),
    [
        ({}, 0, ""),
        ({"look": 2}, 1, "night 1, first data: look = 2, expected 1"),
        (
            {"verdict": "not blessed", "versions": 0},
            1,
            "verdict = not blessed, expected blessed, versions = 0, exp",
        ),
        ({"resent": 1}, 1, "resent = 1, expected 0"),
    ],
)
def test_a_night_that_is_not_as_it_should_be_fails(in_tmp, monkeypatch, capsys, change, status, told):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "TF_CPP_MIN_LOG_LEVEL"):
        monkeypatch.setenv(name, "")
    expected = month.Night("first data", **month.NEW)
    names = ("changes", "ran", "gpu", "look", "verdict", "versions", "announced", "resent")
    found = {name: getattr(expected, name) for name in names} | change
    monkeypatch.setattr(month, "short", lambda: [expected])
    monkeypatch.setattr(month, "connect", lambda: None)
    monkeypatch.setattr(month, "spend", lambda *_: found)
    monkeypatch.setattr(sys, "argv", ["month", "--short", "--out", "short.json"])
    assert month.main() == status
    assert told in capsys.readouterr().err
    (row,) = json.loads((in_tmp / "short.json").read_text())
    assert {name: row[name] for name in names} == found


def test_nights_in_a_row_that_were_alike_are_one_line():
    night = {"what": "unchanged", "changes": "unchanged", "ran": "", "gpu": 27300, "look": None}
    night |= {"verdict": "not judged", "versions": 0, "announced": 0, "resent": 0}
    rows = [{"night": number, **night} for number in (2, 3)] + [{"night": 4, **night, "look": 3}]
    assert month.lines(rows)[2:] == [
        "| 2–3 | unchanged | unchanged | – | 27,300 | – | not judged | 0 | 0 | 0 |",
        "| 4 | unchanged | unchanged | – | 27,300 | 3 | not judged | 0 | 0 | 0 |",
    ]


@pytest.mark.slow
def test_the_nights_in_which_most_happens_are_as_they_should_be(tmp_path):
    command = [sys.executable, "-m", "benchmarks.month", "--short", "--out", str(tmp_path / "short.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "short.json").read_text())
    assert [(row["look"], row["verdict"], row["resent"]) for row in rows] == [
        (1, "blessed", 0), (1, "blessed", 0), (2, "run failed", 1), (2, "blessed", 0), (None, "not judged", 0),
    ]  # fmt: skip
