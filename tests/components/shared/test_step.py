"""What surrounds a step's work: inputs checked, folder whole or absent, MLflow run, answers on a shell."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import mlflow
import pytest

from components.shared.artifacts import Manifest, Result, read_record
from components.shared.errors import UserError, exit_cleanly
from components.shared.params.composing import compose_params, write_params
from components.shared.params.schema import params_digest, select, to_plain
from components.shared.step import command_line, working
from tests.helpers.datasets import make_dataset
from tests.helpers.repository import ROOT


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data") / "dataset", unlabelled=4, train=6, validation=3, test=3)


@pytest.fixture
def params(compose_params):
    return select(compose_params("runtime.epochs=3"), "pretrain")


@pytest.fixture
def client(tracking_uri):
    return mlflow.MlflowClient(tracking_uri)


def runs(client, name):
    """Of the steps in a dataset's experiment."""
    found = client.get_experiment_by_name(f"contrastive-{name}")
    return client.search_runs([found.experiment_id], "tags.step != 'pipeline'") if found else []


def test_the_record_says_what_was_read_with_which_parameters_and_where_it_was_tracked(
    in_tmp, dataset, params, client
):
    with working("pretrain", in_tmp / "encoder", params, {"dataset": dataset}, "recorded") as work:
        (work.out / "encoder.keras").write_text("weights")
        time.sleep(0.01)
        work.finish("digest", {"probe_accuracy": 0.5}, curves="curves.csv")
    record = read_record(in_tmp / "encoder", Result)
    assert record.step == "pretrain"
    assert record.params == to_plain(params)
    assert record.params["runtime"]["epochs"] == 3
    assert record.params_digest == params_digest(params)
    assert record.inputs == {"dataset": read_record(dataset, Manifest).digest}
    assert record.metrics == {"probe_accuracy": 0.5}
    assert record.details == {"curves": "curves.csv"}
    assert 0.01 <= record.seconds < 60
    assert record.cost.cpu_seconds < 60 and record.cost.peak_mebibytes > 1
    (run,) = runs(client, "recorded")
    assert run.info.run_id == record.mlflow_run_id
    assert run.info.status == "FINISHED"
    # in sections of MLflow's page
    spent = {f"cost/{name}" for name in record.cost.model_dump()}
    assert set(run.data.metrics) == {"result/probe_accuracy", *spent}
    assert run.data.metrics["result/probe_accuracy"] == 0.5
    assert run.data.metrics["cost/peak_mebibytes"] == record.cost.peak_mebibytes
    assert run.data.params["method.temperature"] == "0.2"
    assert run.data.tags["input.dataset"] == record.inputs["dataset"]
    assert run.data.tags["params.digest"] == record.params_digest
    assert "result.json" in [file.path for file in client.list_artifacts(run.info.run_id)]


def test_a_failure_leaves_no_folder_and_a_failed_run(in_tmp, dataset, params, client):
    with (
        pytest.raises(UserError, match="loss is NaN"),
        working("pretrain", in_tmp / "encoder", params, {"dataset": dataset}, "failing") as work,
    ):
        (work.out / "encoder.keras").write_text("weights")
        raise UserError("loss is NaN")
    assert not (in_tmp / "encoder").exists()
    assert [run.info.status for run in runs(client, "failing")] == ["FAILED"]


def test_a_missing_input_stops_before_anything_is_written_or_tracked(in_tmp, dataset, params, client):
    half = in_tmp / "dataset"
    half.mkdir()
    (half / "manifest.json").write_text("{")
    with (
        pytest.raises(UserError, match=r"dataset/manifest\.json: content"),
        working("pretrain", in_tmp / "encoder", params, {"dataset": half}, "missing"),
    ):
        pass
    assert sorted(path.name for path in in_tmp.iterdir()) == ["dataset"]
    assert runs(client, "missing") == []


def test_a_tracking_server_that_is_away_is_told_soon_and_nothing_is_written(in_tmp, dataset, params, monkeypatch):
    # a closed port of this machine
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    start = time.monotonic()
    try:
        with (
            pytest.raises(
                UserError, match=r"^MLFLOW_TRACKING_URI = http://127\.0\.0\.1:9: can't be used: "
            ) as error,
            working("pretrain", in_tmp / "encoder", params, {"dataset": dataset}, "away"),
        ):
            pass
    finally:
        mlflow.set_tracking_uri(None)
    assert "\n" not in str(error.value)
    assert time.monotonic() - start < 20
    assert list(in_tmp.iterdir()) == []


