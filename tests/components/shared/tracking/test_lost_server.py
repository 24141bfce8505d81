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
from types import SimpleNamespace
from typing import ClassVar

import pytest

from components.shared.artifacts import Result, read_record
from components.shared.errors import UserError
from components.shared.params.composing import compose, write_params
from components.shared.params.schema import select
from components.shared.step import working
from components.shared.tracking.delivery import Call, Delivery, resend
from pipelines.__main__ import main
from tests.helpers.datasets import make_dataset
from tests.helpers.repository import ROOT, make_root
from tests.helpers.servers import mlflow_server

EPOCHS = 40
SMALL = (
    "encoder.width=8", "method.projection.hidden=16", "method.projection.width=8", "runtime.batch_size=32",
    f"runtime.epochs={EPOCHS}",
)  # fmt: skip


def until(happened, seconds=120):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def story(tmp_path_factory, tracking_uri):
    """Two steps log to a server that is killed: one ends before it is back, the other, a training, after."""
    import mlflow

    place = make_root(tmp_path_factory.mktemp("lost"))
    dataset = make_dataset(place / "data" / "dataset", name="lost")
    write_params(compose(SMALL)[1], place / "params.yaml")
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
            told.run = evaluation(told, server, until_training=lambda: "epoch 1/" in log.read_text())
            told.training_went_on = training.poll() is None
        with mlflow_server(place / "server", port=int(server.url.rpartition(":")[2])):
            client = mlflow.MlflowClient()
            told.between = client.get_run(told.run)
            with contextlib.redirect_stdout(told.printed):
                main(["resend"])
                main(["resend"])
            told.after = client.get_run(told.run)
            told.losses = client.get_metric_history(told.run, "loss")
            told.files = {item.path for item in client.list_artifacts(told.run)}
            told.training_status = training.wait(timeout=120)
            told.trained = read_record(place / "encoder", Result)
            told.training = client.get_run(told.trained.mlflow_run_id)
            told.curve = client.get_metric_history(told.trained.mlflow_run_id, "contrastive_loss")
            told.training_files = {item.path for item in client.list_artifacts(told.trained.mlflow_run_id)}
        mlflow.set_tracking_uri(tracking_uri)
    return told


def evaluation(told, server, until_training):
    """A step whose server is killed in its middle and not back at its end; returns the run's id."""
    import mlflow

    params = select(compose(())[0], "evaluate")
    with working("evaluate", told.place / "evaluation", params, {}, "lost") as work:
        work.run.metrics({"loss": 1.0}, step=1)
        (work.out / "early.txt").write_text("sent at once")
        work.run.file(work.out / "early.txt")
        assert mlflow.MlflowClient().get_run(work.run.id).data.metrics == {"loss": 1.0}
        until(until_training)
        server.stop()
        told.killed = time.time()
        for epoch in range(2, 200):
            work.run.metrics({"loss": 1 / epoch}, step=epoch)
        (work.out / "late.txt").write_text("kept until later")
        work.run.file(work.out / "late.txt")
        work.run.tags({"late": "yes"})
        work.finish("digest", {"loss": 1 / 199}, epoch=199)
        told.seconds = time.time() - told.killed
        os.environ["TRACKING_PATIENCE_SECONDS"] = "1"
    return work.run.id


@pytest.mark.slow
def test_a_step_goes_on_at_full_speed_when_its_server_is_killed(story):
    # 200 calls, of which one met the dead server; with a time-out each it would be ten minutes
    assert story.seconds < 60
    assert read_record(story.place / "evaluation", Result).metrics == {"loss": 1 / 199}
    assert (story.place / "evaluation" / "late.txt").read_text() == "kept until later"


@pytest.mark.slow
def test_what_was_not_sent_by_the_end_is_told_and_kept(story):
    warnings = [line for line in story.errors.getvalue().splitlines() if line.startswith("warning: MLflow")]
    assert len(warnings) == 2
    assert "MLflow no longer answers" in warnings[0]
    assert "the step goes on, and what it logs is sent when the server answers again" in warnings[0]
    assert f"calls of run {story.run} are kept in unsent/{story.run}; `python -m pipelines resend`" in warnings[1]
    assert story.between.info.status == "RUNNING"
    assert story.between.data.metrics == {"loss": 1.0}


