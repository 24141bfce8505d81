"""Replicates: which of them are trained anew, what becomes of a killed run, and what they are together."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from components.shared.artifacts import Result, input_digest, read_record
from components.shared.errors import UserError
from components.shared.replicates import KEPT, gather, train_replicates
from components.shared.training import devices
from components.shared.training.side_by_side import cores
from tests.helpers.datasets import make_dataset
from tests.helpers.quick_training import Training, params
from tests.helpers.repository import ROOT
from tests.helpers.trained import write_search


@pytest.fixture
def project(in_tmp, tracking_uri):
    """An empty folder with `dataset/` and `search/`."""
    dataset = make_dataset(in_tmp / "dataset", image_size=8)
    write_search(in_tmp / "search", dataset)
    (in_tmp / "search" / "baseline.json").write_text("{}")
    return in_tmp


def train(project, seeds, training=None, *overrides, inputs=("dataset", "search")):
    training = training or Training()
    folders = {name: project / name for name in inputs}
    train_replicates("baseline", training, folders, project / "baseline", lambda: params(*overrides), seeds)
    return training.seeds


def record(project):
    return read_record(project / "baseline", Result)


def test_an_encoder_to_go_on_with_is_the_first_seeds(project):
    train(project, [3, 1])
    assert (project / "baseline" / "encoder.keras").read_text() == "encoder 3"


def test_more_seeds_train_only_the_new_ones_and_fewer_none(project):
    assert train(project, [0, 1, 2]) == [0, 1, 2]
    assert train(project, [0, 1, 2, 3, 4]) == [3, 4]
    assert record(project).details["replicates"] == [0, 1, 2, 3, 4]
    assert train(project, [2, 0, 1]) == []
    details = record(project).details
    assert details["replicates"] == [2, 0, 1]
    assert {path.name for path in (project / "baseline").iterdir() if path.is_dir()} == {"0", "1", "2"}
    with np.load(project / "baseline" / "predictions.npz") as file:
        assert file["test_probabilities"].shape == file["probabilities"].shape == (3, 30, 3)
        right = (file["validation_probabilities"].argmax(axis=2) == file["validation_labels"]).sum(axis=1)
    assert right.tolist() == [8, 6, 7]


def test_answers_with_fewer_labels_are_gathered_by_replicate(project):
    train(project, [2, 0, 1])
    with np.load(project / "baseline" / "budgets.npz") as file:
        assert file["labels_per_class"].tolist() == [1, 2]
        assert file["predicted"].shape == (2, 3, 30)
        assert file["predicted"][:, :, 0].tolist() == [[2, 0, 1], [2, 0, 1]]


@pytest.mark.slow
@pytest.mark.skipif(len(cores()) < 2, reason="needs two cores")
def test_side_by_side_only_the_processes_that_train_import_keras(project):
    program = project / "program.py"
    program.write_text(
        """
import sys
from pathlib import Path
from components.shared.replicates import train_replicates
from tests.helpers.quick_training import Training, params

if __name__ == "__main__":
    folders = {name: Path(name) for name in ("dataset", "search")}
    train_replicates("baseline", Training(), folders, Path("baseline"), params, [0, 1], threads=1)
    print(sorted({"keras", "tensorflow"} & set(sys.modules)))