def test_a_server_lost_on_the_way_gets_later_what_it_missed(
    in_tmp, dataset, params, tracking_uri, client, monkeypatch, capsys
):
    def lost(*args, **kwargs):
        raise mlflow.exceptions.MlflowException("connection refused")

    with working("pretrain", in_tmp / "encoder", params, {"dataset": dataset}, "lost") as work:
        with monkeypatch.context() as patch:
            patch.setattr(mlflow.MlflowClient, "log_batch", lost)
            patch.setattr(mlflow.MlflowClient, "get_run", lost)
            work.run.metrics({"loss": 1.0}, step=0)
            work.run.metrics({"loss": 0.5}, step=1)
        work.finish("digest", {"loss": 0.5})
    assert read_record(in_tmp / "encoder", Result).metrics == {"loss": 0.5}
    said = [line for line in capsys.readouterr().err.splitlines() if "MLflow" in line]
    assert said == [
        "warning: MLflow no longer answers (connection refused); the step goes on, and what it logs is sent when "
        "the server answers again",
        "MLflow answers again and has got all that was logged meanwhile",
    ]
    names = ("loss", "result/loss")
    points = [client.get_metric_history(work.run.id, name) for name in names]
    assert [[(p.step, p.value) for p in each] for each in points] == [[(0, 1.0), (1, 0.5)], [(0, 0.5)]]


def on_a_shell(monkeypatch, function, *arguments, step="pretrain"):
    """Run a step's command line; returns the exit status."""
    monkeypatch.setattr(sys, "argv", ["step", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        command_line(step, function)
    return ended.value.code


def never(*arguments):
    raise AssertionError("the step must not be called")


@pytest.fixture
def params_file(in_tmp):
    write_params(compose_params()[1], in_tmp / "params.yaml")
    return in_tmp / "params.yaml"


def test_a_command_hands_the_step_its_folders_and_its_own_parameters(in_tmp, params_file, monkeypatch):
    seen = []
    command = lambda *arguments: seen.append(arguments)  # noqa: E731
    assert on_a_shell(monkeypatch, command, "--out", "elsewhere", step="validate") == 0
    ((dataset, out, params),) = seen
    assert (str(dataset), str(out)) == ("dataset", "elsewhere")
    assert params.validation.max_test_overlap == 0.0
    with pytest.raises(AttributeError):
        _ = params.method


def test_a_step_that_tells_how_a_run_is_made_again_is_told_its_overrides(in_tmp, params_file, monkeypatch):
    write_params(compose_params(["registry.model_name=night", "runtime.epochs=3"])[1], params_file)
    seen = []
    command = lambda *arguments, **told: seen.append(told)  # noqa: E731
    assert on_a_shell(monkeypatch, command, step="register") == 0
    assert seen == [{"overrides": ["runtime.epochs=3", "registry.model_name=night"]}]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("temperature: 0\n", "error: params.yaml: method.temperature = 0: must be greater than 0\n"),
        ("tempratur: 0.2\n", "error: params.yaml: method.tempratur: no such parameter (did you mean "),
    ],
)
def test_a_wrong_parameter_is_one_line_exit_2_and_nothing_written(
    in_tmp, params_file, monkeypatch, capsys, written, message
):
    params_file.write_text(params_file.read_text().replace("temperature: 0.2\n", written, 1))
    assert on_a_shell(monkeypatch, never) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(message)
    assert err.count("\n") == 1
    assert [path.name for path in in_tmp.iterdir()] == ["params.yaml"]


def test_an_unknown_argument_is_refused_with_the_usage(in_tmp, params_file, monkeypatch, capsys):
    assert on_a_shell(monkeypatch, never, "--datset", "x") == 2
    assert "usage: python -m components.pretrain" in capsys.readouterr().err


@pytest.mark.parametrize("printed", ["'one line'", "'many lines\\n' * 100_000"])
def test_a_command_ends_without_a_word_where_nobody_reads_on(printed):
    code = f"from components.shared.errors import exit_cleanly; exit_cleanly(lambda: print({printed}))"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_another_pipe_that_breaks_is_no_end_of_reading():
    def main():
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        exit_cleanly(main)


@pytest.mark.parametrize(("error", "code"), [(UserError("two\nlines"), 2), (KeyboardInterrupt(), 130)])
def test_a_known_end_has_its_exit_status_and_one_line(capsys, error, code):
    def main():
        raise error

    with pytest.raises(SystemExit) as ended:
        exit_cleanly(main)
    assert ended.value.code == code
    assert capsys.readouterr().err.count("\n") == 1


def test_an_unknown_error_keeps_its_traceback():
    def main():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        exit_cleanly(main)


def test_a_real_step_refuses_a_wrong_value_at_once(params_file):
    """In one line, before anything is read or written."""
    values = compose_params()[1]
    values["data"]["image_size"] = 0
    write_params(values, params_file)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "components.ingest",
            "--params",
            str(params_file),
            "--out",
            str(params_file.parent / "x"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("params.yaml: data.image_size = 0: must be greater than or equal to 8\n")
    assert done.stderr.count("\n") == 1
    assert list(params_file.parent.iterdir()) == [params_file]
