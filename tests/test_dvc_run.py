"""The whole pipeline under DVC on a few images: what runs, what does not run again, what a reader is shown."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, tracked_files
from datasets import PATTERNS, make_arrays
from PIL import Image

pytestmark = pytest.mark.slow

FOLDERS = ("dataset", "validation", "encoder", "probe", "baseline", "finetune", "evaluation", "registration")
# as small as every step still allows
TINY = {
    "data": {"name": "tiny", "source": "folder", "path": "images", "image_size": 32},
    "encoder": {"width": 8},
    "runtime": {"epochs": 1, "batch_size": 32, "repeats": 2},
    "supervised": {"epochs": 1, "batch_size": 8, "learning_rates": [0.001]},
    "probe": {"label_budgets": [1, 2], "l2": [0.001], "steps": 10, "knn_neighbours": 3},
    "gate": {"resamples": 100},
}


class Project:
    """A copy of the repository in git, with commands run as in the activated environment."""

    def __init__(self, root):
        self.root = root
        self.env = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "DVC_"))}
        self.env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), self.env["PATH"]])

    def run(self, *command):
        """Run a command; returns what it printed."""
        done = subprocess.run(command, cwd=self.root, env=self.env, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def stages_run(self, *command):
        """Run a command; returns the stages that DVC says it ran."""
        lines = self.run(*command).splitlines()
        return [line.split("'")[1] for line in lines if line.startswith("Running stage")]

    def answer(self, *command):
        return json.loads(self.run(*command, "--json"))

    def commit(self, message):
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", message)


def copy_repository(root):
    for file in tracked_files():
        name = file.relative_to(ROOT)
        if file.name != "dvc.lock":
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, root / name)


def write_images(folder):
    counts = {"train": 24, "validation": 12, "test": 12, "unlabelled": 40}
    names = list(PATTERNS)[:3]
    for split, (images, labels) in make_arrays(counts, classes=3).items():
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            place = folder / split / names[label] if split != "unlabelled" else folder / split
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{index}.png")


def shrink(conf):
    """Make the tiny run the default one, as `dvc exp run -S` composes from there."""
    (conf / "data" / "tiny.yaml").write_text(yaml.safe_dump(TINY["data"]))
    config = yaml.safe_load((conf / "config.yaml").read_text())
    config["defaults"][0] = {"data": "tiny"}
    for section, values in TINY.items():
        if section != "data":
            config[section] = {**config.get(section, {}), **values}
    (conf / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The pipeline after its first `dvc repro`, committed."""
    root = tmp_path_factory.mktemp("project")
    copy_repository(root)
    write_images(root / "images")
    shrink(root / "conf")
    project = Project(root)
    project.run("git", "init", "--quiet")
    project.run("git", "config", "user.name", "Test")
    project.run("git", "config", "user.email", "test@example.org")
    project.run("python", "-m", "pipelines", "compose")
    project.run("dvc", "pull", "--quiet", "--remote", "sample", "data.dvc")
    project.commit("Start")
    project.first = project.stages_run("dvc", "repro")
    project.untracked = project.run("git", "status", "--porcelain").split()
    project.commit("Run the pipeline")
    return project


def test_every_stage_runs_once_and_leaves_its_folder(project):
    assert sorted(project.first) == sorted(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
    for folder in FOLDERS:
        record = "manifest.json" if folder == "dataset" else "result.json"
        assert json.loads((project.root / folder / record).read_text())["mlflow_run_id"]
    assert [path.name for path in project.root.glob(".*.partial")] == []


def test_only_the_lock_is_new_to_git(project):
    assert project.untracked == ["??", "dvc.lock"]


def test_a_second_run_does_nothing(project):
    assert project.stages_run("dvc", "repro") == []
    assert project.answer("dvc", "status") == {}


def test_a_changed_temperature_reaches_the_pretraining_first(project):
    params = project.root / "params.yaml"
    before = params.read_text()
    project.run("python", "-m", "pipelines", "compose", "method.temperature=0.2")
    assert list(project.answer("dvc", "status")) == ["pretrain"]
    params.write_text(before)
    assert project.answer("dvc", "status") == {}


def test_the_metrics_are_shown(project):
    shown = project.answer("dvc", "metrics", "show")[""]["data"]
    metrics = shown["evaluation/metrics.json"]["data"]
    assert {"baseline_accuracy", "probe_accuracy", "finetune_accuracy", "gain", "blessed"} <= set(metrics)
    assert 0 <= metrics["baseline_accuracy"] <= 1


def test_the_summary_is_printed(project):
    printed = project.run("python", "-m", "pipelines", "summary")
    assert "baseline" in printed
    assert "registry" in printed


@pytest.fixture(scope="module")
def experiment(project):
    """The stages that an experiment with another threshold of the gate ran."""
    return project.stages_run("dvc", "exp", "run", "--name", "stricter", "-S", "gate.min_gain=0.9")


def test_an_experiment_with_another_gate_runs_the_gate_and_the_registration_only(project, experiment):
    assert experiment == ["evaluate", "register"]


def test_the_experiment_stands_beside_the_others_with_its_parameter_and_metrics(project, experiment):
    (commit,) = [entry for entry in project.answer("dvc", "exp", "show") if entry["experiments"]]
    (shown,) = commit["experiments"]
    assert shown["name"] == "stricter"
    data = shown["revs"][0]["data"]
    assert data["params"]["params.yaml"]["data"]["gate"]["min_gain"] == 0.9
    assert data["metrics"]["evaluation/metrics.json"]["data"]["blessed"] == 0


def test_the_difference_in_parameters_is_the_one_that_was_made(project, experiment):
    assert project.answer("dvc", "params", "diff") == {
        "params.yaml": {"gate.min_gain": {"old": 0.02, "new": 0.9, "diff": pytest.approx(0.88)}}
    }


def test_the_difference_in_metrics_can_be_asked_for(project, experiment):
    compared = project.answer("dvc", "metrics", "diff", "--all")["evaluation/metrics.json"]
    assert compared["baseline_accuracy"]["old"] == compared["baseline_accuracy"]["new"]


def test_the_plots_of_both_lie_side_by_side_on_a_page(project, experiment):
    project.run("dvc", "plots", "diff", "--out", "dvc_plots")
    page = (project.root / "dvc_plots" / "index.html").read_text()
    for title in ("Accuracy on validation", "Contrastive loss", "Confusion"):
        assert title in page
    assert "workspace" in page
    pictures = [path.name for path in (project.root / "dvc_plots" / "static").iterdir()]
    for name in ("encoder_views.png", "evaluation_curves.png"):
        assert {f"HEAD_{name}", f"workspace_{name}"} <= set(pictures)