@pytest.mark.slow
def test_resend_sends_it_with_the_times_at_which_it_was_logged(story):
    assert story.after.info.status == "FINISHED"
    assert story.after.data.tags["late"] == "yes"
    assert story.files == {"early.txt", "late.txt", "result.json"}
    assert {point.step: point.value for point in story.losses} == {step: 1 / step for step in range(1, 200)}
    assert max(point.timestamp for point in story.losses) / 1000 < story.killed + story.seconds + 1
    assert story.killed <= story.after.info.end_time / 1000 < story.killed + story.seconds + 2
    first, second = (line for line in story.printed.getvalue().splitlines() if line.startswith(("run ", "unsent")))
    assert first.startswith(f"run {story.run}: ")
    assert first.endswith(" calls sent")
    assert second == "unsent/: nothing is waiting"
    assert not (story.place / "unsent").exists()


@pytest.mark.slow
def test_a_training_loses_nothing_when_the_server_comes_back(story):
    log = (story.place / "training.log").read_text()
    assert story.training_went_on
    assert story.training_status == 0, log
    assert log.count("MLflow no longer answers") == 1
    assert log.count("MLflow answers again and has got all that was logged meanwhile") == 1
    assert story.training.info.status == "FINISHED"
    # the last one twice: at the end of the curve, and as the result
    assert [point.step for point in story.curve] == [*range(1, EPOCHS + 1), EPOCHS]
    assert story.curve[-1].value == story.trained.metrics["contrastive_loss"]
    assert story.training_files == {"encoder.keras", "curves.csv", "pictures", "result.json"}


@pytest.fixture
def pointed_at(tracking_uri):
    """A function that points MLflow at an address; back at the shared server afterwards."""
    import mlflow

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        patch.setenv("MLFLOW_TRACKING_URI", tracking_uri)  # MLflow itself changes it
        yield mlflow.set_tracking_uri
        mlflow.set_tracking_uri(tracking_uri)


def test_a_server_that_takes_requests_and_never_answers_costs_one_time_out(pointed_at, capsys):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        pointed_at(f"http://127.0.0.1:{silent.getsockname()[1]}")
        delivery, start = Delivery("0" * 32), time.monotonic()
        for step in range(500):
            delivery.send("metrics", values={"loss": 0.0}, time=step, step=step)
    # with a time-out of a second each it would be eight minutes
    assert time.monotonic() - start < 60
    assert delivery.away
    assert len(delivery.waiting) == 500
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
            self.taken.append(body["metrics"][0]["key"])
        self.answer(500 if poison else 200, {"error_code": "INTERNAL_ERROR", "message": "broke"} if poison else {})

    def answer(self, status, body):
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


def test_a_call_at_which_the_server_breaks_does_not_hold_up_the_others(pointed_at, in_tmp, monkeypatch):
    monkeypatch.setattr("components.shared.tracking.delivery.time.sleep", lambda seconds: None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Choosy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        pointed_at(f"http://127.0.0.1:{server.server_port}")
        delivery = Delivery("r")
        for key in ("poison", "loss", "accuracy"):
            delivery.send("metrics", values={key: 1.0}, time=0, step=0)
        delivery.wait(2)
        server.shutdown()
    assert Choosy.taken == ["loss", "accuracy"]
    assert list(delivery.waiting) == [Call("metrics", {"values": {"poison": 1.0}, "time": 0, "step": 0})]


def test_what_is_kept_and_broken_is_a_one_line_error(in_tmp):
    (in_tmp / "unsent" / "r").mkdir(parents=True)
    (in_tmp / "unsent" / "r" / "calls.json").write_text('[{"kind": "metrics"}]')
    with pytest.raises(UserError, match=r"unsent/r/calls.json: can't be read \('content'\); remove the folder"):
        resend()


def test_files_are_kept_with_their_names_though_the_originals_go(in_tmp):
    delivery = Delivery("r")
    delivery._next_try = float("inf")
    for name in ("a/model.txt", "b/model.txt"):
        (in_tmp / name).parent.mkdir()
        (in_tmp / name).write_text(name)
        delivery.send("file", path=str(in_tmp / name), folder=None)
    delivery.send("folder", path=str(in_tmp / "a"), folder="all")
    delivery.send("file", path=str(in_tmp / "gone.txt"), folder=None)
    kept = delivery.keep()
    calls = json.loads((kept / "calls.json").read_text())
    assert [call["content"]["path"] for call in calls] == ["0/model.txt", "1/model.txt", "2/a"]
    assert [(kept / str(n) / "model.txt").read_text() for n in (0, 1)] == ["a/model.txt", "b/model.txt"]
    assert (kept / "2/a/model.txt").exists()
