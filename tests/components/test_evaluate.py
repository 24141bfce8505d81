"""The evaluate step on finished folders: the verdict, what it writes, and inputs that are not sound."""

from __future__ import annotations

import csv
import html
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.evaluate import evaluate
from components.shared.artifacts import Dataset, Result, read_record
from components.shared.checks.verdict import Found
from components.shared.errors import UserError
from components.shared.evaluation.champion import Champion, write_champion
from components.shared.evaluation.gate import read_blessing
from components.shared.evaluation.measured import Measured, read_measured
from components.shared.evaluation.predictions import twins_of_test
from components.shared.evaluation.statistics import look_alpha
from components.shared.params.schema import select
from components.shared.registry import ledger
from tests.helpers.datasets import make_dataset
from tests.helpers.repository import ROOT
from tests.helpers.trained import write_all, write_trained, write_validation

CURVES = {"curves.png", "losses.png"}
PICTURES = CURVES | {f"{name}.png" for name in ("accuracies", "recall", "confusion", "reliability", "coverage")}
INPUTS = ("dataset", "validation", "search", "probe", "baseline", "finetune", "champion")
FILES = {"blessing.json", "metrics.json", "curves.csv", "confusion.csv", "report.html", "report.md", "result.json"}
OF_TEST = {"test.json", "mistakes.json", "classes.json"}
VALIDATION = {"baseline_validation_accuracy", "probe_validation_accuracy", "finetune_validation_accuracy"}


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
    # a ledger of its own
    monkeypatch.setattr(ledger, "EXPERIMENT", f"looks-{tmp_path.name}")
    return tmp_path / "run"


@pytest.fixture
def do_evaluate(run, compose_params):
    """A function that evaluates and returns what stands in `evaluation/blessing.json`."""

    def _evaluate(*overrides):
        params = select(compose_params("data.name=textures", *overrides), "evaluate")
        given = evaluate(*(run / name for name in (*INPUTS, "evaluation")), params, overrides)
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
    assert names(out) == FILES | PICTURES | OF_TEST
    for name in PICTURES:
        with Image.open(out / name) as picture:
            picture.load()
            assert min(picture.size) > 200
            assert len(np.unique(np.asarray(picture.convert("L")))) > 20
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(metrics) == {*VALIDATION, "validation_gain", "judged", "blessed"}
    assert (metrics["judged"], metrics["blessed"]) == (1, 1)
    gain = metrics["finetune_validation_accuracy"] - metrics["baseline_validation_accuracy"]
    assert metrics["validation_gain"] == pytest.approx(gain)
    recorded = read_record(run / "finetune", Result).metrics["validation_accuracy"]
    assert metrics["finetune_validation_accuracy"] == pytest.approx(recorded)
    record = read_record(out, Result)
    assert record.metrics == metrics
    assert record.details["runs"] == dict.fromkeys(("search", "probe", "baseline", "finetune"), "0" * 32)
    check_measured(read_measured(out), blessing, Dataset(run / "dataset").manifest)
    assert not [path for path in run.iterdir() if path.name.startswith(".")]
    assert "contrastive compose && make repro" in (out / "report.md").read_text()


def check_measured(measured, blessing, manifest):
    means = {name: np.mean(values) for name, values in measured.accuracies.items()}
    assert means["finetune"] - means["baseline"] == pytest.approx(blessing.gain)
    assert measured.accuracies["finetune"][1] == pytest.approx(blessing.artefact.accuracy)
    assert measured.confidence == blessing.confidence
    shares = np.array(manifest.class_counts["test"]) / manifest.counts["test"]
    for name, (low, high) in measured.intervals.items():
        assert low < means[name] < high
        assert np.dot(measured.recall[name], shares) == pytest.approx(means[name])


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
    assert list(rows[0]) == ["model", "epoch", "accuracy", "validation_accuracy", "loss", "validation_loss"]
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


def test_near_copies_that_were_kept_are_found_by_their_rows(run):
    folder = run / "dataset"
    assert not twins_of_test(Dataset(folder)).any()
    pairs = [("train", 3, "test", 5, "kept"), ("removed", -1, "test", 6, "removed"), ("test", 8, "test", 7, "kept"),
             ("unlabelled", 3, "test", 9, "kept"), ("train", 3, "validation", 4, "kept")]  # fmt: skip
    columns = ["split", "row", "twin_split", "twin_row", "action"]
    pd.DataFrame(pairs, columns=columns).to_parquet(folder / "near_copies.parquet")
    assert np.flatnonzero(twins_of_test(Dataset(folder))).tolist() == [5, 9]


