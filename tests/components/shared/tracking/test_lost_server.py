"""A tracking server that is killed while steps log to it: no step stops or slows, and nothing logged is lost."""

from __future__ import annotations

import contextlib
import http.server
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

from components.shared.artifacts import Result, read_record
from components.shared.errors import UserError
from components.shared.params.composing import compose_params, write_params
from components.shared.params.schema import select
from components.shared.step import working
from components.shared.tracking.journal import Call, Journal
from components.shared.tracking.models import find_network
from components.shared.tracking.resend import resend
from pipelines.__main__ import main
from tests.helpers.datasets import make_dataset
from tests.helpers.repository import ROOT, make_root
from tests.helpers.servers import mlflow_server
from tests.helpers.waiting import until

EPOCHS = 40
SMALL = (
    "encoder.width=8", "method.projection.hidden=16", "method.projection.width=8", "runtime.batch_size=32",
    f"runtime.epochs={EPOCHS}",
)  # fmt: skip


@pytest.fixture(scope="module")
def story(tmp_path_factory, tracking_uri):
    """Two steps log to a server that is killed: one ends before it is back, the other, a training, after."""
    import mlflow

    place = make_root(tmp_path_factory.mktemp("lost"))
    dataset = make_dataset(place / "data" / "dataset", name="lost")
    write_params(compose_params(SMALL)[1], place / "params.yaml")
    log = place / "training.log"
    told = SimpleNamespace(place=place, errors=io.StringIO(), printed=io.StringIO())
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(told.errors):
        patch.chdir(place)
        with mlflow_server(place / "server") as server:
            patch.setenv("MLFLOW_TRACKING_URI", server.url)
            with log.open("w") as output:
                training = subprocess.Popen(
                    [sys.executable, "-m", "components.pretrain", "--dataset", str(dataset)],
                    env={**os.environ, "PYTHONPATH": str(ROOT), "TRACKING_PATIENCE_SECONDS": "300"},
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            patch.setenv("TRACKING_PATIENCE_SECONDS", "1")
            told.run = evaluation(told, server, until_training=lambda: "epoch 1/" in log.read_text())
            told.training_went_on = training.poll() is None
        with mlflow_server(place / "server", port=int(server.url.rpartition(":")[2])):
            client = mlflow.MlflowClient()
            told.between = client.get_run(told.run)
            told.folder_before = contents(place / "evaluation")
            with contextlib.redirect_stdout(told.printed):
                main(["resend", "evaluation"])
                main(["resend"])
            told.folder_after = contents(place / "evaluation")
            told.after = client.get_run(told.run)
            told.losses = client.get_metric_history(told.run, "loss")
            told.files = {item.path for item in client.list_artifacts(told.run)}
            told.training_status = training.wait(timeout=120)
            told.trained = read_record(place / "encoder" / "0", Result)
            told.training = client.get_run(told.trained.mlflow_run_id)
            told.curve = client.get_metric_history(told.trained.mlflow_run_id, "train/contrastive_loss")
            told.encoder = find_network(told.trained.mlflow_run_id, "encoder")
            told.training_files = {item.path for item in client.list_artifacts(told.trained.mlflow_run_id)}
        mlflow.set_tracking_uri(tracking_uri)
    return told


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def evaluation(told, server, until_training):
    """A step whose server is killed in its middle and not back at its end; returns the run's id."""
    import mlflow

    params = select(compose_params(())[0], "evaluate")
    with working("evaluate", told.place / "evaluation", params, {}, "lost") as work:
        work.run.metrics({"loss": 1.0}, step=1)
        (work.out / "early.txt").write_text("sent at once")
        work.run.file(work.out / "early.txt")
        assert mlflow.MlflowClient().get_run(work.run.id).data.metrics == {"loss": 1.0}
        until(until_training, 120)
        server.stop()
        told.killed = time.time()
        for epoch in range(2, 200):
            work.run.metrics({"loss": 1 / epoch}, step=epoch)
        (work.out / "late.txt").write_text("kept until later")
        work.run.file(work.out / "late.txt")
        work.run.tags({"late": "yes"})
        work.finish("digest", {"loss": 1 / 199})
        told.seconds = time.time() - told.killed
    return work.run.id


@pytest.mark.slow
def test_a_step_goes_on_at_full_speed_when_its_server_is_killed(story):
    # 200 calls, of which one met the dead server; with a time-out each it would be ten minutes
    assert story.seconds < 60
    assert read_record(story.place / "evaluation", Result).metrics == {"loss": 1 / 199}
    assert (story.place / "evaluation" / "late.txt").read_text() == "kept until later"


@pytest.mark.slow
def test_what_was_not_sent_by_the_end_is_told_and_kept_in_the_folder(story):
    warnings = [line for line in story.errors.getvalue().splitlines() if line.startswith("warning: MLflow")]
    assert len(warnings) == 2
    assert "MLflow no longer answers" in warnings[0]
    assert "the step goes on, and what it logs is sent when the server answers again" in warnings[0]
    assert f"warning: MLflow did not take all of run {story.run} within 1 s; `contrastive resend" in warnings[1]
    assert "evaluation` sends the rest. The step's output is whole" in warnings[1]
    # nothing lies beside it: an image's file system may be read-only
    assert {path.name for path in story.place.iterdir()} == {
        *("conf", "data", "dvc.yaml", "params.yaml", "training.log", "server", "evaluation", "encoder", ".cache"),
    }
    assert story.between.info.status == "RUNNING"
    assert story.between.data.metrics == {"loss": 1.0}


@pytest.mark.slow
def test_resend_sends_it_with_the_times_at_which_it_was_logged(story):
    assert story.after.info.status == "FINISHED"
    assert story.after.data.tags["late"] == "yes"
    assert story.files == {"early.txt", "late.txt", "result.json"}
    # what was there already is not doubled
    points = {(point.step, point.timestamp): point.value for point in story.losses}
    assert len(points) == len(story.losses)
    assert {step: value for (step, _), value in points.items()} == {step: 1 / step for step in range(1, 200)}
    assert max(point.timestamp for point in story.losses) / 1000 < story.killed + story.seconds + 1
    assert story.killed <= story.after.info.end_time / 1000 < story.killed + story.seconds + 2
    # MLflow adds a line of its own
    assert [line for line in story.printed.getvalue().splitlines() if line.startswith("evaluation")] == [
        f"evaluation: run {story.run} is whole now",
        f"evaluation: run {story.run} is whole",
    ]
    # DVC would take a changed folder for one to be made anew
    assert story.folder_after == story.folder_before


@pytest.mark.slow
def test_a_server_that_does_not_know_the_run_gets_a_new_one_once(story, tracking_uri, in_tmp, capsys):
    import mlflow

    for _ in range(2):
        main(["resend", str(story.place / "evaluation")])
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("contrastive-lost").experiment_id
    (run,) = client.search_runs([experiment], f"tags.`resent.run` = '{story.run}'")
    assert (run.info.run_name, run.info.status) == ("evaluate", "FINISHED")
    assert run.info.start_time == story.after.info.start_time
    assert run.info.end_time == story.after.info.end_time
    assert run.data.params == story.after.data.params
    assert run.data.metrics == story.after.data.metrics
    assert {item.path for item in client.list_artifacts(run.info.run_id)} == story.files
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith(f"run {run.info.run_id} is whole now")
    assert second.endswith(f"run {run.info.run_id} is whole")


@pytest.mark.slow
def test_a_training_loses_nothing_when_the_server_comes_back(story):
    log = (story.place / "training.log").read_text()
    assert story.training_went_on
    assert story.training_status == 0, log
    # each process that trains tells it: two side by side, one where there is one core
    told = log.count("MLflow no longer answers")
    assert 1 <= told <= 2
    assert log.count("MLflow answers again and has got all that was logged meanwhile") == told
    assert story.training.info.status == "FINISHED"
    assert [point.step for point in story.curve] == [*range(1, EPOCHS + 1)]
    assert story.curve[-1].value == story.trained.metrics["contrastive_loss"]
    assert story.training_files == {"curves.csv", "pictures", "result.json"}
    assert story.encoder.status == "READY"


@pytest.fixture
def pointed_at(tracking_uri):
    """A function that points MLflow at an address; back at the shared server afterwards."""
    import mlflow

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        patch.setenv("MLFLOW_TRACKING_URI", tracking_uri)  # MLflow itself changes it
        yield mlflow.set_tracking_uri
        mlflow.set_tracking_uri(tracking_uri)


@pytest.mark.slow
def test_a_server_that_takes_requests_and_never_answers_costs_one_time_out(pointed_at, capsys):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        pointed_at(f"http://127.0.0.1:{silent.getsockname()[1]}")
        journal, start = Journal("0" * 32), time.monotonic()
        for step in range(500):
            journal.log("metrics", values={"loss": 0.0}, time=step, step=step)
    # with a time-out of a second each it would be eight minutes
    assert time.monotonic() - start < 60
    assert len(journal.waiting) == 500
    assert capsys.readouterr().err.count("no longer answers") == 1


class Choosy(http.server.BaseHTTPRequestHandler):
    """Answers MLflow's requests, except those about a metric called poison, at which it breaks."""

    taken: ClassVar[list] = []

    def do_GET(self):
        self.answer(200, {"run": {"info": {"run_id": "r", "status": "RUNNING"}, "data": {}}})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        poison = "poison" in json.dumps(body)
        if not poison:
            self.taken.extend(metric["key"] for metric in body.get("metrics", ["end"]))
        self.answer(500 if poison else 200, {"error_code": "INTERNAL_ERROR", "message": "broke"} if poison else {})

    def answer(self, status, body):
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


def test_a_call_at_which_the_server_breaks_does_not_hold_up_the_others(pointed_at, in_tmp):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Choosy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        pointed_at(f"http://127.0.0.1:{server.server_port}")
        journal = Journal("r")
        for key in ("poison", "loss", "accuracy"):
            journal.log("metrics", values={key: 1.0}, time=0, step=0)
        assert not journal.end("FINISHED", 0, patience=0)
        server.shutdown()
    # nor is the run ended, which would look as if it were whole
    assert Choosy.taken == ["loss", "accuracy"]
    assert journal.waiting == [Call(kind="metrics", content={"values": {"poison": 1.0}, "time": 0, "step": 0})]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, r"dataset/tracking\.json: missing; name the folder of a step"),
        ("{", r"dataset/tracking\.json: content: invalid json"),
        ('{"schema_version": 2}', r"dataset/tracking\.json: schema_version: input should be 1"),
    ],
)
def test_a_folder_with_nothing_to_send_is_a_one_line_error(in_tmp, content, why):
    (in_tmp / "dataset").mkdir()
    if content:
        (in_tmp / "dataset" / "tracking.json").write_text(content)
    with pytest.raises(UserError, match=why):
        resend(Path("dataset"))


def test_without_folders_there_is_nothing_to_send(in_tmp, capsys):
    for folder in ("conf", "dataset"):
        (in_tmp / folder).mkdir()
    (in_tmp / "dvc.yaml").touch()
    main(["resend"])
    assert capsys.readouterr().out == "nothing waits to be sent\n"
