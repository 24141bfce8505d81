"""The whole pipeline on the sample, under DVC and under Kubeflow's local runner.

What runs, what does not run again, what a reader is shown, and that both find the same.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import mlflow
import numpy as np
import pytest
import yaml

from tests.helpers.pipeline_graph import FOLDERS
from tests.helpers.project import TINY, Project, finished_project
from tests.helpers.repository import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The pipeline after its first `dvc repro`, committed."""
    project, project.first = finished_project(tmp_path_factory, tmp_path_factory.mktemp("project"))
    project.untracked = project.run("git", "status", "--porcelain").split()
    project.commit("Run the pipeline")
    return project


def test_every_stage_runs_once_and_leaves_its_folder(project):
    assert sorted(project.first) == sorted(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
    for folder in sorted(set(FOLDERS.values()) - {"champion"}):
        record = "manifest.json" if folder == "dataset" else "result.json"
        assert json.loads((project.root / folder / record).read_text())["mlflow_run_id"]
    assert [path.name for path in project.root.glob(".*.partial")] == []


def test_only_the_lock_and_the_numbers_are_new_to_git(project):
    assert project.untracked == ["??", "dvc.lock", "??", "metrics.json"]


def test_a_fresh_clone_compares_with_the_committed_numbers_and_says_what_no_remote_has(project, tmp_path):
    project.run("git", "clone", "--quiet", ".", str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    numbers = json.loads((clone.root / "metrics.json").read_text())
    compared = clone.answer("dvc", "metrics", "diff", "--all")["metrics.json"]
    assert {name: value["old"] for name, value in compared.items()} == numbers
    (commit,) = (entry for entry in clone.answer("dvc", "exp", "show") if entry["rev"] != "workspace")
    assert commit["data"]["metrics"]["metrics.json"]["data"] == numbers
    pulled = clone.tried("dvc", "pull", "--remote", "sample")
    assert pulled.returncode != 0
    named = pulled.stderr.partition("Checkout failed for following targets:")[2].split()
    assert set(FOLDERS.values()) <= set(named) and "data" not in named
    assert (clone.root / "data" / "sample").is_dir()


# what DVC and Kubeflow ask again each time
ALWAYS = {"champion": ["always changed"]}


def test_a_second_run_asks_who_is_champion_and_does_nothing_else(project):
    assert project.stages_run("dvc", "repro") == list(ALWAYS)
    assert project.answer("dvc", "status") == ALWAYS


def test_a_changed_temperature_reaches_the_pretraining_first(project):
    params = project.root / "params.yaml"
    before = params.read_text()
    project.run("python", "-m", "pipelines", "compose", "method.temperature=0.3")
    # the search asks the method for its views
    assert set(project.answer("dvc", "status")) == {"pretrain", "search", *ALWAYS}
    params.write_text(before)
    assert project.answer("dvc", "status") == ALWAYS


def test_the_metrics_are_shown(project):
    shown = project.answer("dvc", "metrics", "show")[""]["data"]
    metrics = shown["metrics.json"]["data"]
    assert {"blessed", "judged"} <= set(metrics)
    shown = [f"{model}_validation_accuracy" for model in ("baseline", "probe", "finetune")]
    assert all(0 <= metrics[name] <= 1 for name in shown)
    assert [name for name in metrics if "test" in name] == []


def test_the_notebook_runs_on_what_a_run_leaves(project):
    project.run("jupyter", "execute", "docs/first-hour.ipynb", "--output", "../ran")
    cells = json.loads((project.root / "ran.ipynb").read_text())["cells"]
    (project.root / "ran.ipynb").unlink()
    shown = {cell["id"]: cell["outputs"] for cell in cells if cell["cell_type"] == "code"}
    pictures = {
        name for name, outputs in shown.items() if any("image/png" in out.get("data", {}) for out in outputs)
    }
    assert pictures == {"examples", "views", "map", "neighbours", "mistakes", "replicates"}
    reached = dict(line.split(maxsplit=1) for line in "".join(shown["change"][0]["text"]).splitlines())
    assert reached["method.temperature"] == "pretrain, search"
    assert reached["gate.min_gain"] == "evaluate"
    # not in the pictures, whose letters may spell anything
    for out in (out for outputs in shown.values() for out in outputs):
        out.get("data", {}).pop("image/png", None)
        assert "warn" not in json.dumps(out).lower()


def test_the_summary_is_printed(project):
    printed = project.run("python", "-m", "pipelines", "summary")
    assert "baseline" in printed
    assert "registry" in printed


# --- Kubeflow's local runner, on the same commit and parameters

STEPS = {step: folder for step, folder in FOLDERS.items() if step not in ("champion", "register")}
SEEDS = TINY["runtime"]["replicates"]
EACH = ("pretrain", "probe", "baseline", "finetune")
GATHERED = EACH[1:]
TASKS = {
    *(step for step in STEPS if step not in EACH),
    *(f"{step}-{seed}" for step in EACH for seed in SEEDS),
    *(f"gather-{step}" for step in GATHERED),
}
KEPT = Path(".cache/kubeflow")
RUN = ("python", "-m", "pipelines", "kubeflow", "run", "--local")
# whatever the models are worth, as long as one is surely better
LENIENT = ("gate.min_gain=-1", "gate.min_accuracy=0", "gate.max_slice_drop=1", "gate.alpha=0.5")
CHANGED = (f"runtime.replicates=[{','.join(map(str, [*SEEDS, 9]))}]", *LENIENT)


def states(printed):
    """Task → done, cached or failed, in the order in which they ended."""
    return dict(re.findall(r"^([\w-]+): (done|cached|failed)", printed, re.MULTILINE))


def artifact(project, task, name):
    """What a task left in the latest run in which it ran."""
    return max((project.root / KEPT).glob(f"contrastive-pipeline-*/{task}/{name}"))


def found(project):
    """What each step made under DVC, and what its tasks made under Kubeflow."""
    for step, folder in STEPS.items():
        if step in EACH:
            for seed in SEEDS:
                yield step, project.root / folder / str(seed), artifact(project, f"{step}-{seed}", folder)
        else:
            yield step, project.root / folder, artifact(project, step, folder)
    for step in GATHERED:
        yield step, project.root / step, artifact(project, f"gather-{step}", "gathered")


def metadata(project, step, name):
    """What the page is told of an artifact."""
    output = artifact(project, step, "executor_output.json")
    return json.loads(output.read_text())["artifacts"][name]["artifacts"][0]["metadata"]


@pytest.fixture(scope="module")
def kubeflow(project):
    """What the first local run of the Kubeflow pipeline printed."""
    return project.run(*RUN)


def test_a_refused_run_ends_well_and_says_why(project, kubeflow):
    assert set(states(kubeflow).items()) == {
        (task, "done") for task in (*TASKS, *ALWAYS, "compose", "refuse", "record")
    }
    assert "floor: the exported model answers" in kubeflow
    assert "verdict   not blessed" in kubeflow and "registry  not registered" in kubeflow
    assert "[KFP" not in kubeflow and "executor_input" not in kubeflow


def test_it_ends_with_the_table_that_dvc_ends_with(project, kubeflow):
    table = project.run("python", "-m", "pipelines", "summary")
    # but for what it cost
    assert table.partition("\ncost")[0] in kubeflow
    named = kubeflow.splitlines()[-1].split()[-1]
    assert (project.root / named).read_text().startswith("<!doctype html>")


def test_what_it_finds_equals_what_dvc_finds(project, kubeflow):
    compared = set()
    for step, one, other in found(project):
        for file in (
            *("digest.txt", "verdict.json", "curves.csv", "baseline.json", "finetune.json", "probe.json"),
            *("blessing.json", "metrics.json", "confusion.csv"),
        ):
            if (one / file).exists():
                assert (one / file).read_bytes() == (other / file).read_bytes(), f"{step}: {one / file}"
                compared.add(file)
        if (one / "predictions.npz").exists():
            with np.load(one / "predictions.npz") as ours, np.load(other / "predictions.npz") as theirs:
                assert set(ours) == set(theirs)
                for name in ours:
                    np.testing.assert_array_equal(ours[name], theirs[name], err_msg=f"{step}: {name}")
                compared.add("predictions.npz")
    assert len(compared) == 10


def test_each_step_got_the_parameters_that_dvc_gives_it(project, kubeflow):
    for step, *places in found(project):
        name = "manifest.json" if step == "ingest" else "result.json"
        one, other = (json.loads((place / name).read_text()) for place in places)
        assert one["params"] == other["params"] and one["params_digest"] == other["params_digest"], step


def test_the_page_is_told_the_numbers_the_confusion_and_the_report(project, kubeflow):
    metrics = json.loads((project.root / "evaluation" / "metrics.json").read_text())
    told = metadata(project, "evaluate", "metrics")
    assert {name: value for name, value in told.items() if not name.startswith("cost_")} == metrics
    assert told["cost_cpu_seconds"] > 0
    for task in ("evaluate", *(f"gather-{step}" for step in GATHERED), *(f"{step}-0" for step in EACH)):
        # there is nothing to choose by on test
        assert not [name for name in metadata(project, task, "metrics") if "test" in name]
    assert "validation_accuracy_std" in metadata(project, "gather-probe", "metrics")
    matrix = metadata(project, "evaluate", "confusion")["confusionMatrix"]
    assert len(matrix["annotationSpecs"]) == 10
    assert np.sum([row["row"] for row in matrix["rows"]]) == 2000
    report = artifact(project, "evaluate", "evaluation") / "report.html"
    assert artifact(project, "evaluate", "report").read_text() == report.read_text()
    assert metadata(project, "ingest", "counts")["unlabelled_images"] == 4070
    assert "| ✓ | image_dtype_fits | critical |" in artifact(project, "validate", "verdict").read_text()
    assert artifact(project, "pretrain-0", "views").read_text().count("data:image/png;base64,") == 1
    assert "# Not registered" in artifact(project, "refuse", "outcome").read_text()


@pytest.fixture(scope="module")
def again(project, kubeflow):
    """The same run again."""
    return project.run(*RUN)


def test_the_same_run_again_is_answered_from_the_cache(project, kubeflow, again):
    found = states(again)
    assert {step for step, state in found.items() if state == "done"} == {"compose", *ALWAYS, "record"}
    assert {step for step, state in found.items() if state == "cached"} == {*TASKS, "refuse"}
    assert again.partition("\nbaseline, from")[2] == kubeflow.partition("\nbaseline, from")[2]


@pytest.fixture(scope="module")
def blessed(project, again):
    """A run with one replicate more, and another gate, which lets the model pass."""
    return project.run(*RUN, *CHANGED)


def test_another_replicate_trains_alone_and_is_gathered_with_the_others(project, blessed):
    ran = {task for task, state in states(blessed).items() if state == "done"}
    trained = {f"{step}-9" for step in EACH} | {f"gather-{step}" for step in GATHERED}
    # validate says what the test images can prove with these replicates
    assert ran == {"compose", "validate", *trained, *ALWAYS, "evaluate", "register", "record"}
    gathered = json.loads((artifact(project, "gather-probe", "gathered") / "result.json").read_text())
    assert gathered["details"]["replicates"] == [*SEEDS, 9]


def test_what_passes_another_gate_is_put_up_for_review(project, blessed):
    assert "verdict   blessed" in blessed
    assert "registry  contrastive-sample version 1 is challenger" in blessed
    assert "# Put up for review" in artifact(project, "register", "outcome").read_text()


@pytest.fixture(scope="module")
def unfit(project, blessed):
    """A run whose dataset does not pass."""
    return project.tried(*RUN, "validation.min_images_per_class=5000")


def test_a_failing_validation_stops_the_run_with_its_reason_in_one_line(unfit):
    assert states(unfit.stdout) == {"compose": "done", "ingest": "cached", "validate": "failed", "record": "done"}
    assert unfit.returncode == 2
    assert unfit.stderr.startswith("error: validate: ") and unfit.stderr.count("\n") == 1
    assert "expected" in unfit.stderr and "Traceback" not in unfit.stdout


def test_mlflow_keeps_how_each_run_ended(project, unfit, monkeypatch):
    client = mlflow.MlflowClient(f"sqlite:///{project.root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("contrastive-sample").experiment_id
    # that of `dvc repro` besides
    whole = client.search_runs([experiment], "tags.step = 'pipeline'", order_by=["attributes.start_time ASC"])
    runs = [run for run in whole if not run.data.tags["pipeline.run"].startswith("repro-")]
    assert len(whole) == len(runs) + 1
    kept = [(run.data.tags["pipeline.status"], run.info.status) for run in runs]
    assert kept == [*[("SUCCEEDED", "FINISHED")] * 3, ("FAILED", "FAILED")]
    assert len({run.data.tags["pipeline.run"] for run in runs}) == 4
    assert runs[2].data.params["overrides"] == " ".join(CHANGED)
    judged = client.search_runs([experiment], "tags.step = 'evaluate' AND tags.blessed = 'true'")
    assert [run.data.tags["pipeline.run"] for run in judged] == [runs[2].data.tags["pipeline.run"]]


# --- experiments with DVC, last because they change the workspace


def test_an_experiment_in_a_copy_of_the_repository_keeps_its_runs_and_pictures(project):
    client = mlflow.MlflowClient(f"sqlite:///{project.root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("contrastive-sample").experiment_id

    def judged():
        return client.search_runs([experiment], "tags.step = 'evaluate'", order_by=["attributes.start_time DESC"])

    before = len(judged())
    project.run("dvc", "exp", "run", "--temp", "--name", "elsewhere", "-S", "gate.min_gain=0.8")
    after = judged()
    assert len(after) == before + 1
    assert any(file.path == "report.html" for file in client.list_artifacts(after[0].info.run_id))


@pytest.fixture(scope="module")
def experiment(project):
    """The stages that an experiment with another threshold of the gate ran."""
    return project.stages_run("dvc", "exp", "run", "--name", "stricter", "-S", "gate.min_gain=0.9")


def test_an_experiment_with_another_gate_runs_the_gate_and_the_registration_only(project, experiment):
    assert set(experiment) == {*ALWAYS, "evaluate", "register"}


def test_the_experiment_stands_beside_the_others_with_its_parameter_and_metrics(project, experiment):
    (commit,) = [entry for entry in project.answer("dvc", "exp", "show") if entry["experiments"]]
    shown = next(entry for entry in commit["experiments"] if entry["name"] == "stricter")
    data = shown["revs"][0]["data"]
    assert data["params"]["params.yaml"]["data"]["gate"]["min_gain"] == 0.9
    assert data["metrics"]["metrics.json"]["data"]["blessed"] == 0


def test_the_difference_in_parameters_is_the_one_that_was_made(project, experiment):
    assert project.answer("dvc", "params", "diff") == {
        "params.yaml": {"gate.min_gain": {"old": 0.02, "new": 0.9, "diff": pytest.approx(0.88)}}
    }


def test_the_difference_in_metrics_can_be_asked_for(project, experiment):
    compared = project.answer("dvc", "metrics", "diff", "--all")["metrics.json"]
    name = "baseline_validation_accuracy"
    assert compared[name]["old"] == compared[name]["new"]


def test_the_plots_of_both_lie_side_by_side_on_a_page(project, experiment):
    project.run("dvc", "plots", "diff", "--out", "dvc_plots")
    page = (project.root / "dvc_plots" / "index.html").read_text()
    for title in ("Accuracy in training", "Contrastive loss", "Pretraining"):
        assert title in page
    assert "workspace" in page
    pictures = [path.name for path in (project.root / "dvc_plots" / "static").iterdir()]
    for name in ("encoder_views.png", "evaluation_curves.png"):
        assert {f"HEAD_{name}", f"workspace_{name}"} <= set(pictures)
