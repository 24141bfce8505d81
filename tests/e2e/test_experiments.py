"""Experiments in a fresh clone: what the first one shows, its curves meanwhile, and what the queue leaves."""

from __future__ import annotations

import json
import re
import subprocess
import time

import mlflow
import pytest

from tests.helpers.project import Project, finished_project

pytestmark = pytest.mark.slow

# one replicate is never blessed, and shows all that is asked for here
OPTIONS = ("runtime.epochs=6", "runtime.replicates=[0]")
LOSS = "live/pretrain/train/contrastive_loss.tsv"


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A fresh clone of a project whose results are committed, with its data and none of its outputs."""
    project, _ = finished_project(tmp_path_factory, tmp_path_factory.mktemp("project"))
    project.commit("Run the pipeline")
    root = tmp_path_factory.mktemp("cloned") / "clone"
    project.run("git", "clone", "--quiet", ".", str(root))
    clone = Project(root)
    clone.run("git", "config", "user.name", "Test")
    clone.run("git", "config", "user.email", "test@example.org")
    clone.run("dvc", "pull", "--quiet", "--remote", "sample", "data.dvc")
    return clone


@pytest.fixture(scope="module")
def first(clone, tmp_path_factory):
    """The first experiment: what it printed, and what DVC answered about the plots while it trained."""
    log, shown = tmp_path_factory.mktemp("log") / "printed.txt", None
    with log.open("w") as file:
        command = ["python", "-m", "pipelines", "experiment", *OPTIONS, "--name", "first"]
        running = subprocess.Popen(command, cwd=clone.root, env=clone.env, stdout=file, stderr=subprocess.STDOUT)
        while running.poll() is None:
            curve = clone.root / LOSS
            if shown is None and curve.exists() and len(curve.read_text().splitlines()) > 2:
                # named, since DVC has no answer for all of them before each folder of dvc.lock has been made once
                shown = clone.answer("dvc", "plots", "show", "dvc.yaml::live")
            time.sleep(0.2)
    assert running.returncode == 0, log.read_text()
    return log.read_text(), shown


def test_the_first_experiment_warns_of_nothing(first):
    printed, _ = first
    # the second kind is TensorFlow's own log
    worries = re.compile("warn|deprecat|^[WEF][0-9]{4} ", re.IGNORECASE)
    assert [line for line in printed.splitlines() if worries.search(line)] == []


def test_its_curves_are_drawn_while_it_trains_and_gone_afterwards(clone, first):
    _, shown = first
    (plot,) = shown["data"][LOSS]
    rows = plot["content"]["data"]["values"]
    assert [(row["epoch"], row["seed"]) for row in rows][:2] == [("1", "0"), ("2", "0")]
    assert all(float(row["value"]) > 0 for row in rows)
    assert [path.name for path in (clone.root / "live").iterdir()] == [".gitignore"]
    assert not [line for line in clone.run("git", "status", "--porcelain").splitlines() if "live" in line]


@pytest.fixture(scope="module")
def queued(clone, first):
    """Two experiments that the queue has run; what their gate asks for is all that they differ in."""
    asked = (*OPTIONS, "gate.min_gain=0.1,0.2", "--queue", "--name", "queued")
    said = clone.run("python", "-m", "pipelines", "experiment", *asked)
    clone.run("dvc", "queue", "start")
    until = time.monotonic() + 1200
    while re.search("Queued|Running", state := clone.run("dvc", "queue", "status")):
        assert time.monotonic() < until, state
        time.sleep(2)
    assert state.count("Success") == 2, state
    return said


def test_queued_experiments_keep_their_runs_in_the_repositorys_own_store(clone, queued):
    assert "queued: 2" in queued
    client = mlflow.MlflowClient(f"sqlite:///{clone.root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("contrastive-sample").experiment_id
    pipelines = client.search_runs([experiment], "tags.step = 'pipeline'")
    names = {run.info.run_id: run.info.run_name for run in pipelines}
    judged = client.search_runs([experiment], "tags.step = 'evaluate'")
    parents = [names[run.data.tags["mlflow.parentRunId"]] for run in judged]
    assert sorted(name.rpartition("(")[2].rstrip(")") for name in parents) == ["first", "queued-1", "queued-2"]
    for run in judged:
        assert run.info.status == "FINISHED"
        assert (clone.root / "mlartifacts" / run.info.run_id / "artifacts" / "report.html").is_file()


def test_the_list_names_them_with_what_they_changed(clone, queued):
    listed = clone.run("python", "-m", "pipelines", "experiments")
    for number, gain in ((1, 0.1), (2, 0.2)):
        (told,) = re.findall(rf"(?m)^  queued-{number} .*\n(?:    .*\n)*", listed)
        assert f"gate.min_gain={gain}" in told and "not judged" in told
    shown = json.loads(clone.run("dvc", "exp", "show", "--json"))
    assert {one["name"] for entry in shown for one in entry["experiments"] or ()} == {
        "first",
        "queued-1",
        "queued-2",
    }