"""
    )
    done = subprocess.run(
        [sys.executable, program], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert record(project).details["replicates"] == [0, 1]


def test_what_decides_a_result_trains_all_anew_and_going_back_none(project):
    assert train(project, [0, 1]) == [0, 1]
    assert train(project, [0, 1], None, "supervised.batch_size=7") == [0, 1]
    # other gate, other list, other place to compute
    assert train(project, [0, 1], None, "gate.min_gain=0.5", "runtime.devices=1") == []
    (project / "search" / "baseline.json").write_text('{"recipe": 1}')
    assert train(project, [0, 1]) == [0, 1]
    # records hold times and run ids: another one about the same changes nothing
    (project / "search" / "finetune.json").write_text("other")
    assert train(project, [0, 1]) == []


@pytest.mark.parametrize("runtime", [[], ["runtime.precision=auto"]])
def test_another_precision_trains_anew_whichever_way_it_is_chosen(project, monkeypatch, runtime):
    monkeypatch.setattr(devices, "precision_here", lambda precision: "float32")
    assert train(project, [0], None, *runtime) == [0]
    assert train(project, [0], None, *runtime) == []
    monkeypatch.setattr(devices, "precision_here", lambda precision: "bfloat16")
    assert train(project, [0], None, *runtime) == [0]


def test_a_killed_run_goes_on_after_the_last_finished_replicate(project):
    killed = Training(fail_at=2)
    with pytest.raises(KeyboardInterrupt):
        train(project, [0, 1, 2], killed)
    assert killed.seeds == [0, 1]
    assert not (project / "baseline").exists()
    assert train(project, [0, 1, 2]) == [2]


@pytest.mark.slow
def test_only_the_last_used_sets_are_kept(project):
    for size in range(3, 10):
        train(project, [0, 1], None, f"supervised.batch_size={size}")
    kept = list((project / KEPT / "baseline").iterdir())
    assert len(kept) == 4 * 2
    assert train(project, [0, 1], None, "supervised.batch_size=9") == []
    assert train(project, [0, 1], None, "supervised.batch_size=3") == [0, 1]


def test_together_they_have_means_and_their_spread_and_the_best_model(project):
    train(project, [0, 1, 3])
    found, values = record(project), np.array([6, 7, 9]) / 12
    assert found.metrics["validation_accuracy"] == pytest.approx(values.mean())
    assert found.metrics["validation_accuracy_std"] == pytest.approx(values.std(ddof=1))
    parts = [read_record(project / "baseline" / str(seed), Result).cost for seed in (0, 1, 3)]
    assert found.cost.cpu_seconds >= sum(part.cpu_seconds for part in parts) > 0
    assert found.cost.peak_mebibytes >= max(part.peak_mebibytes for part in parts)
    assert found.details["exported_seed"] == 2
    assert (project / "baseline" / "classifier.keras").read_text() == "model 3"
    # alike: one value; else each replicate's
    assert found.details["held_out"] == "validation"
    assert found.details["temperature"] == [1.0, 1.1, 1.3]
    assert found.inputs["dataset"] == input_digest(project / "dataset")
    with (project / "baseline" / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["epoch"], row["seed"], row["loss"]) for row in rows] == [
        ("1", "0", "0.0"), ("1", "1", "0.1"), ("1", "3", "0.3"),
    ]  # fmt: skip


def test_mlflow_has_a_run_for_each_and_one_for_all(project, tracking_uri):
    import mlflow

    train(project, [0, 1])
    client, found = mlflow.MlflowClient(tracking_uri), record(project)
    together = client.get_run(found.mlflow_run_id)
    assert together.data.tags["replicates"] == "0, 1"
    assert together.data.metrics["result/validation_accuracy"] == pytest.approx(6.5 / 12)
    assert together.data.metrics["result/validation_accuracy_std"] == pytest.approx(0.5**0.5 / 12)
    each = [client.get_run(run) for run in found.details["replicate_runs"]]
    assert [run.data.tags["replicate"] for run in each] == ["0", "1"]
    assert not any("test" in name for run in (together, *each) for name in run.data.metrics)


def test_answers_of_the_search_are_there_once_and_choose_no_replicate(project):
    train(project, [3, 1], Training(of_search=True))
    with np.load(project / "baseline" / "predictions.npz") as file:
        assert file["validation_probabilities"].shape == (1, 12, 3)
        assert file["test_probabilities"].shape == (2, 30, 3)
    assert record(project).details["exported_seed"] == 0
    assert (project / "baseline" / "classifier.keras").read_text() == "model 3"


def test_an_encoder_that_was_not_trained_with_a_seed_is_told(project):
    (project / "encoder" / "0").mkdir(parents=True)
    message = r"encoder/1: missing: pretrain was not run with seed 1 of runtime.replicates; run it again"
    with pytest.raises(UserError, match=message):
        train(project, [1], inputs=("dataset", "encoder", "search"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("details", "seed", 7), r"written by baseline with seed 7, not by baseline with seed 1; run baseline"),
        (("step", None, "probe"), "written by probe with seed 1, not by baseline"),
        (("params_digest", None, "x"), "params_digest differs from that of the other replicates"),
        (("dataset_digest", None, "x"), "dataset_digest differs from that of the other replicates"),
        (
            ("details", "precision", "bfloat16"),
            "trained in bfloat16, on another machine than others in None; set runtime.precision to one of them",
        ),
    ],
)
def test_replicates_that_differ_in_more_than_their_seed_are_not_gathered(project, change, message):
    folders = {}
    for seed in (0, 1):
        folders[seed] = project / f"replicate-{seed}"
        Training()(project / "dataset", project / "search", folders[seed], params(), seed)
    path = folders[1] / "result.json"
    values, (field, name, value) = json.loads(path.read_text()), change
    values[field] = value if name is None else {**values[field], name: value}
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match=message):
        gather("baseline", folders, project / "baseline", project / "dataset")
    assert not (project / "baseline").exists()


def test_an_unfinished_or_damaged_replicate_is_not_gathered(project):
    folders = {seed: project / f"replicate-{seed}" for seed in (0, 1)}
    Training()(project / "dataset", project / "search", folders[0], params(), 0)
    with pytest.raises(UserError, match=r"replicate-1/result.json: missing"):
        gather("baseline", folders, project / "baseline", project / "dataset")
    shutil.copytree(folders[0], folders[1])
    path = folders[1] / "result.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    (folders[1] / "predictions.npz").write_bytes(b"half")
    with pytest.raises(UserError, match=r"replicate-1/predictions.npz: can't be read"):
        gather("baseline", folders, project / "baseline", project / "dataset")
    assert not (project / "baseline").exists()
