"""A schedule on changed data, by KFP's local runner: the real look and record around steps that do nothing."""

from __future__ import annotations

import pytest

from pipelines.kubeflow import RUN, components, pipeline, runtime
from pipelines.kubeflow.local import run_here
from tests.helpers import short_steps
from tests.helpers.image_trees import write_tree
from tests.helpers.repository import ROOT


class Status:
    def __init__(self, state):
        self.state, self.error_message = state, ""


@pytest.fixture
def night(tracking_uri, monkeypatch):
    """A function that does what a night's run does: looks, and then ends in a state."""

    def _night(run, state, ends="SUCCEEDED", options=("data=sample", "data.name=looked-at")):
        monkeypatch.setenv(RUN, run)
        changed = runtime.has_changed(options, state)
        if ends:
            runtime.record(Status(ends), options)
        return changed

    return _night


@pytest.mark.slow
def test_what_is_compared_is_the_last_run_that_ended_well(night):
    nights = [
        ("1", "a", "FAILED", True),
        ("2", "a", "SUCCEEDED", True),
        ("3", "a", "SUCCEEDED", False),
        ("4", "b", "FAILED", True),
        ("5", "b", "", True),
        ("6", "b", "SUCCEEDED", True),
        ("7", "a", "SUCCEEDED", True),
        ("8", "a", "SUCCEEDED", False),
        # not to be seen
        ("9", "", "SUCCEEDED", True),
        ("10", "", "SUCCEEDED", True),
    ]
    assert [night(run, state, ends) for run, state, ends, _ in nights] == [changed for *_, changed in nights]
    # another dataset's nights are its own
    assert night("11", "a", options=("data=sample", "data.name=another"))


def test_the_state_is_that_of_data_options_and_code(tmp_path):
    def state(*options, data=""):
        return runtime.state_of(runtime.settings_of_steps(["runtime=gpu", *options], data, "[0, 1, 2]"))

    assert state(data="monday") == state(data="monday") != state(data="tuesday")
    assert state("gate.min_gain=0.05", data="monday") != state(data="monday")
    assert state("data=folder", f"data.path={tmp_path}/nothing") == ""


def test_a_server_that_does_not_answer_ends_the_run_in_one_line(monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(SystemExit):
        runtime.has_changed([], "a")
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_an_unchanged_night_runs_nothing_but_the_look(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pipeline, "STEPS", short_steps.TABLE)
    for name in (*short_steps.TABLE, "refuse"):
        monkeypatch.setattr(components, name, getattr(short_steps, name))
    monkeypatch.setattr("pipelines.kubeflow.local.table", lambda *_: [])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(ROOT)
    images = tmp_path / "images"
    write_tree(images, {"a": 6, "b": 6})
    options = ["data=folder", f"data.path={images}"]

    def night():
        capsys.readouterr()
        run_here(options, tmp_path / "kfp", "", cache=False, on_change=True)
        return capsys.readouterr().out

    first, second = night(), night()
    assert "look: data, options and code are changed" in first and "refuse: done" in first
    assert "look: data, options and code are unchanged" in second
    assert "ingest: running" not in second and "refuse: running" not in second and "record: done" in second
    write_tree(images, {"a": 7})
    assert "refuse: done" in night()
