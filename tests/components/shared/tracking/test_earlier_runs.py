"""Finding the MLflow runs of all steps, with a real tracking server."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from components.shared.artifacts import Manifest, Result
from components.shared.errors import UserError
from components.shared.steps import STEPS
from components.shared.tracking.earlier_runs import StepRun, find_runs, recorded_runs

RECORD = {"params": {}, "params_digest": "0", "inputs": {}, "seconds": 1.0}


@dataclass
class Tracked:
    """An experiment and a way to make runs in it."""

    client: object
    experiment: str

    def run(self, step: str, digest: str, status: str = "FINISHED") -> str:
        """Make a run of a step on a dataset."""
        made = self.client.create_run(self.experiment, tags={"step": step, "input.dataset": digest})
        self.client.set_terminated(made.info.run_id, status)
        return made.info.run_id


@pytest.fixture(scope="module")
def tracked(tracking_uri):
    import mlflow

    mlflow.set_tracking_uri(tracking_uri)
    client = mlflow.MlflowClient()
    return Tracked(client, client.create_experiment("contrastive-earlier-runs"))


def manifest(run_id: str, digest: str = "d") -> Manifest:
    return Manifest(
        **dict(
            step="ingest",
            name="earlier-runs",
            source="s",
            source_digest="0",
            class_names=["a"],
            counts={},
            class_counts={},
            cuts_validation=False,
            files={},
        ),
        **dict(image_size=8, labels_per_class=None, seed=0, digest=digest, test_digest="e", mlflow_run_id=run_id),
        **RECORD,
    )


def result(step: str, **details: object) -> Result:
    return Result(
        **dict(step=step, mlflow_run_id=f"{step}-run", dataset_digest="d", metrics={}, details=details), **RECORD
    )


def test_records_name_all_runs_but_that_of_validate():
    evaluation = result(
        "evaluate", runs={step: f"{step}-run" for step in ("baseline", "probe", "finetune", "search")}
    )
    probe = result("probe", pretraining_runs=["another", "pretrain-run"])
    found = recorded_runs(manifest("ingest-run"), evaluation, probe, 1, "register-run")
    assert found == {step: f"{step}-run" for step in STEPS if step not in ("validate", "champion")}


def test_records_of_older_runs_name_fewer():
    found = recorded_runs(manifest("ingest-run"), result("evaluate"), result("probe"), 0, "register-run")
    assert list(found) == ["ingest", "evaluate", "register"]


def test_the_run_that_let_the_dataset_pass_is_found_by_its_digest(tracked):
    ingest = tracked.run("ingest", "none")
    tracked.run("validate", "d1")
    validate = tracked.run("validate", "d1")
    tracked.run("validate", "d1", "FAILED")
    tracked.run("validate", "d2")
    tracked.run("pretrain", "d1")
    found = find_runs({"ingest": ingest, "register": "f" * 32}, manifest(ingest, "d1"))
    assert found == {
        "ingest": StepRun(ingest, tracked.experiment),
        "validate": StepRun(validate, tracked.experiment),
        "register": StepRun("f" * 32, None),
    }
    assert list(found) == ["ingest", "validate", "register"]
    assert found["validate"].link == f"#/experiments/{tracked.experiment}/runs/{validate}"
    assert found["register"].link is None


def test_a_dataset_that_no_run_checked_has_no_such_run(tracked):
    ingest = tracked.run("ingest", "none")
    assert list(find_runs({"ingest": ingest}, manifest(ingest, "d3"))) == ["ingest"]


def test_a_server_that_is_away_is_one_line(tracked, monkeypatch, tracking_uri):
    import mlflow

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    try:
        with pytest.raises(UserError, match=r"127\.0\.0\.1:9") as caught:
            find_runs({"ingest": "f" * 32}, manifest("f" * 32))
    finally:
        mlflow.set_tracking_uri(tracking_uri)
    assert "\n" not in str(caught.value)
