"""The run of a pipeline in MLflow, and those of its steps in it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import mlflow
import pytest

from components.shared.errors import UserError
from components.shared.params.composing import compose_params, write_params
from components.shared.tracking.pipeline_run import PARENT, PipelineRun
from components.shared.tracking.run import tracked
from pipelines.kubeflow import runtime
from tests.helpers.servers import mlflow_server


@pytest.fixture
def client(tracking_uri, in_tmp, monkeypatch):
    """MLflow's, in an empty folder."""
    for name in ("PIPELINE_RUN_ID", "DVC_EXP_NAME", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    mlflow.set_tracking_uri(tracking_uri)
    return mlflow.MlflowClient()


def runs(client, data):
    """Of a dataset, the first one first."""
    experiment = client.get_experiment_by_name(f"contrastive-{data}").experiment_id
    return client.search_runs([experiment], order_by=["start_time ASC"])


def step(name, data, **more):
    with tracked(name, {}, "p", {}, data, **more) as run:
        pass
    return run


def test_steps_are_nested_in_one_run_named_by_data_method_and_encoder(client, in_tmp):
    write_params(compose_params(("data.name=nested", "method=byol", "encoder=conv"))[1], in_tmp / "params.yaml")
    step("ingest", "nested")
    step("pretrain", "nested", seed=0)
    step("probe", "nested")
    whole, *steps = sorted(runs(client, "nested"), key=lambda run: run.data.tags["step"] != "pipeline")
    assert (whole.info.run_name, whole.info.status) == ("nested byol conv", "FINISHED")
    assert {run.info.run_name for run in steps} == {"ingest", "pretrain 0", "probe"}
    assert {run.data.tags[PARENT] for run in steps} == {whole.info.run_id}
    assert PARENT not in whole.data.tags


def test_other_options_and_experiments_are_other_pipelines(client, in_tmp, monkeypatch):
    write_params(compose_params(("data.name=several",))[1], in_tmp / "params.yaml")
    step("ingest", "several")
    write_params(compose_params(("data.name=several", "method=dcl"))[1], in_tmp / "params.yaml")
    step("pretrain", "several")
    monkeypatch.setenv("DVC_EXP_NAME", "wider")
    step("pretrain", "several")
    names = [run.info.run_name for run in runs(client, "several") if run.data.tags["step"] == "pipeline"]
    assert names == ["several simclr fast", "several dcl fast", "several dcl fast (wider)"]


def begun_at_once(client):
    """Ids that eight steps at once are told, and those of the runs that are there then."""
    client.create_experiment("contrastive-at-once")
    with ThreadPoolExecutor(4) as pool:
        told = set(pool.map(lambda _: PipelineRun.of("at-once").id, range(8)))
    return told, {run.info.run_id for run in runs(client, "at-once")}


def test_steps_that_begin_at_once_share_one(client, monkeypatch):
    monkeypatch.setenv("PIPELINE_RUN_ID", "at-once")
    told, made = begun_at_once(client)
    assert told == made and len(made) == 1


@pytest.mark.slow
def test_steps_that_begin_at_once_share_one_on_a_server_too(client, monkeypatch, tmp_path, tracking_uri):
    monkeypatch.setenv("PIPELINE_RUN_ID", "at-once")
    with mlflow_server(tmp_path / "server") as server:
        mlflow.set_tracking_uri(server.url)
        told, made = begun_at_once(mlflow.MlflowClient())
    mlflow.set_tracking_uri(tracking_uri)
    assert told == made and len(made) == 1


def test_a_failed_step_makes_the_pipeline_failed_until_it_goes_on(client, monkeypatch):
    monkeypatch.setenv("DVC_EXP_NAME", "stopped")
    with pytest.raises(UserError), tracked("ingest", {}, "p", {}, "stopped") as run:
        raise UserError("broken")
    assert client.get_run(run.pipeline.id).info.status == "FAILED"
    with tracked("ingest", {}, "p", {}, "stopped") as run:
        assert client.get_run(run.pipeline.id).info.status == "RUNNING"
    assert client.get_run(run.pipeline.id).info.status == "FINISHED"


def test_on_a_cluster_the_end_of_a_step_is_not_that_of_the_others(client, monkeypatch):
    monkeypatch.setenv("PIPELINE_RUN_ID", "side-by-side")
    assert client.get_run(step("ingest", "cluster").pipeline.id).info.status == "RUNNING"


def test_numbers_of_the_verdict_stand_beside_those_of_other_pipelines(client):
    with tracked("evaluate", {}, "p", {}, "numbers") as run:
        run.pipeline.metrics({"result/blessed": 1.0})
    assert client.get_run(run.pipeline.id).data.metrics == {"result/blessed": 1.0}


def test_what_the_pipelines_run_can_not_be_told_costs_the_step_nothing(client, capsys):
    with tracked("evaluate", {}, "p", {}, "gone") as run:
        client.delete_run(run.pipeline.id)
        run.pipeline.metrics({"result/blessed": 1.0})
    assert client.get_run(run.id).info.status == "FINISHED"
    assert capsys.readouterr().err == ""


class Status:
    """What KFP tells the last task."""

    state, error_message = "SUCCEEDED", None


def kubeflow_run(monkeypatch, given=None):
    """Two steps and the end of a run, in processes of their own as far as their environment tells."""
    monkeypatch.setenv("PIPELINE_RUN_ID", "kfp-1")
    for name in ("ingest", "pretrain", "record"):
        if given:
            monkeypatch.setenv("MLFLOW_RUN_ID", given[name])
        if name == "record":
            runtime.record(Status, ["data.name=kubeflow", "method=swav"])
        else:
            step(name, "kubeflow")


def test_kubeflow_without_its_own_tracking_has_one_run_and_one_for_each_step(client, monkeypatch):
    kubeflow_run(monkeypatch)
    whole, *steps = sorted(runs(client, "kubeflow"), key=lambda run: run.data.tags["step"] != "pipeline")
    assert (whole.info.run_name, whole.info.status) == ("kubeflow swav fast", "FINISHED")
    assert whole.data.tags["pipeline.status"] == "SUCCEEDED"
    assert {run.data.tags["step"] for run in steps} == {"ingest", "pretrain"}
    assert {run.data.tags[PARENT] for run in steps} == {whole.info.run_id}


def tries(client, data):
    """A step that is refused, then killed without a word, and then ends well, each try in a pod of its own."""
    ids = set()
    for end in ("FAILED", "RUNNING"):
        with pytest.raises(UserError), tracked("pretrain", {"epochs": 2}, "p", {}, data, seed=0) as run:
            assert client.get_run(run.id).info.status == "RUNNING"
            run.metrics({"loss": 2.0}, step=1)
            raise UserError("broken")
        client.update_run(run.id, status=end)
        ids.add(run.id)
    with tracked("pretrain", {"epochs": 2}, "p", {}, data, seed=0) as run:
        run.metrics({"loss": 1.0}, step=2)
    return {*ids, run.id}


def assert_whole(run):
    assert (run.info.status, run.data.params) == ("FINISHED", {"epochs": "2"})
    assert run.data.metrics["loss"] == 1.0


def test_a_step_that_a_cluster_tries_again_goes_on_in_its_first_run(client, monkeypatch, capsys):
    monkeypatch.setenv("PIPELINE_RUN_ID", "tried-again")
    (own,) = tries(client, "retried")
    # another replicate's, what gathers them, and the same step of another night
    step("pretrain", "retried", seed=1)
    step("pretrain", "retried")
    monkeypatch.setenv("PIPELINE_RUN_ID", "the-next-night")
    step("pretrain", "retried", seed=0)
    found = [run for run in runs(client, "retried") if run.data.tags["step"] != "pipeline"]
    names = [run.info.run_name for run in found]
    assert names == ["pretrain 0", "pretrain 1", "pretrain", "pretrain 0"]
    assert found[0].info.run_id == own
    assert_whole(found[0])
    assert "refused" not in capsys.readouterr().err


def test_a_step_that_is_tried_again_goes_on_in_the_run_that_kubeflow_has_made(client, monkeypatch):
    experiment = client.create_experiment("of-kubeflow-again")
    whole = client.create_run(experiment, run_name="nightly").info.run_id
    given = client.create_run(experiment, tags={PARENT: whole}, run_name="pretrain-0").info.run_id
    for name, value in (("EXPERIMENT_ID", experiment), ("RUN_ID", given)):
        monkeypatch.setenv(f"MLFLOW_{name}", value)
    monkeypatch.setenv("PIPELINE_RUN_ID", "kfp-again")
    assert tries(client, "retried-there") == {given}
    assert {run.info.run_id for run in client.search_runs([experiment])} == {whole, given}
    assert_whole(client.get_run(given))


def test_runs_that_kubeflow_has_made_are_used_and_no_others_made(client, monkeypatch):
    experiment = client.create_experiment("of-kubeflow")
    whole = client.create_run(experiment, run_name="nightly").info.run_id
    given = {
        name: client.create_run(experiment, tags={PARENT: whole}, run_name=name).info.run_id
        for name in ("ingest", "pretrain", "record")
    }
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
    before = {found.experiment_id for found in client.search_experiments()}
    kubeflow_run(monkeypatch, given)
    assert {found.experiment_id for found in client.search_experiments()} == before
    found = {run.info.run_id: run for run in client.search_runs([experiment])}
    assert set(found) == {whole, *given.values()}
    for name in ("ingest", "pretrain"):
        assert found[given[name]].data.tags["step"] == name
        assert found[given[name]].info.status == "FINISHED"
    assert found[whole].data.tags["pipeline.status"] == "SUCCEEDED"
    assert found[whole].info.run_name == "kubeflow swav fast"
