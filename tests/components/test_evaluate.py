"""The evaluate step on finished folders: the verdict, what it writes, and inputs that are not sound."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from components.evaluate import evaluate
from components.shared.artifacts import Dataset, Result, read_record
from components.shared.errors import UserError
from components.shared.evaluation.champion import Champion, write_champion
from components.shared.evaluation.gate import read_blessing
from components.shared.params.schema import select
from tests.helpers.datasets import make_dataset
from tests.helpers.repository import ROOT
from tests.helpers.trained import write_all, write_trained

PICTURES = {"accuracies.png", "curves.png", "recall.png", "confusion.png"}
INPUTS = ("dataset", "probe", "baseline", "finetune", "champion")
FILES = {"blessing.json", "metrics.json", "curves.csv", "confusion.csv", "report.html", "result.json"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    dataset = make_dataset(root / "dataset", test=600, validation=120, image_size=16)
    write_all(root, dataset, baseline=0.7, probe=0.78, finetune=0.85)
    return root


@pytest.fixture
def run(made, tmp_path, monkeypatch, tracking_uri):
    """A copy of the folders that a test may spoil, as working folder."""
    shutil.copytree(made, tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def do_evaluate(run, compose_params):
    """A function that evaluates and returns what stands in `evaluation/blessing.json`."""

    def _evaluate(*overrides):
        params = select(compose_params("data.name=textures", *overrides), "evaluate")
        given = evaluate(*(run / name for name in (*INPUTS, "evaluation")), params)
        written = read_blessing(run / "evaluation")
        assert written == given
        return written

    return _evaluate


def why(blessing, name):
    return next(check.why for check in blessing.checks if check.name == name)


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_a_clear_gain_is_blessed_and_everything_is_written(run, do_evaluate):
    blessing = do_evaluate()
    assert blessing.blessed
    assert blessing.winner == "finetune"
    out = run / "evaluation"
    assert names(out) == FILES | PICTURES
    for name in PICTURES:
        with Image.open(out / name) as picture:
            picture.load()
            assert min(picture.size) > 200
            assert len(np.unique(np.asarray(picture.convert("L")))) > 20
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(metrics) == {
        "baseline_accuracy",
        "probe_accuracy",
        "finetune_accuracy",
        "knn_test_accuracy",
        "gain",
        "gain_low",
        "gain_high",
        "blessed",
    }
    assert metrics["blessed"] == 1
    assert metrics["gain"] == pytest.approx(metrics["finetune_accuracy"] - metrics["baseline_accuracy"])
    recorded = read_record(run / "finetune", Result).metrics["test_accuracy"]
    assert metrics["finetune_accuracy"] == pytest.approx(recorded)
    assert metrics["gain_low"] < metrics["gain"] < metrics["gain_high"]
    record = read_record(out, Result)
    assert record.metrics == metrics
    check_details(record.details, Dataset(run / "dataset").manifest)
    assert not [path for path in run.iterdir() if path.name.startswith(".")]


def check_details(details, manifest):
    assert details["runs"] == dict.fromkeys(("probe", "baseline", "finetune"), "0" * 32)
    shares = np.array(manifest.class_counts["test"]) / manifest.counts["test"]
    for name, (low, high) in details["intervals"].items():
        assert low < np.mean(details["accuracies"][name]) < high
        assert np.dot(details["recall"][name], shares) == pytest.approx(np.mean(details["accuracies"][name]))


def test_tables_for_dvc(run, do_evaluate):
    do_evaluate()
    data = Dataset(run / "dataset")
    with (run / "evaluation" / "confusion.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["actual"] for row in rows] == [data.manifest.class_names[k] for k in data.labels("test")]
    exported = np.load(run / "finetune" / "predictions.npz")["test_probabilities"][1].argmax(axis=1)
    assert [row["predicted"] for row in rows] == [data.manifest.class_names[k] for k in exported]

    with (run / "evaluation" / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["model", "epoch", "accuracy", "validation_accuracy", "loss"]
    epochs = {model: [r["epoch"] for r in rows if r["model"] == model] for model in {r["model"] for r in rows}}
    assert {model: len(at) for model, at in epochs.items()} == {
        "baseline": 10,
        "finetune": 10,
        "pretraining probe": 20,
    }
    with (run / "baseline" / "curves.csv").open() as file:
        first = [float(row["validation_accuracy"]) for row in csv.DictReader(file) if row["epoch"] == "1"]
    written = next(row for row in rows if row["model"] == "baseline" and row["epoch"] == "1")
    assert float(written["validation_accuracy"]) == pytest.approx(np.mean(first), rel=1e-5)


def test_the_report_stands_alone_and_leads_with_the_verdict(run, do_evaluate):
    do_evaluate("gate.min_gain=0.5")
    text = (run / "evaluation" / "report.html").read_text()
    assert "<script" not in text
    assert "http:" not in text
    assert "https:" not in text
    assert text.count('src="data:image/png;base64,') == len(PICTURES)
    assert text.count("<img") == len(PICTURES)
    body = text[text.index("<body>") :]
    assert body.index("Not blessed") < body.index("<table")
    assert "50.0 points are asked for" in body
    assert Dataset(run / "dataset").manifest.digest in body


def test_text_from_data_can_not_become_markup(run, do_evaluate):
    path = run / "dataset" / "manifest.json"
    path.write_text(path.read_text().replace('"rings"', '"<b>rings</b>"'))
    labels = Dataset(run / "dataset").labels("test")
    path = run / "finetune" / "predictions.npz"
    arrays = dict(np.load(path))
    arrays["test_probabilities"][:, labels == 2] = [1, 0, 0]
    np.savez(path, **arrays)
    blessing = do_evaluate()
    assert "<b>rings</b>" in why(blessing, "slices")
    assert "<b>" not in (run / "evaluation" / "report.html").read_text()


def test_the_mlflow_run_holds_verdict_pictures_and_lineage(run, do_evaluate):
    import mlflow

    do_evaluate()
    record = read_record(run / "evaluation", Result)
    client = mlflow.MlflowClient()
    tracked = client.get_run(record.mlflow_run_id)
    assert tracked.info.status == "FINISHED"
    assert tracked.data.tags["blessed"] == "true"
    assert tracked.data.tags["winner"] == "finetune"
    assert tracked.data.tags["input.dataset"] == Dataset(run / "dataset").manifest.digest
    assert tracked.data.metrics["gain"] == pytest.approx(record.metrics["gain"])
    assert tracked.data.params["gate.min_gain"] == "0.02"
    assert tracked.inputs.dataset_inputs[0].dataset.name == "tiny"
    assert {item.path for item in client.list_artifacts(record.mlflow_run_id)} == FILES | PICTURES


def test_the_probe_can_win(run, do_evaluate):
    shutil.rmtree(run / "finetune")
    write_trained(run / "finetune", run / "dataset", 0.5)
    blessing = do_evaluate()
    assert blessing.winner == "probe"
    assert blessing.blessed
    assert "linear probe" in (run / "evaluation" / "report.html").read_text()


def test_one_seed_and_one_epoch(run, do_evaluate):
    for name, accuracy in (("probe", 0.7), ("baseline", 0.6), ("finetune", 0.9)):
        shutil.rmtree(run / name)
        write_trained(run / name, run / "dataset", accuracy, seeds=1, epochs=1)
    assert do_evaluate().blessed
    assert names(run / "evaluation") >= PICTURES


# --- inputs that are not sound: the step ends well and says why


def remove(folder):
    shutil.rmtree(folder)


def empty(folder):
    for path in folder.iterdir():
        path.unlink()


def cut_predictions(folder):
    path = folder / "predictions.npz"
    path.write_bytes(path.read_bytes()[:2000])


def garble_predictions(folder):
    path = folder / "predictions.npz"
    data = bytearray(path.read_bytes())
    data[300:400] = bytes(100)
    path.write_bytes(data)


def no_zip(folder):
    (folder / "predictions.npz").write_bytes(b"no zip")


def edit(folder, change):
    arrays = dict(np.load(folder / "predictions.npz"))
    change(arrays)
    np.savez(folder / "predictions.npz", **arrays)


def drop_split(folder):
    edit(folder, lambda arrays: arrays.pop("validation_probabilities"))


def put_nan(folder):
    edit(folder, lambda arrays: arrays["test_probabilities"].__setitem__((0, 0, 0), np.nan))


def miss_one(folder):
    edit(folder, lambda arrays: arrays["test_probabilities"].__imul__(1.1))


def swap_labels(folder):
    edit(folder, lambda arrays: arrays["test_labels"].__setitem__(slice(2), arrays["test_labels"][:2][::-1] + 1))


def pickled(folder):
    arrays = dict(np.load(folder / "predictions.npz"))
    arrays["test_probabilities"] = np.array([{"a": 1}], dtype=object)
    np.savez(folder / "predictions.npz", **arrays)


def edit_record(folder, **values):
    path = folder / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def other_dataset(folder):
    edit_record(folder, dataset_digest="f" * 64)


def nan_metric(folder):
    edit_record(folder, metrics={"test_accuracy": None})


def cut_record(folder):
    path = folder / "result.json"
    path.write_text(path.read_text()[:100])


SPOILED = {
    remove: "result.json: missing",
    empty: "result.json: missing",
    cut_predictions: "predictions.npz: damaged",
    garble_predictions: "predictions.npz: damaged",
    no_zip: "predictions.npz: damaged",
    drop_split: "validation_probabilities",
    put_nan: "NaN",
    miss_one: "not probabilities",
    swap_labels: "labels differ",
    pickled: "damaged",
    other_dataset: "another dataset",
    nan_metric: "metrics.test_accuracy",
    cut_record: "result.json",
}


@pytest.mark.parametrize(
    ("spoil", "name"),
    [(spoil, ("baseline", "probe", "finetune")[i % 3]) for i, spoil in enumerate(SPOILED)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_an_unsound_input_is_refused_with_its_reason(run, do_evaluate, spoil, name):
    spoil(run / name)
    blessing = do_evaluate()
    assert not blessing.blessed
    assert blessing.winner is None
    assert name in why(blessing, "inputs")
    assert SPOILED[spoil] in why(blessing, "inputs")
    assert names(run / "evaluation") >= FILES
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    assert metrics["blessed"] == 0
    assert f"{name}_accuracy" not in metrics
    assert len(metrics) >= 3
    report = (run / "evaluation" / "report.html").read_text()
    assert "Not blessed" in report
    assert SPOILED[spoil] in report


def test_nothing_but_the_dataset_is_refused_too(run, do_evaluate):
    for name in ("probe", "baseline", "finetune"):
        shutil.rmtree(run / name)
    blessing = do_evaluate()
    assert not blessing.blessed
    assert all(f"{name}/result.json: missing" in why(blessing, "inputs") for name in ("probe", "finetune"))
    assert names(run / "evaluation") == FILES
    assert json.loads((run / "evaluation" / "metrics.json").read_text()) == {"blessed": 0}


@pytest.mark.parametrize("content", [None, "epoch,accuracy\n", "a,b\n1,2\n", "epoch,accuracy\nx,y\n"])
def test_curves_that_can_not_be_read_are_left_out_of_the_picture(run, do_evaluate, content):
    path = run / "baseline" / "curves.csv"
    path.unlink()
    if content is not None:
        path.write_text(content)
    assert do_evaluate().blessed
    text = (run / "evaluation" / "curves.csv").read_text()
    assert "finetune" in text
    assert "baseline" not in text


# --- the champion


def test_a_better_champion_on_the_same_images_refuses(run, do_evaluate):
    digest = Dataset(run / "dataset").manifest.test_digest
    best = Champion(model="better", version="1", test_digest=digest, test_accuracy=0.99)
    write_champion(run / "champion", best)
    blessing = do_evaluate()
    assert not blessing.blessed
    assert blessing.reasons() == [f"champion: {why(blessing, 'champion')}"]
    assert "99.0% of champion version 1" in why(blessing, "champion")


def test_another_champion_is_another_input(run, do_evaluate):
    recorded = []
    for version in ("1", "2"):
        write_champion(run / "champion", Champion(model="elsewhere", version=version, test_digest="0" * 64))
        assert do_evaluate().blessed
        recorded.append(read_record(run / "evaluation", Result).inputs["champion"])
    assert recorded[0] != recorded[1]


def test_a_registry_that_is_away_refuses(run, do_evaluate):
    write_champion(run / "champion", Champion(model="away", unavailable="http://127.0.0.1:9 does not answer"))
    blessing = do_evaluate()
    assert not blessing.blessed
    assert "could not be asked: http://127.0.0.1:9" in why(blessing, "champion")


@pytest.mark.parametrize("content", [None, "", "[]", '{"model": "a", "schema_version": 2}'])
def test_a_champion_that_can_not_be_read_is_an_error_and_writes_nothing(run, do_evaluate, content):
    (run / "champion" / "champion.json").unlink()
    if content is not None:
        (run / "champion" / "champion.json").write_text(content)
    with pytest.raises(UserError, match=r"champion/champion\.json: .*run the step that writes champion/") as caught:
        do_evaluate()
    assert "\n" not in str(caught.value)
    assert not (run / "evaluation").exists()


# --- bad input


def test_a_missing_dataset_is_an_error_and_writes_nothing(run, do_evaluate):
    shutil.rmtree(run / "dataset")
    with pytest.raises(UserError, match=r"dataset/manifest\.json: missing"):
        do_evaluate()
    assert not (run / "evaluation").exists()


def test_a_damaged_dataset_is_an_error_and_writes_nothing(run, do_evaluate):
    (run / "dataset" / "test.labels.npy").write_bytes(b"no array")
    with pytest.raises(UserError, match=r"test\.labels\.npy"):
        do_evaluate()
    assert not (run / "evaluation").exists()


@pytest.mark.parametrize(
    ("params", "words"),
    [(None, "params.yaml: no such file"), ("gate: {min_gain: 2}\n", "params.yaml")],
)
def test_the_command_line_answers_bad_parameters_in_one_line(run, params, words):
    if params is not None:
        (run / "params.yaml").write_text(params)
    done = subprocess.run(
        [sys.executable, "-m", "components.evaluate"],
        cwd=run,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (run / "evaluation").exists()