def test_the_report_stands_alone_and_leads_with_the_verdict(run, do_evaluate):
    do_evaluate("gate.min_gain=0.5")
    text = (run / "evaluation" / "report.html").read_text()
    assert "<script" not in text
    assert "http:" not in text
    assert "https:" not in text
    assert text.count("<svg ") == len(PICTURES)
    # small pictures of single test images
    assert text.count("<img") == text.count('<img src="data:image/webp;base64,') > 0
    body = text[text.index("<body>") :]
    assert body.index("Not blessed") < body.index("<table")
    assert "50.0 points are asked for" in body
    assert Dataset(run / "dataset").manifest.digest in body


def write_features(run, probe="probe"):
    """Features of 400 of the test images; those of the first two classes can't be told apart."""
    labels = Dataset(run / "dataset").labels("test")
    rows = np.arange(0, 600, 1.5).astype(np.int64)
    noise = 0.01 * np.random.default_rng(0).standard_normal((400, 8))
    features = np.eye(8)[np.maximum(labels[rows], 1)] + noise
    np.savez(run / probe / "features.npz", rows=rows, features=features.astype(np.float16))
    return rows


@pytest.mark.slow
def test_changed_images_the_surest_mistakes_and_neighbours_are_shown_by_their_files(run, do_evaluate):
    rows = write_features(run)
    do_evaluate()
    text = (run / "evaluation" / "report.html").read_text()
    data = Dataset(run / "dataset")
    labels, paths = data.labels("test"), data.files("test")["path"]
    answers = {
        name: np.load(run / name / "predictions.npz")["test_probabilities"][1] for name in ("baseline", "finetune")
    }
    before, after = (answers[name].argmax(axis=1) for name in answers)
    repaired, broken = (before != labels) & (after == labels), (before == labels) & (after != labels)
    wrong = np.flatnonzero(after != labels)
    surest = wrong[np.argsort(-answers["finetune"].max(axis=1)[wrong], kind="stable")][:20]
    said = f"600 test images {repaired.sum()} went from wrong\nto right, and {broken.sum()} from right to wrong"
    assert said in text
    parts = re.split(
        r"From wrong to right|From right to wrong|The surest mistakes</h2>|Nearest neighbours</h2>", text
    )
    for part, of in zip(parts[-4:-1], (repaired, broken, after != labels), strict=True):
        shown = re.findall(r'title="([^"]+)"', part)
        assert len(shown) == min(20, of.sum())
        assert set(shown) <= set(paths[of])
    assert re.findall(r'title="([^"]+)"', parts[-2]) == list(paths[surest])
    # classes take turns
    first = [labels[list(paths).index(path)] for path in re.findall(r'title="([^"]+)"', parts[-4])[:3]]
    assert sorted(first) == [0, 1, 2]
    # 400 images, a third of them of the third class, whose neighbours are all right
    marks = re.findall(r", (right|wrong)\"", parts[-1])
    assert len(marks) == 3 * 7 and set(marks[14:]) == {"right"} and "wrong" in marks[:14]
    assert "A map of the features" in text and f"{len(rows)} test images in the features" in text
    assert (run / "evaluation" / "map.png").exists()


