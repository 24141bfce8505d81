"""A schedule on changed data, by KFP's local runner: the real look and record around steps that do nothing."""

from __future__ import annotations

import contextlib

import mlflow
import pytest

from components.shared.artifacts import Dataset
from components.shared.checks.drift import DATASET_STATISTICS, dataset_statistics
from components.shared.params.composing import compose_params
from components.shared.params.schema import select
from components.validate import validate
from pipelines.kubeflow import RUN, components, pipeline, runtime
from pipelines.kubeflow.local import run_here
from tests.helpers import short_steps
from tests.helpers.datasets import PATTERNS, make_arrays, make_dataset, write_dataset
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
        found = components.look(list(options), state, f"settings of {state}")
        if ends:
            runtime.record(Status(ends), options)
        return {"changed": True, "unchanged": False}[found]

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
        runtime.has_changed([], "a", "")
    assert capsys.readouterr().err.count("\n") == 1


@pytest.fixture
def champion(tmp_path):
    """A function that puts a champion in use that was trained on a dataset; returns its version."""

    def _champion(model, dataset):
        accepted = tmp_path / f"accepted-{dataset.name}"
        accepted.mkdir(exist_ok=True)
        (accepted / DATASET_STATISTICS).write_text(dataset_statistics(Dataset(dataset)).model_dump_json())
        client = mlflow.MlflowClient()
        with contextlib.suppress(mlflow.exceptions.MlflowException):
            client.create_registered_model(model)
        version = client.create_model_version(model, accepted.as_uri()).version
        client.set_registered_model_alias(model, "champion", version)
        return version

    return _champion


def images_of(folder, seed, shade=1.0):
    """A dataset whose images are of the same kind for each seed, and darker by a shade."""
    counts = {"unlabelled": 45, "train": 30, "validation": 12, "test": 30}
    arrays = make_arrays(counts, image_size=16, seed=seed)
    for images, _ in arrays.values():
        images[:] = images * shade
    return write_dataset(folder, arrays, list(PATTERNS)[:3], name="drifting")


def test_another_champion_is_a_change_where_the_images_are_not_like_its_own(night, champion, tmp_path, capsys):
    now = images_of(tmp_path / "now", seed=0)
    alike, darker = images_of(tmp_path / "alike", seed=1), images_of(tmp_path / "darker", seed=2, shade=0.8)
    options = ("data=sample", "data.name=drifting", "registry.model_name=drifting")

    def one(number, ends="SUCCEEDED"):
        changed = night(number, "a", ends, options)
        return changed, capsys.readouterr().out

    assert one("1")[0]
    # the run that the look has started
    validate(now, tmp_path / "validation", select(compose_params(options)[0], "validate"))
    capsys.readouterr()
    assert not one("2")[0]
    champion("drifting", alike)
    changed, said = one("3")
    assert not changed and "unchanged" in said
    version = champion("drifting", darker)
    changed, said = one("4", "FAILED")
    assert changed
    assert f"the champion, version {version}: brightness_as_before: " in said and "expected -0.5 to 0.5" in said
    assert one("5")[0]
    # it has gone on because of that one already
    assert not one("6")[0]


def test_what_nothing_is_known_of_is_not_compared_and_asked_again(night, champion, tmp_path, capsys):
    dataset = make_dataset(tmp_path / "dataset", image_size=16)
    options = ("data=sample", "data.name=unknown", "registry.model_name=unknown")
    assert night("1", "a", options=options)
    champion("unknown", dataset)
    for run in "23":
        capsys.readouterr()
        assert not night(run, "a", options=options)
        assert "not compared with the champion's images: no run of `validate`" in capsys.readouterr().out


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
