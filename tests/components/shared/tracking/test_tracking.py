"""Each step's MLflow run: what it holds, and what happens when the server is away or goes away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import numpy as np
import pytest

from components.shared.artifacts import Dataset
from components.shared.errors import UserError, redacted
from components.shared.tracking.client import connect, experiment_id
from components.shared.tracking.lineage import lineage
from components.shared.tracking.run import Run, flatten, tracked
from tests.helpers.datasets import make_dataset
from tests.helpers.repository import ROOT

PARAMS = {"gate": {"min_gain": 0.02, "nested": {"deep": [1, 2]}}, "registry": {"model_name": "m"}}


@pytest.fixture
def client(tracking_uri, in_tmp):
    connect()
    import mlflow

    return mlflow.MlflowClient(tracking_uri)


@pytest.fixture
def away(monkeypatch, tracking_uri):
    """Point at a server that is not there; back to the shared one afterwards."""
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        yield "http://127.0.0.1:9"
    connect()


def one(client, name):
    """The one step of a dataset's experiment."""
    experiment = client.get_experiment_by_name(f"contrastive-{name}").experiment_id
    (run,) = client.search_runs([experiment], "tags.step != 'pipeline'")
    return run


def git(folder, *arguments):
    identity = ["-c", "user.name=n", "-c", "user.email=e@x"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_run_holds_parameters_curves_files_pictures_and_data(client, in_tmp):
    from matplotlib.figure import Figure

    data = Dataset(make_dataset(in_tmp / "dataset", train=6, test=3, validation=3, unlabelled=3))
    (in_tmp / "note.txt").write_text("kept")
    figure = Figure()
    figure.subplots().plot([1, 2])
    with tracked("probe", PARAMS, "abc", {"dataset": "d1", "encoder": "e1"}, "full") as run:
        for epoch, loss in enumerate((2.0, 1.0, 0.5), start=1):
            run.metrics({"loss": loss}, step=epoch)
        run.metrics({"odd": np.nan})
        run.file(in_tmp / "note.txt", "notes")
        figure.savefig(in_tmp / "curve.png")
        run.file(in_tmp / "curve.png")
        run.dataset(data, "training")
        assert not run.journal.waiting
    found = client.get_run(run.id)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "probe"
    assert found.data.params == {"gate.min_gain": "0.02", "gate.nested.deep": "[1, 2]", "registry.model_name": "m"}
    assert [(m.step, m.value) for m in client.get_metric_history(run.id, "loss")] == [(1, 2.0), (2, 1.0), (3, 0.5)]
    assert np.isnan(found.data.metrics["odd"])
    tags = found.data.tags
    assert (tags["step"], tags["params.digest"], tags["input.dataset"], tags["input.encoder"]) == (
        "probe",
        "abc",
        "d1",
        "e1",
    )
    assert {item.path for item in client.list_artifacts(run.id)} == {"notes", "curve.png"}
    (logged,) = found.inputs.dataset_inputs
    assert logged.dataset.name == "tiny"
    assert logged.dataset.digest == data.manifest.digest[:36]


def test_a_process_that_does_not_track_sends_nothing_and_makes_no_file(in_tmp, monkeypatch):
    """It made a `mlflow.db` in the working folder, with calls to a run without an id."""
    data = Dataset(make_dataset(in_tmp / "dataset", train=6, test=3, validation=3, unlabelled=3))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    before, run = sorted(in_tmp.iterdir()), Run()
    run.metrics({"loss": 1.0}, step=1)
    run.params({"a": 1})
    run.tags({"a": "b"})
    run.file(in_tmp / "dataset" / "manifest.json")
    run.file(in_tmp / "dataset", "docs")
    run.dataset(data, "training")
    assert sorted(in_tmp.iterdir()) == before


def test_one_value_that_is_refused_does_not_end_the_tracking(client, capsys):
    with tracked("probe", {}, "p", {}, "refused") as run:
        run.metrics({"what?": 1.0})
        run.metrics({"loss": 2.0})
    assert client.get_run(run.id).data.metrics == {"loss": 2.0}
    assert "warning: MLflow refused metrics" in capsys.readouterr().err


def test_lineage_names_commit_data_and_pipeline_run(client, in_tmp, monkeypatch):
    for name in ("GIT_COMMIT", "PIPELINE_RUN_ID", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    git(in_tmp, "init", "-q")
    (in_tmp / "data.dvc").write_text("outs:\n- md5: 0123456789abcdef.dir\n  path: data\n")
    (in_tmp / "dvc.lock").write_text("as it was\n")
    git(in_tmp, "add", "data.dvc", "dvc.lock")
    git(in_tmp, "commit", "-q", "-m", "data")
    (in_tmp / "dvc.lock").write_text("changed by the running pipeline\n")
    commit = git(in_tmp, "rev-parse", "HEAD")
    with tracked("ingest", {}, "p", {}, "lineage"):
        pass
    tags = one(client, "lineage").data.tags
    assert tags["git.commit"] == commit
    assert tags["dvc.data"] == "0123456789abcdef.dir"
    assert tags["pipeline.run"] == f"repro-{commit[:8]}"
    assert "git.dirty" not in tags

    (in_tmp / "data.dvc").write_text("outs:\n- md5: fedcba.dir\n  path: data\n")
    monkeypatch.setenv("PIPELINE_RUN_ID", "kfp-7")
    assert lineage() == {
        "git.commit": commit,
        "git.dirty": "true",
        "dvc.data": "fedcba.dir",
        "pipeline.run": "kfp-7",
    }


def test_lineage_outside_a_repository(in_tmp, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(in_tmp.parent))
    for name in ("GIT_COMMIT", "PIPELINE_RUN_ID", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    assert lineage() == {"git.commit": "unknown", "pipeline.run": "repro-unknown"}
    monkeypatch.setenv("GIT_COMMIT", "c0ffee")
    assert lineage()["git.commit"] == "c0ffee"


@pytest.mark.parametrize(
    ("failure", "status"), [(ValueError, "FAILED"), (UserError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_a_failed_step_is_a_failed_run(client, failure, status):
    with pytest.raises(failure), tracked("pretrain", PARAMS, "p", {}, f"failed-{failure.__name__}"):
        raise failure("what broke")
    assert one(client, f"failed-{failure.__name__}").info.status == status
    with tracked("pretrain", PARAMS, "p", {}, f"after-{failure.__name__}") as run:
        pass
    assert client.get_run(run.id).info.status == "FINISHED"


def test_the_experiment_of_a_dataset_is_made_once(client):
    assert experiment_id("contrastive-once") == experiment_id("contrastive-once")


def test_artifacts_of_the_embedded_server_lie_beside_its_database_wherever_the_step_stands(
    client, tracking_uri, in_tmp
):
    with tracked("probe", {}, "p", {}, "embedded") as run:
        (in_tmp / "embedded.txt").write_text("a")
        run.file(in_tmp / "embedded.txt")
    beside = Path(tracking_uri.removeprefix("sqlite:///")).with_name("mlartifacts")
    assert [path.name for path in beside.rglob("embedded.txt")] == ["embedded.txt"]
    assert [path.name for path in in_tmp.iterdir()] == ["embedded.txt"]


def test_names_are_dotted():
    assert flatten({"a": {"b": {"c": 1}}, "d": [1], "e": {}}) == {"a.b.c": 1, "d": [1]}


@pytest.mark.slow
def test_a_server_that_is_away_is_a_one_line_error_within_seconds(away, in_tmp):
    start = time.monotonic()
    with pytest.raises(UserError) as caught, tracked("ingest", PARAMS, "p", {}, "away"):
        pytest.fail("the step must not start")
    assert time.monotonic() - start < 20
    assert away in str(caught.value)
    assert "start the server" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("uri", ["sqlite:////proc/no/such/mlflow.db", "nonsense://x"])
def test_an_address_that_can_not_be_used_is_a_one_line_error(uri, in_tmp, monkeypatch, tracking_uri):
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(UserError) as caught:
            connect()
    connect()
    assert uri in str(caught.value)
    assert "\n" not in str(caught.value)


LONG_STEP = """
import sys, time
from components.shared.tracking.run import tracked
with tracked("probe", {}, "p", {}, "terminated") as run:
    print(run.id, flush=True)
    time.sleep(120)
"""


def test_a_terminated_step_does_not_leave_its_run_running(client):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    step = subprocess.Popen(
        [sys.executable, "-c", LONG_STEP],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    )
    run_id = step.stdout.readline().strip()
    step.send_signal(signal.SIGTERM)
    _, errors = step.communicate(timeout=60)
    assert step.returncode == 143, errors
    assert client.get_run(run_id).info.status == "KILLED"


@pytest.mark.parametrize("text", ["soon", "-1", "nan"])
def test_a_patience_that_is_no_number_is_a_one_line_error(client, monkeypatch, text):
    monkeypatch.setenv("TRACKING_PATIENCE_SECONDS", text)
    why = f"TRACKING_PATIENCE_SECONDS = {text}: a number of seconds"
    with pytest.raises(UserError, match=why), tracked("probe", {}, "p", {}, "impatient"):
        pytest.fail("the step must not start")
    assert client.get_experiment_by_name("contrastive-impatient") is None


class Sleeping:
    """A clock that only waiting moves on."""

    def __init__(self):
        self.now, self.waits = 0.0, []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.waits.append(seconds)
        self.now += seconds


@pytest.mark.parametrize(("away", "patience", "waits"), [(3, "1800", 3), (1000, "1800", 180), (1000, "", 0)])
def test_a_server_that_is_away_at_the_start_is_waited_for(tracking_uri, monkeypatch, capsys, away, patience, waits):
    clock, tries = Sleeping(), []

    def search(max_results):
        tries.append(max_results)
        if len(tries) <= away:
            raise mlflow.MlflowException("API request failed with exception Connection refused")

    monkeypatch.setattr("components.shared.tracking.client.time", clock)
    monkeypatch.setattr(mlflow, "search_experiments", search)
    monkeypatch.setattr(mlflow, "set_tracking_uri", lambda uri: None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    monkeypatch.setenv("TRACKING_PATIENCE_SECONDS", patience)
    if away > waits:
        with pytest.raises(UserError, match="Connection refused"):
            connect()
    else:
        connect()
    assert len(clock.waits) == waits
    assert capsys.readouterr().err.count("does not answer; it is waited for") == bool(waits)


@pytest.mark.parametrize("said", ["failed with error code 401", "error code 403", "Invalid Host header"])
def test_a_server_that_refuses_is_not_waited_for(tracking_uri, monkeypatch, said):
    def search(max_results):
        raise mlflow.MlflowException(said)

    monkeypatch.setattr(mlflow, "search_experiments", search)
    monkeypatch.setattr(mlflow, "set_tracking_uri", lambda uri: None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    monkeypatch.setenv("TRACKING_PATIENCE_SECONDS", "1800")
    with pytest.raises(UserError):
        connect()


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("postgresql://me:secret@db:5432/x is away", "postgresql://me:***@db:5432/x is away"),
        ("https://me:p@ss/w@host/path?q=a@b", "https://me:***@b"),
        ("http://host:5000/a b@c", "http://host:5000/a b@c"),
        ("the word hunter2 stands alone", "the word *** stands alone"),
    ],
)
def test_secrets_are_redacted(monkeypatch, said, shown):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    assert redacted(said) == shown


@pytest.mark.slow
def test_processes_that_begin_a_new_file_at_once_all_find_it_whole(tmp_path):
    program = "import sys; from components.shared.tracking.client import connect; sys.stdin.read(1); connect()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    pipe = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [
        subprocess.Popen([sys.executable, "-c", program], env=environment, cwd=tmp_path, **pipe) for _ in range(4)
    ]
    for process in started:
        process.stdin.write("g")
        process.stdin.flush()
    said = [process.communicate()[1] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0, 0], said
    # and nothing lies beside it
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]