@pytest.mark.parametrize(
    "arrays",
    [
        {"rows": np.arange(5), "features": np.ones((5, 4))},
        {"rows": np.arange(600) + 1, "features": np.ones((600, 4))},
        {"rows": np.arange(600), "features": np.full((600, 4), np.nan)},
        {"rows": np.arange(600), "features": np.ones((599, 4))},
        {"rows": np.arange(600)},
    ],
    ids=["few", "others", "nan", "misfit", "none"],
)
def test_features_that_do_not_fit_are_not_drawn(run, do_evaluate, arrays):
    np.savez(run / "probe" / "features.npz", **arrays)
    assert do_evaluate().blessed
    assert "Nearest neighbours" not in (run / "evaluation" / "report.html").read_text()
    assert "Images that changed" in (run / "evaluation" / "report.html").read_text()


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
    assert tracked.data.tags["verdict"] == "blessed"
    described = tracked.data.tags["mlflow.note.content"]
    assert described.startswith("# Evaluation of tiny\n\n**✓ Blessed: fit to be put up for review.**")
    assert "## The models" in described and "![" not in described
    assert len(described) < 8000
    told = {name for name in tracked.data.metrics if not name.startswith("cost/")}
    assert told == {f"result/{name}" for name in (*VALIDATION, "validation_gain", "judged", "blessed")}
    assert tracked.data.params["gate.min_gain"] == "0.02"
    assert tracked.inputs.dataset_inputs[0].dataset.name == "tiny"
    assert {item.path for item in client.list_artifacts(record.mlflow_run_id)} == {*FILES, *PICTURES, *OF_TEST}
    # as MLflow's evaluation view reads them
    mistakes = client.load_table(tracked.info.experiment_id, "mistakes.json", [record.mlflow_run_id])
    assert len(mistakes) == (mistakes["actual"] != mistakes["predicted"]).sum() > 0
    classes = client.load_table(tracked.info.experiment_id, "classes.json", [record.mlflow_run_id])
    assert classes["images"].sum() == 600
    shown = {table["path"] for table in json.loads(tracked.data.tags["mlflow.loggedArtifacts"])}
    assert shown == {"mistakes.json", "classes.json"}


def test_the_probe_can_win(run, do_evaluate):
    shutil.rmtree(run / "finetune")
    write_trained(run / "finetune", run / "dataset", 0.5)
    blessing = do_evaluate()
    assert blessing.winner == "probe"
    assert blessing.blessed
    assert "linear probe" in (run / "evaluation" / "report.html").read_text()


@pytest.mark.slow
def test_two_replicates_of_one_epoch_are_never_blessed(run, do_evaluate):
    for name, accuracy in (("probe", 0.7), ("baseline", 0.6), ("finetune", 0.9)):
        shutil.rmtree(run / name)
        write_trained(run / name, run / "dataset", accuracy, seeds=2, epochs=1)
    blessing = do_evaluate()
    assert (blessing.blessed, blessing.judged) == (False, False)
    assert "2 replicates, where gate.min_replicates = 3" in why(blessing, "inputs")
    assert "look 1 at these test images" in do_evaluate("gate.min_replicates=2").closed
    assert do_evaluate("gate.min_replicates=2", "gate.alpha=0.1").judged


def write_shown_answers(run):
    """What the probe and the published training leave to be scored."""
    labels = Dataset(run / "dataset").labels("test")
    predicted = np.stack([np.where(np.arange(len(labels)) < count, labels, -1) for count in (150, 300)])
    predicted = predicted[:, None].repeat(3, axis=1)
    neighbours = predicted[1].copy()
    neighbours[:, :60] = -1
    np.savez(run / "probe" / "budgets.npz", labels_per_class=[1, 5], predicted=predicted, knn_predicted=neighbours)
    np.savez(run / "baseline" / "budgets.npz", labels_per_class=[1], predicted=predicted[:1, :, ::-1])
    published = np.eye(3)[np.where(np.arange(len(labels)) < 450, labels, (labels + 1) % 3)][None].repeat(3, axis=0)
    np.savez(run / "finetune" / "published.npz", test_probabilities=published, test_labels=labels)


def test_budgets_neighbours_and_the_published_training_are_scored_where_the_test_set_is_open(run, do_evaluate):
    write_shown_answers(run)
    do_evaluate("gate.open_test=false")
    assert read_measured(run / "evaluation") == Measured()
    do_evaluate()
    measured = read_measured(run / "evaluation")
    assert measured.budgets == {1: pytest.approx([0.25] * 3), 5: pytest.approx([0.5] * 3)}
    assert set(measured.baseline_budgets) == {1} and len(measured.baseline_budgets[1]) == 3
    assert measured.knn == pytest.approx([0.4] * 3)
    assert "Fewer labels" in (run / "evaluation" / "report.html").read_text()
    assert measured.published == pytest.approx([0.75] * 3)


