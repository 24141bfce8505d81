"""The whole pipeline with a tracking server that is away twice: nothing is lost, and nothing is trained twice."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections import Counter
from types import SimpleNamespace

import pytest
import yaml

from components.shared.tracking.client import PATIENCE_VARIABLE
from components.shared.tracking.run import under
from tests.helpers.project import TINY, make_project
from tests.helpers.repository import ROOT
from tests.helpers.servers import mlflow_server

pytestmark = pytest.mark.slow

# seconds; on a cluster half an hour, of which cluster.tracking_patience takes 2,400
OUTAGE, PATIENCE = 15, 300
# one replicate's pipeline has all the steps
SEED = 0
# when it is lost: in the middle of a step, and before the step that is about to begin
LOST = ("epoch 1/", "Running stage 'finetune'")


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """A run whose server is lost at each line of `LOST`, and another one after it."""
    import mlflow

    place = tmp_path_factory.mktemp("lost")
    project, told, lost = make_project(place / "project"), SimpleNamespace(said=[]), [*LOST]
    with contextlib.ExitStack() as servers:
        server = servers.enter_context(mlflow_server(place / "server"))
        project.run("python", "-m", "pipelines", "compose", f"runtime.replicates=[{SEED}]")
        project.env |= {"MLFLOW_TRACKING_URI": server.url, PATIENCE_VARIABLE: str(PATIENCE)}
        command = subprocess.Popen(
            ["dvc", "repro"],
            **dict(cwd=project.root, env=project.env, text=True),
            **dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT),
        )
        for line in command.stdout:
            told.said.append(line.rstrip())
            if lost and lost[0] in line:
                del lost[0]
                server.stop()
                time.sleep(OUTAGE)
                port = int(server.url.rpartition(":")[2])
                server = servers.enter_context(mlflow_server(place / "server", port=port))
        told.status, told.lost = command.wait(timeout=60), lost
        told.unsent = [*project.root.rglob("tracking.json")]
        told.again = project.stages_run("dvc", "repro")
        records = [*project.root.glob("*/result.json"), *project.root.glob("*/[01]/result.json")]
        told.records = [json.loads(path.read_text()) for path in [*records, project.root / "dataset/manifest.json"]]
        client = mlflow.MlflowClient(server.url)
        experiment = client.get_experiment_by_name("contrastive-sample").experiment_id
        told.runs = {run.info.run_id: run for run in client.search_runs([experiment], max_results=1000)}
        told.curves = {
            run_id: [point.step for point in client.get_metric_history(run_id, "train/contrastive_loss")]
            for run_id, run in told.runs.items()
            if run.data.tags["step"] == "pretrain" and "replicate" in run.data.tags
        }
    return told


def test_the_run_ends_well_though_its_server_was_away(story):
    said = "\n".join(story.said)
    assert (story.status, story.lost) == (0, []), said
    assert "MLflow no longer answers" in said
    assert "MLflow answers again and has got all that was logged meanwhile" in said
    assert "does not answer; it is waited for" in said


def test_nothing_is_done_twice(story):
    stages = [line.split("'")[1] for line in story.said if line.startswith("Running stage")]
    assert sorted(stages) == sorted(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
    assert story.again == ["champion"]
    tags = [run.data.tags for run in story.runs.values()]
    trainings = Counter((each["step"], each["replicate"]) for each in tags if "replicate" in each)
    assert {key for key in trainings if key[0] == "pretrain"} == {("pretrain", str(SEED))}
    assert set(trainings.values()) == {1}


def test_nothing_is_lost(story):
    assert story.unsent == []
    assert {run.info.status for run in story.runs.values()} == {"FINISHED"}
    for record in story.records:
        run = story.runs[record["mlflow_run_id"]]
        metrics = under("result", record.get("metrics", {})) | under("cost", record["cost"])
        assert {name: run.data.metrics[name] for name in metrics} == pytest.approx(metrics)
    epochs = TINY["runtime"]["epochs"]
    assert [*story.curves.values()] == [[*range(1, epochs + 1)]] * len(story.curves)
