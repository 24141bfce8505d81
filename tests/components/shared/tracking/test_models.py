"""Networks as models of MLflow: logged once, also when the server was away, and tied to runs and a dataset."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from components.shared.artifacts import Dataset
from components.shared.tracking.client import connect
from components.shared.tracking.models import Network, find_network, log_network
from components.shared.tracking.resend import resend
from components.shared.tracking.run import tracked
from tests.helpers.datasets import make_dataset

NETWORK = Network(name="encoder", image_shape=(32, 32, 3), outputs=4)


@pytest.fixture
def client(tracking_uri, in_tmp):
    connect()
    # MLflow copies the file as it is
    (in_tmp / "encoder.keras").write_bytes(b"weights")
    return mlflow.MlflowClient(tracking_uri)


def models_of(client, run_id):
    experiment = client.get_run(run_id).info.experiment_id
    return client.search_logged_models([experiment], f"source_run_id = '{run_id}'")


def test_a_model_whose_files_were_not_taken_is_finished_and_not_made_again(client, in_tmp, monkeypatch):
    with tracked("pretrain", {}, "p", {}, "twice") as run:
        with monkeypatch.context() as patch:
            patch.setattr(mlflow.MlflowClient, "finalize_logged_model", away)
            with pytest.raises(MlflowException, match="away"):
                log_network(run.id, in_tmp / "encoder.keras", NETWORK)
        assert [model.status for model in models_of(client, run.id)] == ["PENDING"]
        for _ in range(2):
            log_network(run.id, in_tmp / "encoder.keras", NETWORK)
    (model,) = models_of(client, run.id)
    assert model.status == "READY"
    assert [output.model_id for output in client.get_run(run.id).outputs.model_outputs] == [model.model_id]
    logged = Path(mlflow.artifacts.download_artifacts(f"models:/{model.model_id}"))
    assert (logged / "data" / "model.keras").read_bytes() == b"weights"


def test_a_later_try_of_the_step_that_ends_otherwise_logs_its_own_model(client, in_tmp):
    with tracked("pretrain", {}, "p", {}, "tried") as run:
        for weights in (b"first", b"second", b"second"):
            (in_tmp / "encoder.keras").write_bytes(weights)
            log_network(run.id, in_tmp / "encoder.keras", NETWORK)
    assert len(models_of(client, run.id)) == 2
    last = find_network(run.id, "encoder")
    logged = Path(mlflow.artifacts.download_artifacts(f"models:/{last.model_id}"))
    assert (logged / "data" / "model.keras").read_bytes() == b"second"


def away(*args, **kwargs):
    raise MlflowException("away")


def test_what_a_lost_server_did_not_take_is_sent_by_resend(client, in_tmp, monkeypatch):
    data = Dataset(make_dataset(in_tmp / "dataset", train=6, test=3, validation=3))
    folder = in_tmp / "encoder"
    folder.mkdir()
    (in_tmp / "encoder.keras").rename(folder / "encoder.keras")
    monkeypatch.setenv("TRACKING_PATIENCE_SECONDS", "0")
    with (
        monkeypatch.context() as patch,
        tracked("pretrain", {"a": 1}, "p", {}, "lost-model", partial=folder, out=folder) as run,
    ):
        for lost in ("get_run", "log_batch", "set_terminated"):
            patch.setattr(mlflow.MlflowClient, lost, away)
        made = run.model(folder / "encoder.keras", "encoder", 4, data, classifier=False)
        run.metrics({"result/knn_accuracy": 0.5}, of=made)
    assert find_network(run.id, "encoder") is None
    for _ in range(2):
        resend(folder)
    (model,) = models_of(client, run.id)
    assert (model.status, model.model_type, model.params["a"]) == ("READY", "encoder", "1")
    (number,) = model.metrics
    assert (number.key, number.value, number.dataset_name) == ("result/knn_accuracy", 0.5, "tiny")
    with tracked("finetune", {}, "p", {}, "lost-model") as other:
        other.uses(run.id, "encoder")
        # of a server that was replaced
        other.uses("0" * 32, "encoder")
    assert [used.model_id for used in client.get_run(other.id).inputs.model_inputs] == [model.model_id]
    assert not other.journal.waiting