@pytest.mark.parametrize("name", ["probe/budgets.npz", "baseline/budgets.npz", "finetune/published.npz"])
def test_answers_that_decide_nothing_are_left_out_where_they_are_damaged(run, do_evaluate, name):
    write_shown_answers(run)
    (run / name).write_bytes((run / name).read_bytes()[:200])
    assert do_evaluate().blessed
    measured = read_measured(run / "evaluation")
    assert (measured.budgets == {}) == (name == "probe/budgets.npz")
    assert (measured.baseline_budgets == {}) == (name == "baseline/budgets.npz")
    assert (measured.published == []) == (name == "finetune/published.npz")


# --- the test set: who looks, and how often


def check_closed(run, blessing):
    """Nothing of the test set is computed, written or drawn."""
    assert (blessing.verdict, blessing.judged, blessing.blessed) == ("not judged", False, False)
    known = blessing.model_dump()
    assert {known[name] for name in ("gain", "interval", "artefact", "champion", "standard_error")} == {None}
    assert names(run / "evaluation") == FILES | CURVES
    assert (run / "evaluation" / "confusion.csv").read_text() == "actual,predicted\n"
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    assert set(metrics) == {*VALIDATION, "validation_gain", "judged", "blessed"}
    assert (metrics["judged"], metrics["blessed"]) == (0, 0)
    assert read_measured(run / "evaluation") == Measured()
    assert blessing.closed in html.unescape((run / "evaluation" / "report.html").read_text())


def looks():
    """Number of looks on record."""
    import mlflow

    found = mlflow.MlflowClient().get_experiment_by_name(ledger.EXPERIMENT)
    return 0 if found is None else len(mlflow.MlflowClient().search_runs([found.experiment_id]))


def test_who_does_not_ask_for_a_verdict_gets_held_out_numbers_only(run, do_evaluate):
    check_closed(run, do_evaluate("gate.open_test=false"))
    assert looks() == 0


def test_a_winner_without_a_gain_on_held_out_images_does_not_open_the_test_set(run, do_evaluate):
    def spoil(arrays):
        arrays["validation_probabilities"] = np.roll(arrays["validation_probabilities"], 1, axis=2)

    for name in ("probe", "finetune"):
        edit(run / name, spoil)
    blessing = do_evaluate()
    check_closed(run, blessing)
    assert "on held-out images" in blessing.closed
    assert looks() == 0


def trained_anew(run, number, seeds=3):
    """The same folders of other trainings."""
    for name, accuracy in (("probe", 0.78), ("baseline", 0.7), ("finetune", 0.85)):
        shutil.rmtree(run / name)
        write_trained(run / name, run / "dataset", accuracy, rng_seed=number, seeds=seeds)


def test_the_second_training_at_the_same_images_is_the_second_look(run, do_evaluate):
    trained_anew(run, 1, seeds=5)
    first = do_evaluate()
    assert do_evaluate() == first
    trained_anew(run, 2, seeds=5)
    second = do_evaluate()
    assert (first.look, second.look, looks()) == (1, 2, 2)
    assert second.alpha == pytest.approx(look_alpha(2))
    assert second.blessed, "a gain of many standard errors"


def test_a_look_that_proves_next_to_nothing_is_not_taken(run, do_evaluate):
    do_evaluate()
    trained_anew(run, 1)
    blessing = do_evaluate()
    check_closed(run, blessing)
    assert "look 2 at these test images" in blessing.closed and "3 replicates" in blessing.closed
    assert looks() == 1


def test_options_changed_after_the_test_was_seen_are_told(run, do_evaluate):
    assert not do_evaluate("gate.min_gain=0.5").blessed
    blessing = do_evaluate("gate.min_gain=0.0")
    assert (blessing.blessed, blessing.look, blessing.options_changed) == (True, 1, True)
    assert blessing.weaker == ["min_gain = 0.0 instead of 0.02"]


