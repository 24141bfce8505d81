"""Probe, baseline and fine-tuning on a few images: what they write, how they choose, what they refuse."""

from __future__ import annotations

import csv
import json
import shutil

import keras
import numpy as np
import pytest
from PIL import Image

from components.baseline import baseline
from components.finetune import finetune
from components.pretrain import pretrain
from components.probe import probe
from components.shared.artifacts import Dataset, Manifest, Result, read_record
from components.shared.errors import UserError
from components.shared.params.composing import compose
from components.shared.params.schema import params_digest, select
from components.shared.training import supervised
from tests.helpers.datasets import make_arrays, make_dataset, write_dataset

SMALL = (
    "encoder.width=8", "method.projection.hidden=16", "method.projection.width=8", "runtime.batch_size=32",
    "runtime.epochs=3", "runtime.repeats=2", "runtime.seed=5", "supervised.epochs=4", "supervised.batch_size=12",
    "supervised.learning_rates=[1e-3,1e-2]", "probe.steps=60", "probe.label_budgets=[1,2,100]",
    "probe.l2=[1e-3,1e-1]",
)  # fmt: skip
STEPS = ("probe", "baseline", "finetune")


def params(step, *overrides):
    return select(compose([*SMALL, *overrides])[0], step)


def run(step, dataset, encoder, out, *overrides):
    if step == "baseline":
        return baseline(dataset, out, params(step, *overrides))
    return {"probe": probe, "finetune": finetune}[step](dataset, encoder, out, params(step, *overrides))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data") / "dataset", name="training", unlabelled=40)


