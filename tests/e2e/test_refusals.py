"""Every refusal from the images to the registry, by the commands that its user types.

One small run on the sample passes a lenient gate. Whatever a gate asks beyond that, or a file lacks, is refused by
name, and nothing more gets into the registry.
"""

from __future__ import annotations

import json
import shutil

import mlflow
import numpy as np
import pytest

from components.shared.steps import STEPS
from tests.helpers.project import finished_project

pytestmark = pytest.mark.slow

COMPOSE = ("python", "-m", "pipelines", "compose")
REVIEW = ("python", "-m", "pipelines", "review")
# whatever the models are worth, as long as one is surely better
LENIENT = ("gate.min_gain=-1", "gate.min_accuracy=0", "gate.max_slice_drop=1", "gate.alpha=0.5")
NAME = "contrastive-sample"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The pipeline after a run that a lenient gate has blessed."""
    project, _ = finished_project(tmp_path_factory, tmp_path_factory.mktemp("refusals"))
    project.run(*COMPOSE, *LENIENT)
    project.run("dvc", "repro")
    assert blessing(project)["blessed"] and versions(project) == [1]
    return project


def blessing(project):
    return json.loads((project.root / "evaluation" / "blessing.json").read_text())


def versions(project):
    """Numbers of the registered versions."""
    client = mlflow.MlflowClient(f"sqlite:///{project.root / 'mlflow.db'}")
    return sorted(version.version for version in client.search_model_versions(f"name='{NAME}'"))


def judged(project, *overrides):
    """Judge and register with other options; returns what the summary prints."""
    project.run(*COMPOSE, *LENIENT, *overrides)
    project.run("dvc", "repro")
    return " ".join(project.run("python", "-m", "pipelines", "summary").split())


def test_what_is_put_up_names_the_run_of_each_step(project):
    record = json.loads((project.root / "registration" / "result.json").read_text())
    # which champion was asked is no training
    assert set(record["details"]["runs"]) == set(STEPS) - {"champion"}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["gate.min_replicates=3"], {"inputs": "replicates"}),
        (
            ["gate.min_gain=0.95", "gate.min_accuracy=0.999"],
            {"gain": "95.0 points are asked for", "floor": "at least 99.9 % is asked for"},
        ),
    ],
)
def test_what_the_gate_asks_and_the_run_lacks_is_named(project, asked, words):
    printed = judged(project, *asked)
    # without sound inputs nothing else is known to hold either
    failed = {check["name"] for check in blessing(project)["checks"] if not check["passed"]}
    assert failed >= set(words) and (failed == set(words) or "inputs" in failed)
    assert "verdict not blessed" in printed
    assert all(f"{rule}: " in printed and said in printed for rule, said in words.items())
    assert versions(project) == [1]


def test_a_look_that_would_prove_next_to_nothing_leaves_the_test_set_closed(project):
    printed = judged(project, "gate.alpha=0.01")
    assert "verdict not judged" in printed and "more replicates" in printed
    assert not (project.root / "evaluation" / "test.json").exists()
    assert versions(project) == [1]


def test_a_weakened_gate_takes_an_override_and_a_champion_that_is_lost_refuses(project):
    refused = project.tried(*REVIEW, "approve", "1", "--reason", "good enough")
    assert refused.returncode != 0
    assert (
        refused.stderr.startswith("error: ") and refused.stderr.count("\n") == 1 and "--override" in refused.stderr
    )
    project.run(*REVIEW, "approve", "1", "--reason", "good enough", "--override")

    client = mlflow.MlflowClient(f"sqlite:///{project.root / 'mlflow.db'}")
    source = client.get_model_version(NAME, "1").source.removeprefix("models:/")
    (kept,) = (project.root / "mlartifacts").glob(f"**/{source}/artifacts")
    shutil.move(kept, project.root / "away")
    printed = judged(project)
    assert [check["name"] for check in blessing(project)["checks"] if not check["passed"]] == ["champion"]
    assert "version 1 can't be loaded" in printed
    shutil.move(project.root / "away", kept)
    assert "verdict blessed" in judged(project)
    assert versions(project) == [1]


def test_test_images_that_were_replaced_after_ingest_are_an_error_in_one_line(project):
    labels = project.root / "dataset" / "test.labels.npy"
    before = labels.read_bytes()
    labels.chmod(0o644)
    np.save(labels, np.load(labels)[::-1])
    found = project.tried("python", "-m", "components.evaluate")
    labels.write_bytes(before)
    assert found.returncode != 0
    error = [line for line in found.stderr.splitlines() if line.startswith("error: ")]
    assert len(error) == 1 and "test.labels.npy" in error[0] and "Traceback" not in found.stderr


def test_without_pretraining_nothing_is_put_up(project):
    project.run(*COMPOSE, "runtime.epochs=0")
    project.run("dvc", "repro")
    assert not blessing(project)["blessed"]
    assert versions(project) == [1]