def test_a_registry_that_is_lost_keeps_the_test_set_closed(run, do_evaluate, monkeypatch):
    """Nobody may look whom nobody counts."""

    def away():
        raise UserError("MLFLOW_TRACKING_URI = http://127.0.0.1:9: can't be used")

    monkeypatch.setattr(ledger, "connect", away)
    blessing = do_evaluate()
    check_closed(run, blessing)
    assert "127.0.0.1:9" in blessing.closed


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
    assert f"{name}_validation_accuracy" not in metrics
    assert len(metrics) >= 3
    assert not (run / "evaluation" / "test.json").exists()
    assert looks() == 0
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
    assert json.loads((run / "evaluation" / "metrics.json").read_text()) == {"judged": 0, "blessed": 0}


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


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: shutil.rmtree(folder), "search/result.json: missing"),
        (lambda folder: (folder / "result.json").write_text("{}"), "search/result.json"),
        (
            lambda folder: edit_trials(folder, lambda trials: trials["baseline"].pop()),
            "not tried at the same points",
        ),
        (lambda folder: edit_trials(folder, lambda trials: trials.clear()), "no list of trials"),
    ],
)
def test_a_search_that_was_not_the_same_for_both_is_refused(run, do_evaluate, change, words):
    change(run / "search")
    blessing = do_evaluate()
    assert not blessing.blessed
    assert words in why(blessing, "inputs")


def edit_trials(folder, change):
    record = json.loads((folder / "result.json").read_text())
    change(record["details"]["trials"])
    (folder / "result.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (shutil.rmtree, "validation/result.json: missing; run the step that writes validation/"),
        (cut_record, "validation/result.json"),
        (other_dataset, "validation: about another dataset (digest ffffffffffff, not "),
        (lambda folder: (folder / "verdict.json").unlink(), "validation/verdict.json: missing"),
        (
            lambda folder: (folder / "verdict.json").write_text('{"passed": true}'),
            "validation/verdict.json: expectations",
        ),
        (
            lambda folder: (folder / "verdict.json").write_text(
                '{"passed": 0, "expectations": [], "findings": []}'
            ),
            "validation/verdict.json: passed = false: a critical expectation fails",
        ),
    ],
)
def test_a_dataset_that_nobody_has_checked_is_refused(run, do_evaluate, change, words):
    change(run / "validation")
    blessing = do_evaluate()
    assert not blessing.blessed
    assert words in why(blessing, "inputs")
    assert looks() == 0
    report = (run / "evaluation" / "report.md").read_text()
    assert words in report and "What the checks of the data found" not in report


def test_the_report_says_what_the_checks_of_the_data_found(run, do_evaluate):
    do_evaluate()
    assert "Nothing: 24 of 24 expectations hold, none critical fails." in (run / "evaluation/report.md").read_text()
    digests = [read_record(run / "evaluation", Result).inputs["validation"]]
    shutil.rmtree(run / "validation")
    blank = Found(
        expectation="no_blank_images", severity="warning", meaning="A blank image shows nothing.",
        line="no_blank_images: train, image 3 (train/3.png)", images=5, files=["train/3.png", "train/<4>.png"],
    )  # fmt: skip
    write_validation(run / "validation", run / "dataset", [blank])
    assert do_evaluate().blessed
    text = (run / "evaluation/report.md").read_text()
    assert "23 of 24 expectations hold, none critical fails." in text and "Nothing:" not in text
    assert (
        "- **warning: no_blank_images** A blank image shows nothing. 5 images: train/3.png, train/&lt;4>.png "
        "and 3 more. no_blank_images: train, image 3 (train/3.png)"
    ) in text
    digests.append(read_record(run / "evaluation", Result).inputs["validation"])
    assert digests[0] != digests[1]


# --- the champion


def test_another_champion_is_another_input(run, do_evaluate):
    recorded = []
    for version in ("1", "2"):
        write_champion(run / "champion", Champion(model="elsewhere", version=version))
        do_evaluate()
        recorded.append(read_record(run / "evaluation", Result).inputs["champion"])
    assert recorded[0] != recorded[1]


def test_a_registry_that_is_away_refuses(run, do_evaluate):
    write_champion(run / "champion", Champion(model="away", unavailable="http://127.0.0.1:9 does not answer"))
    blessing = do_evaluate()
    assert not blessing.blessed
    assert "could not be asked for its champion: http://127.0.0.1:9" in why(blessing, "champion")


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


@pytest.mark.parametrize("name", ["test.labels.npy", "test.images.npy", "train.labels.npy", "files.parquet"])
def test_files_replaced_after_ingest_are_an_error_and_nothing_is_written(run, do_evaluate, name):
    path = run / "dataset" / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=name.replace(".", r"\.")) as caught:
        do_evaluate()
    assert "\n" not in str(caught.value)
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