@pytest.fixture(scope="module")
def encoder(dataset, tracking_uri, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    pretrain(dataset, folder / "encoder", params("pretrain"), folder / "states")
    return folder / "encoder"


@pytest.fixture(scope="module")
def finished(dataset, encoder, tmp_path_factory):
    """Step → its record and its folder."""
    root = tmp_path_factory.mktemp("trained")
    return {step: (run(step, dataset, encoder, root / step), root / step) for step in STEPS}


def predictions(folder):
    with np.load(folder / "predictions.npz") as kept:
        return {name: kept[name] for name in kept.files}


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_each_step_leaves_a_model_predictions_curves_and_a_record(finished, dataset, encoder, step):
    record, folder = finished[step]
    names = {"classifier.keras", "predictions.npz", "curves.csv", "result.json"}
    pictures = {"budgets.csv", "budgets.png", "neighbours.png"} if step == "probe" else set()
    assert {path.name for path in folder.iterdir()} == names | pictures
    assert read_record(folder, Result) == record
    assert record.step == step
    assert record.dataset_digest == record.inputs["dataset"] == read_record(dataset, Manifest).digest
    assert ("encoder" in record.inputs) == (step != "baseline")
    assert record.params_digest == params_digest(params(step))
    assert record.details["curves"] == "curves.csv"
    assert record.details["encoder"] == "conv"
    assert 0 < record.seconds < 600


@pytest.mark.parametrize("step", STEPS)
def test_predictions_are_probabilities_of_every_seed_and_image(finished, dataset, step):
    found, data = predictions(finished[step][1]), Dataset(dataset)
    for split, count in (("validation", 12), ("test", 30)):
        probabilities = found[f"{split}_probabilities"]
        assert probabilities.dtype == np.float32
        assert probabilities.shape == (2, count, 3)
        assert probabilities.min() >= 0
        np.testing.assert_allclose(probabilities.sum(axis=2), np.ones((2, count)), rtol=1e-5)
        np.testing.assert_array_equal(found[f"{split}_labels"], data.labels(split))
    np.testing.assert_array_equal(found["probabilities"], found["test_probabilities"])
    np.testing.assert_array_equal(found["labels"], found["test_labels"])
    assert len(found) == 6


@pytest.mark.parametrize("step", STEPS)
def test_recorded_metrics_are_those_of_the_predictions(finished, step):
    record, folder = finished[step]
    found = predictions(folder)
    for split in ("validation", "test"):
        right = found[f"{split}_probabilities"].argmax(axis=2) == found[f"{split}_labels"]
        accuracies = right.mean(axis=1)
        assert record.metrics[f"{split}_accuracy"] == pytest.approx(accuracies.mean())
        assert record.metrics[f"{split}_accuracy_std"] == pytest.approx(accuracies.std())
        if split == "validation":
            assert record.details["exported_seed"] == accuracies.argmax()


@pytest.mark.parametrize("step", STEPS)
def test_the_exported_classifier_gives_the_recorded_answers(finished, dataset, step):
    record, folder = finished[step]
    model = keras.saving.load_model(folder / "classifier.keras", compile=False)
    answers = np.asarray(model(np.asarray(Dataset(dataset).images("test"))))
    expected = predictions(folder)["test_probabilities"]
    np.testing.assert_allclose(answers, expected[record.details["exported_seed"]], atol=1e-5)


@pytest.mark.parametrize("step", STEPS)
def test_mlflow_has_the_final_numbers_and_the_files(finished, tracking_uri, step):
    import mlflow

    record, _ = finished[step]
    client = mlflow.MlflowClient(tracking_uri)
    tracked = client.get_run(record.mlflow_run_id)
    assert tracked.info.status == "FINISHED"
    assert tracked.data.tags["step"] == step
    assert record.metrics.items() <= tracked.data.metrics.items()
    files = {file.path for place in ("", "pictures") for file in client.list_artifacts(record.mlflow_run_id, place)}
    expected = {"classifier.keras", "predictions.npz", "curves.csv", "result.json"}
    if step == "probe":
        expected |= {"budgets.csv", "pictures/budgets.png", "pictures/neighbours.png"}
    assert expected <= files
    assert tracked.inputs.dataset_inputs[0].dataset.name == "training"


@pytest.mark.parametrize("step", ["baseline", "finetune"])
def test_curves_are_those_of_the_chosen_learning_rate(finished, step):
    record, folder = finished[step]
    rows = rows_of(folder / "curves.csv")
    assert [(row["epoch"], row["seed"]) for row in rows] == [(str(e), s) for s in "56" for e in range(1, 5)]
    assert {float(row["learning_rate"]) for row in rows} == {record.details["learning_rate"]}
    assert {"loss", "accuracy", "validation_loss", "validation_accuracy"} <= set(rows[0])
    # the last epoch's weights are the ones that count
    last = [float(row["validation_accuracy"]) for row in rows if row["epoch"] == "4"]
    assert np.mean(last) == pytest.approx(record.metrics["validation_accuracy"], abs=1e-6)


@pytest.mark.parametrize("step", ["baseline", "finetune"])
def test_the_learning_rate_is_the_best_on_validation(finished, step):
    record, _ = finished[step]
    scores = {float(r): s for r, s in record.details["validation_accuracy_by_learning_rate"].items()}
    assert set(scores) == {1e-3, 1e-2}
    chosen = record.details["learning_rate"]
    assert scores[chosen] == max(scores.values()) == pytest.approx(record.metrics["validation_accuracy"], abs=1e-6)
    assert chosen == next(rate for rate, score in scores.items() if score == max(scores.values()))


def test_the_rival_is_trained_at_least_as_long(finished):
    steps = {step: finished[step][0].details["optimisation_steps"] for step in ("baseline", "finetune")}
    assert steps["baseline"] >= steps["finetune"] == 4 * (24 // 12)


def test_finetuning_starts_from_the_encoder(dataset, encoder, tmp_path):
    # at this rate it ends where it starts
    options = ("supervised.learning_rates=[1e-12]", "supervised.epochs=1", "runtime.repeats=1")
    finetune(dataset, encoder, tmp_path / "finetune", params("finetune", *options))
    start = keras.saving.load_model(encoder / "encoder.keras", compile=False).get_weights()
    end = keras.saving.load_model(tmp_path / "finetune" / "classifier.keras", compile=False).get_weights()
    assert len(end) == len(start) + 2
    for found, expected in zip(end, start, strict=False):
        np.testing.assert_allclose(found, expected, atol=1e-7)


def test_the_probe_keeps_its_budgets_and_the_pretraining_curve(finished, encoder):
    record, folder = finished["probe"]
    budgets = rows_of(folder / "budgets.csv")
    # eight labels a class are all there are
    assert [row["labels_per_class"] for row in budgets] == ["1", "2", "8"]
    for row in budgets:
        assert 0 <= float(row["lowest"]) <= float(row["accuracy"]) <= float(row["highest"]) <= 1
    assert float(budgets[-1]["accuracy"]) == pytest.approx(record.metrics["test_accuracy"])
    pretraining = rows_of(encoder / "curves.csv")
    for kept, row in zip(rows_of(folder / "curves.csv"), pretraining, strict=True):
        assert kept["epoch"] == row["epoch"]
        assert kept["probe_accuracy"] == row["probe_accuracy"]
    assert record.details["method"] == "simclr"
    assert record.details["pretraining_run"] == read_record(encoder, Result).mlflow_run_id
    assert record.details["l2"] in (1e-3, 1e-1)
    assert 0 <= record.metrics["knn_test_accuracy"] <= 1
    for name in ("budgets.png", "neighbours.png"):
        with Image.open(folder / name) as picture:
            assert len(np.unique(np.asarray(picture.convert("L")))) > 20


@pytest.fixture(scope="module")
def relabelled(dataset, encoder, tmp_path_factory):
    """The same dataset with other labels on the test images, and the encoder said to belong to it."""
    root = tmp_path_factory.mktemp("relabelled")
    arrays = make_arrays({"unlabelled": 40, "train": 24, "validation": 12, "test": 30})
    for split, (images, labels) in arrays.items():
        np.testing.assert_array_equal(images, Dataset(dataset).images(split))
        np.testing.assert_array_equal(labels, Dataset(dataset).labels(split))
    arrays["test"] = (arrays["test"][0], (arrays["test"][1] + 1) % 3)
    folder = write_dataset(root / "dataset", arrays, read_record(dataset, Manifest).class_names, name="training")
    shutil.copytree(encoder, root / "encoder")
    belong(root / "encoder", folder)
    return folder, root / "encoder"


def belong(encoder, dataset):
    """Make an encoder's record name a dataset."""
    path = encoder / "result.json"
    record = json.loads(path.read_text()) | {"dataset_digest": read_record(dataset, Manifest).digest}
    path.write_text(json.dumps(record))


# the rival is trained by the same code as fine-tuning
@pytest.mark.parametrize("step", ["probe", "finetune"])
def test_test_labels_decide_nothing_but_the_test_metrics(finished, relabelled, tmp_path, step):
    record, folder = finished[step]
    again = run(step, *relabelled, tmp_path / step)
    before, after = predictions(folder), predictions(tmp_path / step)
    for name in ("test_probabilities", "validation_probabilities", "validation_labels"):
        np.testing.assert_array_equal(after[name], before[name])
    changed = {name for name, value in again.metrics.items() if value != record.metrics[name]}
    assert changed <= {"test_accuracy", "test_accuracy_std", "knn_test_accuracy"}
    assert "test_accuracy" in changed
    assert again.details == record.details
    assert (tmp_path / step / "curves.csv").read_bytes() == (folder / "curves.csv").read_bytes()


def test_validation_chooses_the_exported_seed(dataset, tracking_uri, tmp_path, monkeypatch):
    answers = {
        split: np.eye(3, dtype="float32")[Dataset(dataset).labels(split)] for split in ("validation", "test")
    }
    calls = []

    def answer(model, images):
        """Seed 1 knows validation and seed 0 knows test; else they are wrong."""
        seed, split = len(calls) // 2, "test" if len(images) == 30 else "validation"
        calls.append(split)
        return answers[split] if (seed == 1) == (split == "validation") else np.roll(answers[split], 1, axis=1)

    monkeypatch.setattr(supervised, "predict", answer)
    options = ("supervised.learning_rates=[1e-3]", "supervised.epochs=1")
    record = baseline(dataset, tmp_path / "baseline", params("baseline", *options))
    assert calls == ["validation", "test"] * 2
    assert record.details["exported_seed"] == 1
    assert record.metrics == {f"{split}_accuracy{what}": 0.5 for split in answers for what in ("", "_std")}


def test_a_rate_that_diverges_is_left_out_and_all_that_do_are_refused(dataset, tracking_uri, tmp_path, capsys):
    rates = "supervised.learning_rates=[1e30,1e-3]"
    record = baseline(dataset, tmp_path / "baseline", params("baseline", rates, "runtime.repeats=1"))
    assert record.details["learning_rate"] == 1e-3
    assert "learning rate 1e+30, seed 5: loss is nan in epoch" in capsys.readouterr().out
    # the record is JSON that other programs read too
    kept = json.loads((tmp_path / "baseline" / "result.json").read_text(), parse_constant=pytest.fail)
    assert set(kept["details"]["validation_accuracy_by_learning_rate"]) == {"1e+30", "0.001"}
    shutil.rmtree(tmp_path / "baseline")
    with pytest.raises(UserError, match=r"supervised.learning_rates = \[1e\+30\]: .*; add smaller ones"):
        baseline(dataset, tmp_path / "baseline", params("baseline", "supervised.learning_rates=[1e30]"))
    assert list(tmp_path.iterdir()) == []


def test_budgets_do_with_the_classes_there_are(tracking_uri, tmp_path):
    arrays = make_arrays({"unlabelled": 8, "train": 12, "validation": 6, "test": 6}, classes=2)
    dataset = write_dataset(tmp_path / "dataset", arrays, ["rows", "columns", "absent"], name="training")
    pretrain(dataset, tmp_path / "encoder", params("pretrain", "runtime.epochs=0"), tmp_path / "states")
    record = probe(dataset, tmp_path / "encoder", tmp_path / "probe", params("probe", "runtime.repeats=1"))
    assert [row["labels_per_class"] for row in rows_of(tmp_path / "probe" / "budgets.csv")] == ["1", "2", "6"]
    # no epoch, no curve
    assert rows_of(tmp_path / "probe" / "curves.csv") == []
    assert predictions(tmp_path / "probe")["probabilities"].shape == (1, 6, 3)
    assert 0 <= record.metrics["test_accuracy"] <= 1


def assert_refused(step, dataset, encoder, out, message, *overrides):
    """One line, no folder."""
    with pytest.raises(UserError, match=message) as caught:
        run(step, dataset, encoder, out, *overrides)
    assert "\n" not in str(caught.value)
    assert list(out.parent.glob(f"*{out.name}*")) == []


@pytest.mark.parametrize("step", ["probe", "finetune"])
def test_an_encoder_of_another_dataset_is_refused(encoder, tracking_uri, tmp_path, step):
    other = make_dataset(tmp_path / "other", name="training", unlabelled=40, seed=1)
    message = r"result.json: dataset_digest = \w{12}…: trained on another dataset than .*other"
    assert_refused(step, other, encoder, tmp_path / step, message)


def test_an_encoder_of_another_network_is_refused(dataset, encoder, tracking_uri, tmp_path):
    message = r"params.encoder = {'name': 'conv', .*'width': 8}: another network than .*'width': 16}; run "
    assert_refused("finetune", dataset, encoder, tmp_path / "finetune", message, "encoder.width=16")


@pytest.mark.parametrize("step", STEPS)
def test_a_missing_input_is_told(dataset, encoder, tracking_uri, tmp_path, step):
    missing = tmp_path / "nothing"
    assert_refused(
        step, missing, encoder, tmp_path / step, "manifest.json: missing; run the step that writes nothing/"
    )
    if step != "baseline":
        message = "result.json: missing; run the step that writes nothing/"
        assert_refused(step, dataset, missing, tmp_path / step, message)


@pytest.mark.parametrize("damage", ["missing", "empty", "half", "text", "bytes"])
def test_a_damaged_encoder_is_told(dataset, encoder, tracking_uri, tmp_path, damage):
    broken = tmp_path / "broken"
    shutil.copytree(encoder, broken)
    path = broken / "encoder.keras"
    data = path.read_bytes()
    path.unlink()
    start, end = data[: len(data) // 2], data[len(data) // 2 + 64 :]
    content = {"empty": b"", "half": start, "text": b"no model", "bytes": start + b"?" * 64 + end}
    if damage != "missing":
        path.write_bytes(content[damage])
    message = r"encoder.keras: can't be loaded \(.*\); run the pretrain step again"
    assert_refused("finetune", dataset, broken, tmp_path / "finetune", message)


def test_an_encoder_without_its_curves_is_told(dataset, encoder, tracking_uri, tmp_path):
    shutil.copytree(encoder, tmp_path / "broken")
    (tmp_path / "broken" / "curves.csv").unlink()
    message = "curves.csv: can't be read: No such file or directory; run the pretrain step again"
    assert_refused("probe", dataset, tmp_path / "broken", tmp_path / "probe", message)


@pytest.mark.parametrize(
    ("split", "step", "wrong"),
    [
        ("train", "baseline", []), ("validation", "baseline", []), ("test", "probe", []),
        ("train", "probe", [0, -1]), ("test", "finetune", [0, 3]), ("validation", "finetune", [-1, -1]),
    ],
)  # fmt: skip
def test_a_split_without_labels_or_with_labels_of_no_class_is_told(
    encoder, tracking_uri, tmp_path, split, step, wrong
):
    arrays = make_arrays({"unlabelled": 4, "train": 12, "validation": 6, "test": 6})
    arrays[split] = (arrays[split][0][: len(wrong)], np.array(wrong, np.int64))
    dataset = write_dataset(tmp_path / "dataset", arrays, ["rows", "columns", "rings"], name="training")
    shutil.copytree(encoder, tmp_path / "pretrained")
    belong(tmp_path / "pretrained", dataset)
    problem = r"labels must be in \[0, 3\), not" if wrong else "at least one labelled image is needed"
    message = rf"{split}.labels.npy: {problem}.*; run the ingest step again"
    assert_refused(step, dataset, tmp_path / "pretrained", tmp_path / step, message)
