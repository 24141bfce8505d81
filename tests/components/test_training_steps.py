"""Search, probe, baseline and fine-tuning on a few images: what they write, how they choose, what they refuse."""

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
from components.search import search
from components.shared.artifacts import SPLITS, Dataset, Manifest, Result, read_record
from components.shared.errors import UserError
from components.shared.params.composing import compose_params
from components.shared.params.schema import params_digest, select
from components.shared.training import trainers
from components.shared.training.augmented import augmented_features
from components.shared.training.choice import Choice
from components.shared.training.inputs import fewer_labels
from models.augmentation import augment
from models.classifier import SupervisedTrainer
from models.layers import layers_of
from models.training import EpochPace
from tests.helpers.datasets import make_arrays, make_dataset, write_dataset
from tests.helpers.options import augmentation

SMALL = (
    "encoder=conv_small", "encoder.width=8", "method.projection.hidden=16", "method.projection.width=8",
    "runtime.batch_size=32", "runtime.epochs=3", "supervised.batch_size=12", "probe.steps=60",
    "supervised.search.augmentations=[weak]", "supervised.search.learning_rates=[1e-3,1e-2]",
    "supervised.search.weight_decays=[1e-4]", "supervised.search.epochs=[4]", "supervised.search.widen=1",
    "probe.label_budgets=[1,2,100]", "probe.l2=[1e-3,1e-1]",
    # of so short trainings the start of more processes is what costs
    "runtime.threads=null",
)  # fmt: skip
STEPS = ("probe", "baseline", "finetune")
SEED = 5
# decided by validation images, which nobody trains on, though they are few
OWN = "supervised.search.cross_validate_below=0"
# in processes of their own, as `searched`: the number of threads decides how sums are rounded
APART = "runtime.threads=1"


def params(step, *overrides):
    return select(compose_params([*SMALL, *overrides])[0], step)


def run(step, dataset, encoder, searched, out, *overrides):
    """One replicate of a step."""
    function = {"probe": probe, "finetune": finetune, "baseline": baseline}[step]
    folders = (dataset, searched) if step == "baseline" else (dataset, encoder, searched)
    return function(*folders, out, params(step, *overrides), SEED)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data") / "dataset", name="training", unlabelled=40)


@pytest.fixture(scope="module")
def encoder(dataset, tracking_uri, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    pretrain(dataset, folder / "encoder", params("pretrain"), SEED, folder / "states")
    return folder / "encoder"


@pytest.fixture(scope="module")
def searched(dataset, encoder, tmp_path_factory):
    """The folder of a search on validation images alone."""
    folder = tmp_path_factory.mktemp("searched") / "search"
    search(dataset, encoder, folder, params("search", OWN, APART), SEED)
    return folder


@pytest.fixture(scope="module")
def cross_validated(tmp_path_factory, dataset, encoder):
    """A dataset whose validation images were cut from its labels, its encoder, and its cross-validated search."""
    root = tmp_path_factory.mktemp("cut")
    shutil.copytree(dataset, root / "dataset")
    path = root / "dataset" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"cuts_validation": True}))
    search(root / "dataset", encoder, root / "search", params("search"), SEED)
    return root / "dataset", encoder, root / "search"


@pytest.fixture(scope="module")
def finished(dataset, encoder, searched, tmp_path_factory):
    """Step → its record and its folder."""
    root = tmp_path_factory.mktemp("trained")
    return {step: (run(step, dataset, encoder, searched, root / step, OWN), root / step) for step in STEPS}


@pytest.fixture(scope="module")
def refitted(cross_validated, tmp_path_factory):
    """The same where the replicates train on the validation images too."""
    root = tmp_path_factory.mktemp("refitted")
    return {step: (run(step, *cross_validated, root / step), root / step) for step in STEPS}


@pytest.mark.slow
def test_a_search_writes_what_was_chosen_without_times_and_all_trials(searched, dataset):
    record = read_record(searched, Result)
    names = {f"{step}.{kind}" for step in STEPS for kind in ("json", "npz")} | {"result.json", "augmentations.png"}
    names |= {f"{step}.csv" for step in STEPS[1:]}
    with Image.open(searched / "augmentations.png") as picture:
        # four rows of ten images
        assert picture.width > 2 * picture.height > 400
    assert {path.name for path in searched.iterdir()} == names
    assert record.details["held_out"] == "validation"
    trials, fields = record.details["trials"], ("augmentation", "learning_rate", "weight_decay", "epochs")
    points = {side: [[trial[name] for name in fields] for trial in trials[side]] for side in STEPS[1:]}
    assert points["baseline"] == points["finetune"]
    labels = Dataset(dataset).labels("validation")
    for step in STEPS:
        text = (searched / f"{step}.json").read_text()
        assert "seconds" not in text and "mlflow" not in text
        with np.load(searched / f"{step}.npz") as file:
            np.testing.assert_array_equal(file["labels"], labels)
            # a softmax may underflow
            probabilities = np.maximum(file["probabilities"].astype(np.float64), np.finfo(np.float32).tiny)
        # what was kept is what was best: a side at the temperature that suits it, the probe as it is
        powers = np.ones(1) if step == "probe" else np.linspace(0.05, 4, 2000)
        colder = probabilities ** powers[:, None, None]
        right = (colder / colder.sum(axis=2, keepdims=True))[:, np.arange(len(labels)), labels]
        loss = (-np.log(right)).mean(axis=1).min()
        assert loss == pytest.approx(min(trial["log_loss"] for trial in trials[step]), rel=1e-4)
    recipe = json.loads((searched / "finetune.json").read_text())["recipe"]
    chosen = record.details["chosen"]["finetune"]
    assert {name: recipe[name] for name in fields[1:]} == {name: chosen[name] for name in fields[1:]}


@pytest.mark.slow
def test_a_search_is_repeatable_and_opens_no_test_images(searched, dataset, encoder, tmp_path):
    """Bit for bit, on a dataset whose test images are gone."""
    shutil.copytree(dataset, tmp_path / "dataset")
    for path in (tmp_path / "dataset").glob("test.*.npy"):
        path.unlink()
    search(tmp_path / "dataset", encoder, tmp_path / "search", params("search", OWN, APART), SEED)
    for step in STEPS:
        assert (tmp_path / "search" / f"{step}.json").read_bytes() == (searched / f"{step}.json").read_bytes()


@pytest.mark.slow
def test_a_replicate_trains_on_the_validation_images_that_were_cut_from_its_labels(refitted, cross_validated):
    data = Dataset(cross_validated[0])
    labels = np.concatenate([data.labels("train"), data.labels("validation")])
    for step, (record, folder) in refitted.items():
        assert record.details["refit"] and record.details["held_out"] == "train+validation"
        found = predictions(folder)
        np.testing.assert_array_equal(found["validation_labels"], labels)
        with np.load(cross_validated[2] / f"{step}.npz") as file:
            # too few to calibrate: the search's answers as they are
            np.testing.assert_allclose(found["validation_probabilities"][0], file["probabilities"], atol=1e-6)
        assert record.details["temperature"] == 1.0
        assert "36 held-out images, where 200 are needed" in record.details["temperature_why"]
    assert refitted["baseline"][0].details["images"] == 24 + 12
    assert "validation_accuracy" not in rows_of(refitted["baseline"][1] / "curves.csv")[0]
    with np.load(refitted["probe"][1] / "budgets.npz") as file:
        assert file["labels_per_class"].tolist() == [1, 2, 12]


@pytest.mark.parametrize("step", STEPS)
def test_enough_held_out_images_give_a_temperature_that_is_in_the_file(
    dataset, encoder, searched, tmp_path, monkeypatch, step
):
    monkeypatch.setattr("components.shared.training.choice.FEWEST_TO_CALIBRATE", 5)
    record = run(step, dataset, encoder, searched, tmp_path / step, OWN)
    assert 0.25 <= record.details["temperature"] <= 20
    assert record.details["temperature"] != 1.0
    model = keras.saving.load_model(tmp_path / step / "classifier.keras", compile=False)
    found = predictions(tmp_path / step)
    for split in ("validation", "test"):
        answers = np.asarray(model(np.asarray(Dataset(dataset).images(split))))
        np.testing.assert_allclose(answers, found[f"{split}_probabilities"][0], atol=1e-4)


@pytest.mark.slow
def test_a_published_training_is_done_besides(finished, dataset, encoder, searched, tmp_path):
    weak = compose_params([*SMALL])[1]["supervised"]["weak"]
    how = {"augmentation": weak, "learning_rate": 0.01, "weight_decay": 0.0, "epochs": 1, "batch_size": 6,
           "optimizer": "adam", "schedule": "constant", "milestones": []}  # fmt: skip
    published = f"supervised.published={json.dumps(how).replace(chr(34), '')}"
    run("baseline", dataset, encoder, searched, tmp_path / "baseline", OWN, published)
    with np.load(tmp_path / "baseline" / "published.npz") as file:
        answers = file["test_probabilities"]
        np.testing.assert_array_equal(file["test_labels"], Dataset(dataset).labels("test"))
    assert answers.shape == (1, 30, 3)
    np.testing.assert_allclose(answers.sum(axis=2), 1, rtol=1e-5)
    # it changes nothing of what is judged
    own = predictions(tmp_path / "baseline")["test_probabilities"]
    np.testing.assert_array_equal(own, predictions(finished["baseline"][1])["test_probabilities"])
    assert not np.array_equal(answers, own)


@pytest.fixture
def trainings(monkeypatch):
    """Lengths of the trainings that were made; the one after `trainings.most` of them is interrupted."""

    class Made(list):
        most = 1000

    made, fit = Made(), SupervisedTrainer.fit

    def counted(self, recipe, *args, **kwargs):
        if len(made) == made.most:
            raise KeyboardInterrupt
        made.append(recipe.epochs)
        return fit(self, recipe, *args, **kwargs)

    monkeypatch.setattr(SupervisedTrainer, "fit", counted)
    return made


def arrays(path):
    with np.load(path) as file:
        return dict(file)


@pytest.mark.parametrize(("most", "again"), [(1, 2), (2, 1)])
def test_a_baseline_that_is_interrupted_ends_as_if_nothing_had_happened(
    finished, dataset, searched, tmp_path, trainings, most, again, tracking_uri
):
    def trained():
        return baseline(dataset, searched, tmp_path / "out", params("baseline", OWN), SEED, tmp_path / "kept")

    trainings.most = most
    with pytest.raises(KeyboardInterrupt):
        trained()
    assert not (tmp_path / "out").exists()
    trainings.clear()
    trainings.most = again
    record, (whole, folder) = trained(), finished["baseline"]
    assert len(trainings) == again
    for name in ("predictions.npz", "budgets.npz"):
        expected = arrays(folder / name)
        assert arrays(tmp_path / "out" / name).keys() == expected.keys()
        for array, found in arrays(tmp_path / "out" / name).items():
            np.testing.assert_array_equal(found, expected[array])
            assert found.dtype == expected[array].dtype
    assert (tmp_path / "out" / "curves.csv").read_text() == (folder / "curves.csv").read_text()
    assert (record.metrics, record.details) == (whole.metrics, whole.details)
    assert list((tmp_path / "kept").iterdir()) == []

    import mlflow

    history = mlflow.MlflowClient(tracking_uri).get_metric_history(record.mlflow_run_id, "train/loss")
    assert len(history) == len(rows_of(folder / "curves.csv"))


def test_seeds_of_one_process_share_what_is_compiled_and_do_not_depend_on_each_other(
    finished, dataset, searched, tmp_path, monkeypatch
):
    made, build = [], SupervisedTrainer.__init__

    def counted(self, *args):
        made.append(self)
        build(self, *args)

    def trained(name):
        return baseline(dataset, searched, tmp_path / name, params("baseline", OWN), SEED + 1, tmp_path / "kept")

    monkeypatch.setattr(SupervisedTrainer, "__init__", counted)
    trainers._compiled.cache_clear()
    alone = trained("alone")
    assert len(made) == 1
    baseline(dataset, searched, tmp_path / "first", params("baseline", OWN), SEED, tmp_path / "kept")
    record = trained("after_another")
    assert len(made) == 1
    for name, folder in (("first", finished["baseline"][1]), ("after_another", tmp_path / "alone")):
        for file in ("predictions.npz", "budgets.npz"):
            expected = arrays(folder / file)
            for array, found in arrays(tmp_path / name / file).items():
                np.testing.assert_array_equal(found, expected[array])
        assert (tmp_path / name / "curves.csv").read_text() == (folder / "curves.csv").read_text()
    assert (record.metrics, record.details) == (alone.metrics, alone.details)


def test_a_search_that_is_interrupted_ends_as_if_nothing_had_happened(dataset, encoder, tmp_path, trainings):
    # one point on both sides
    chosen = params("search", OWN, "supervised.search.learning_rates=[1e-3]")

    def searched(out):
        return search(dataset, encoder, out, chosen, SEED, tmp_path / "kept")

    whole = searched(tmp_path / "whole")
    assert len(trainings) == 2
    trainings.clear()
    trainings.most = 1
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path / "out")
    trainings.clear()
    record = searched(tmp_path / "out")
    assert len(trainings) == 1
    assert (record.metrics, record.details) == (whole.metrics, whole.details)
    for name in ("baseline.json", "finetune.json", "probe.json"):
        assert (tmp_path / "out" / name).read_text() == (tmp_path / "whole" / name).read_text()
    assert list((tmp_path / "kept").iterdir()) == []


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
    more = {"budgets.npz", "features.npz", "neighbours.png", "label_suspects.csv"} if step == "probe" else set()
    more |= {"budgets.npz"} if step == "baseline" else set()
    # only where there are any
    assert {path.name for path in folder.iterdir()} - {"suspects.png"} == names | more
    assert read_record(folder, Result) == record
    assert record.step == step
    assert record.dataset_digest == record.inputs["dataset"] == read_record(dataset, Manifest).digest
    assert ("encoder" in record.inputs) == (step != "baseline")
    assert record.params_digest == params_digest(params(step, OWN))
    assert record.details["seed"] == SEED
    assert record.details["curves"] == "curves.csv"
    assert record.details["encoder"] == "conv"
    assert 0 < record.seconds < 600


@pytest.mark.parametrize("step", STEPS)
def test_predictions_are_probabilities_of_every_seed_and_image(finished, dataset, step):
    found, data = predictions(finished[step][1]), Dataset(dataset)
    for split, count in (("validation", 12), ("test", 30)):
        probabilities = found[f"{split}_probabilities"]
        assert probabilities.dtype == np.float32
        assert probabilities.shape == (1, count, 3)
        assert probabilities.min() >= 0
        np.testing.assert_allclose(probabilities.sum(axis=2), np.ones((1, count)), rtol=1e-5)
        np.testing.assert_array_equal(found[f"{split}_labels"], data.labels(split))
    np.testing.assert_array_equal(found["probabilities"], found["test_probabilities"])
    np.testing.assert_array_equal(found["labels"], found["test_labels"])
    assert len(found) == 6


@pytest.mark.parametrize("step", STEPS)
def test_records_tell_validation_and_nothing_of_test(finished, step):
    record, folder = finished[step]
    found = predictions(folder)
    right = found["validation_probabilities"].argmax(axis=2) == found["validation_labels"]
    assert record.metrics["validation_accuracy"] == pytest.approx(right.mean())
    assert not any("test" in name for name in (*record.metrics, *record.details))


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_records_tell_how_often_the_exported_classifier_is_right_on_what_it_learned_from(
    finished, refitted, dataset, step
):
    data = Dataset(dataset)
    for trained, splits in ((finished, ("train",)), (refitted, ("train", "validation"))):
        record, folder = trained[step]
        model = keras.saving.load_model(folder / "classifier.keras", compile=False)
        answers = [np.asarray(model(np.asarray(data.images(split)))).argmax(axis=1) for split in splits]
        right = np.concatenate([found == data.labels(split) for found, split in zip(answers, splits, strict=True)])
        assert record.metrics["training_accuracy"] == pytest.approx(right.mean())


@pytest.mark.parametrize("step", STEPS)
def test_records_tell_layers_and_weights_of_the_exported_classifier(finished, step):
    record, folder = finished[step]
    model = keras.saving.load_model(folder / "classifier.keras", compile=False)
    told = record.details["networks"]
    assert set(told) == {"encoder", "classifier"} | ({"projection head"} if step == "probe" else set())
    whole = [*told["encoder"], *told["classifier"]]
    assert sum(layer["weights"] for layer in whole) == model.count_params()
    # after scaling, resizing and clipping
    assert whole == layers_of(model)[3:]
    assert told["classifier"] == [{"kind": "Dense", "output": [3], "weights": 8 * 3 + 3}]


def test_a_fine_tuning_starts_with_the_head_that_the_options_say(finished, dataset, encoder, searched, tmp_path):
    run("finetune", dataset, encoder, searched, tmp_path / "random", OWN, "supervised.head_start=random")
    losses = [
        float(rows_of(folder / "curves.csv")[0]["loss"])
        for folder in (finished["finetune"][1], tmp_path / "random")
    ]
    # which of them learns faster, so little pretraining does not tell
    assert losses[0] != losses[1]


@pytest.mark.parametrize("step", STEPS)
def test_the_exported_classifier_gives_the_recorded_answers(finished, dataset, step):
    folder = finished[step][1]
    model = keras.saving.load_model(folder / "classifier.keras", compile=False)
    answers = np.asarray(model(np.asarray(Dataset(dataset).images("test"))))
    expected = predictions(folder)["test_probabilities"]
    np.testing.assert_allclose(answers, expected[0], atol=1e-5)


@pytest.mark.parametrize("step", STEPS)
def test_mlflow_has_the_final_numbers_and_the_files(finished, tracking_uri, step):
    import mlflow

    record, _ = finished[step]
    client = mlflow.MlflowClient(tracking_uri)
    tracked = client.get_run(record.mlflow_run_id)
    assert tracked.info.status == "FINISHED"
    assert tracked.data.tags["step"] == step
    assert tracked.data.tags["replicate"] == str(SEED)
    assert not any("test" in name for name in tracked.data.metrics)
    assert {
        f"result/{name}": value for name, value in record.metrics.items()
    }.items() <= tracked.data.metrics.items()
    if step != "probe":
        sections = {name.partition("/")[0] for name in tracked.data.metrics}
        assert sections == {"train", "validation", "result", "cost"}
        measured = {
            name: client.get_metric_history(record.mlflow_run_id, f"train/{name}") for name in EpochPace.LOGS
        }
        assert all([point.step for point in points] == [1, 2, 3, 4] for points in measured.values())
        assert measured["learning_rate"][0].value == pytest.approx(record.details["learning_rate"])
    files = {file.path for place in ("", "pictures") for file in client.list_artifacts(record.mlflow_run_id, place)}
    expected = {"predictions.npz", "curves.csv", "result.json"}
    if step == "probe":
        expected |= {"budgets.npz", "features.npz", "label_suspects.csv", "pictures/neighbours.png"}
    if step == "baseline":
        expected.add("budgets.npz")
    assert expected <= files
    assert tracked.inputs.dataset_inputs[0].dataset.name == "training"


@pytest.mark.parametrize("step", STEPS)
def test_mlflow_has_the_classifier_as_a_model_that_comes_from_the_encoder(
    finished, dataset, encoder, tracking_uri, step
):
    import mlflow

    record, folder = finished[step]
    client = mlflow.MlflowClient(tracking_uri)
    run = client.get_run(record.mlflow_run_id)
    (output,) = run.outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    assert (model.name, model.model_type, model.status) == (step, "classifier", "READY")
    loaded = mlflow.pyfunc.load_model(f"models:/{model.model_id}")
    data = Dataset(dataset)
    images = np.asarray(data.images("test")[:2])
    answers = keras.saving.load_model(folder / "classifier.keras", compile=False).predict(images, verbose=0)
    np.testing.assert_allclose(loaded.predict(images), answers, atol=1e-6)
    assert loaded.metadata.metadata["class_names"] == data.manifest.class_names
    before = client.get_run(read_record(encoder, Result).mlflow_run_id).outputs.model_outputs
    used = [model.model_id for model in run.inputs.model_inputs]
    assert used == ([] if step == "baseline" else [before[0].model_id])


@pytest.mark.parametrize("step", ["baseline", "finetune"])
def test_curves_end_with_the_recorded_accuracy_of_the_chosen_training(finished, searched, step):
    record, folder = finished[step]
    rows = rows_of(folder / "curves.csv")
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert set(rows[0]) == {"epoch", "loss", "accuracy", "validation_loss", "validation_accuracy"}
    # the last epoch's weights are the ones that count
    last = float(rows[-1]["validation_accuracy"])
    assert last == pytest.approx(record.metrics["validation_accuracy"], abs=1e-6)
    chosen = read_record(searched, Result).details["chosen"][step]
    assert record.details["learning_rate"] == chosen["learning_rate"]
    # the search's trial with the same seed was the same training
    with np.load(searched / f"{step}.npz") as file:
        found = predictions(folder)["validation_probabilities"][0]
        np.testing.assert_allclose(found, file["probabilities"], atol=1e-4)
    in_search = rows_of(searched / f"{step}.csv")
    assert set(in_search[0]) == {"epoch", "validation_loss", "validation_accuracy"}
    for name in in_search[0]:
        np.testing.assert_allclose(*([float(row[name]) for row in each] for each in (in_search, rows)), rtol=1e-4)


@pytest.mark.parametrize("step", ["baseline", "finetune"])
def test_a_cross_validated_search_ends_its_curve_with_the_answers_that_it_chose_by(cross_validated, step):
    folder = cross_validated[2]
    details = read_record(folder, Result).details
    chosen = min(details["trials"][step], key=lambda trial: trial["log_loss"])
    last = rows_of(folder / f"{step}.csv")[-1]
    assert int(last["epoch"]) == chosen["epochs"]
    with np.load(folder / f"{step}.npz") as file:
        right = file["probabilities"][np.arange(len(file["labels"])), file["labels"]]
    assert float(last["validation_loss"]) == pytest.approx(-np.log(right).mean(), rel=1e-5)
    assert float(last["validation_accuracy"]) == pytest.approx(chosen["accuracy"])


def test_the_rival_is_trained_at_least_as_long(finished):
    steps = {step: finished[step][0].details["optimisation_steps"] for step in ("baseline", "finetune")}
    assert steps["baseline"] >= steps["finetune"] == 4 * (24 // 12)


def test_the_probe_tells_how_far_it_is_in_images(dataset, encoder, searched, tmp_path, capsys):
    run("probe", dataset, encoder, searched, tmp_path / "probe", OWN)
    images = sum(len(Dataset(dataset).images(split)) for split in ("train", "validation", "test"))
    assert f"probe: image {images}/{images}  (0 s left)" in capsys.readouterr().out


@pytest.mark.slow
def test_the_probe_may_learn_from_changed_copies_too(dataset, encoder, finished, searched, tmp_path):
    changed = ("probe.augmented_copies=3", "probe.augmentation.crop_area=[0.3,0.5]", "probe.l2=[0.1]", OWN)
    still = ("probe.augmented_copies=3", "probe.l2=[0.1]", OWN, *(
        f"probe.augmentation.{name}={value}" for name, value in
        {"crop_area": "[1.0,1.0]", "crop_ratio": "[1.0,1.0]", "flip": "false", "jitter_probability": 0.0}.items()
    ))  # fmt: skip
    plain = ("probe.l2=[0.1]", OWN)
    answers = {}
    for name, options in {"plain": plain, "still": still, "changed": changed}.items():
        search(dataset, encoder, tmp_path / f"search-{name}", params("search", *options), SEED)
        run("probe", dataset, encoder, tmp_path / f"search-{name}", tmp_path / name, *options)
        with np.load(tmp_path / f"search-{name}" / "probe.npz") as file:
            answers[name] = predictions(tmp_path / name)["test_probabilities"], file["probabilities"]
    for found, searching, expected in zip(answers["still"], answers["changed"], answers["plain"], strict=True):
        # copies that are not changed teach nothing new, to the replicate and to the search
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert np.abs(searching - expected).max() > 1e-3


def test_copies_are_those_that_the_seed_draws_in_whole_grey_levels(dataset):
    images = np.asarray(Dataset(dataset).images("train"))
    pixels = keras.Sequential([keras.Input(images.shape[1:], dtype="uint8"), keras.layers.Flatten()])
    policy = augmentation(crop_area=(0.3, 0.5), brightness=0.5)
    done: list[int] = []
    found = augmented_features(pixels, images, policy, 2, 7, done.append)
    assert sum(done) == 2 * len(images)
    generator = keras.random.SeedGenerator(7)
    expected = [
        np.rint(255 * np.asarray(augment(images, policy, generator))).reshape(len(images), -1) for _ in "12"
    ]
    np.testing.assert_array_equal(found, expected)
    assert np.abs(found[0] - found[1]).max() > 1
    assert augmented_features(pixels, images, policy, 0, 7).shape == (0, *found.shape[1:])


@pytest.mark.slow
def test_total_epochs_may_be_equal(dataset, encoder, finished, searched, tmp_path):
    options = (OWN, APART, "supervised.search.equal_total_epochs=true")
    assert read_record(encoder, Result).details["epochs"] == 3
    search(dataset, encoder, tmp_path / "search", params("search", *options), SEED)
    details = read_record(tmp_path / "search", Result).details
    assert details["baseline_more_epochs"] == 3
    assert {side: details["chosen"][side]["epochs"] for side in STEPS[1:]} == {"baseline": 7, "finetune": 4}
    record = run("baseline", dataset, encoder, tmp_path / "search", tmp_path / "baseline", *options)
    assert record.details["epochs"] == 7
    assert record.details["optimisation_steps"] == 7 * (24 // 12)
    # fine-tuning is searched as ever
    same = json.loads((searched / "finetune.json").read_text())
    assert json.loads((tmp_path / "search" / "finetune.json").read_text()) == same


@pytest.mark.slow
def test_finetuning_may_start_from_a_layer_of_the_projection_head_and_the_baseline_has_it_too(
    dataset, encoder, tmp_path
):
    # at this rate it ends where it starts
    options = ("supervised.search.learning_rates=[1e-12]", "supervised.search.epochs=[1]", OWN,
               "supervised.projection_layers=1")  # fmt: skip
    search(dataset, encoder, tmp_path / "search", params("search", *options), SEED)
    for step in ("finetune", "baseline"):
        run(step, dataset, encoder, tmp_path / "search", tmp_path / step, *options)
    below, head = (keras.saving.load_model(encoder / f"{name}.keras") for name in ("encoder", "projection_head"))
    assert [layer.__class__.__name__ for layer in head.layers][:3] == ["Dense", "BatchNormalization", "ReLU"]
    start = [*below.get_weights(), *head.layers[0].get_weights(), *head.layers[1].get_weights()]
    tuned, rival = (
        keras.saving.load_model(tmp_path / step / "classifier.keras") for step in ("finetune", "baseline")
    )
    end = tuned.get_weights()
    assert [weight.shape for weight in end] == [weight.shape for weight in rival.get_weights()]
    assert len(end) == len(start) + 2 and end[-2].shape == (16, 3)
    moving = {id(w) for w in tuned.non_trainable_variables}
    for found, expected, variable in zip(end, start, tuned.weights, strict=False):
        # normalisation by the batch moves its statistics at any rate
        if id(variable) not in moving:
            np.testing.assert_allclose(found, expected, atol=1e-7)
    assert np.abs(rival.get_weights()[0] - start[0]).max() > 0.01
    # another head than the options name
    other = ("method.projection.hidden=12", *options)
    with pytest.raises(
        UserError, match=r"method\.projection = .*: another projection head .* run the pretrain step"
    ):
        search(dataset, encoder, tmp_path / "other", params("search", *other), SEED)


@pytest.mark.slow
def test_finetuning_starts_from_the_encoder(dataset, encoder, tmp_path):
    # at this rate it ends where it starts
    options = ("supervised.search.learning_rates=[1e-12]", "supervised.search.epochs=[1]", OWN)
    search(dataset, encoder, tmp_path / "search", params("search", *options), SEED)
    run("finetune", dataset, encoder, tmp_path / "search", tmp_path / "finetune", *options)
    start = keras.saving.load_model(encoder / "encoder.keras", compile=False).get_weights()
    end = keras.saving.load_model(tmp_path / "finetune" / "classifier.keras", compile=False).get_weights()
    assert len(end) == len(start) + 2
    for found, expected in zip(end, start, strict=False):
        np.testing.assert_allclose(found, expected, atol=1e-7)


def test_the_probe_keeps_its_budgets_and_the_pretraining_curve(finished, encoder):
    record, folder = finished["probe"]
    with np.load(folder / "budgets.npz") as budgets:
        # eight labels a class are all there are
        assert budgets["labels_per_class"].tolist() == [1, 2, 8]
        assert budgets["predicted"].shape == (3, 1, 30)
        assert budgets["knn_predicted"].shape == (1, 30)
        # all labels: what the classifier answers
        answers = predictions(folder)["test_probabilities"].argmax(axis=2)
        np.testing.assert_array_equal(budgets["predicted"][-1], answers)
    pretraining = rows_of(encoder / "curves.csv")
    for kept, row in zip(rows_of(folder / "curves.csv"), pretraining, strict=True):
        assert kept["epoch"] == row["epoch"]
        for name in (
            *("probe_accuracy", "validation_probe_accuracy", "probe_loss", "validation_probe_loss"),
            *("contrastive_loss", "contrastive_accuracy"),
        ):
            assert kept[name] == row[name] != ""
    assert record.details["method"] == "simclr"
    assert record.details["pretraining_run"] == read_record(encoder, Result).mlflow_run_id
    assert record.details["l2"] in (1e-3, 1e-1)
    assert 0 <= record.metrics["knn_validation_accuracy"] <= 1
    with Image.open(folder / "neighbours.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("L")))) > 20


def test_the_probe_keeps_features_of_test_images_in_half_precision(finished, dataset, encoder):
    with np.load(finished["probe"][1] / "features.npz") as file:
        rows, features = file["rows"], file["features"]
    assert rows.tolist() == list(range(30))
    network = keras.saving.load_model(encoder / "encoder.keras", compile=False)
    expected = np.asarray(network(np.asarray(Dataset(dataset).images("test"))))
    assert features.dtype == np.float16
    np.testing.assert_allclose(features, expected, rtol=2e-3, atol=1e-3)


def test_the_baseline_is_trained_with_fewer_labels_too_and_what_is_judged_does_not_change(
    finished, dataset, encoder, searched, tmp_path
):
    with np.load(finished["baseline"][1] / "budgets.npz") as budgets:
        # up to half of the eight there are, and all
        assert budgets["labels_per_class"].tolist() == [1, 2, 8]
        predicted = budgets["predicted"]
    assert predicted.shape == (3, 1, 30)
    assert predicted.min() >= 0 and predicted.max() < 3
    own = predictions(finished["baseline"][1])["test_probabilities"]
    np.testing.assert_array_equal(predicted[-1], own.argmax(axis=2))
    assert not (finished["finetune"][1] / "budgets.npz").exists()
    # the search hands the budgets on
    shutil.copytree(searched, tmp_path / "search")
    choice = json.loads((searched / "baseline.json").read_text())
    assert choice["budgets"] == [1, 2, 100]
    (tmp_path / "search" / "baseline.json").write_text(json.dumps({**choice, "budgets": []}))
    run("baseline", dataset, encoder, tmp_path / "search", tmp_path / "baseline", OWN)
    assert not (tmp_path / "baseline" / "budgets.npz").exists()
    np.testing.assert_array_equal(predictions(tmp_path / "baseline")["test_probabilities"], own)


def test_fewer_labels_are_the_same_for_probe_and_baseline_and_differ_by_seed():
    labels = np.array([0, 1, 2] * 10 + [0] * 5)
    found = fewer_labels(labels, [2, 4, 11], seed=0)
    assert {budget: len(rows) for budget, rows in found.items()} == {2: 6, 4: 12, 10: 30}
    for budget, rows in found.items():
        assert np.bincount(labels[rows]).tolist() == [budget] * 3 and len(set(rows)) == len(rows)
    again, other = (fewer_labels(labels, [2], seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(again[2], found[2])
    assert not np.array_equal(other[2], found[2])


def test_budgets_may_be_fractions_of_what_the_smallest_class_has():
    labels = np.array([0, 1, 2] * 20 + [0] * 5)
    found = fewer_labels(labels, [0.1, 0.5, 2, 3, 0.001], seed=0)
    # a tenth of 20 are the two that are asked for by their number too; of less than one label one is left
    assert {budget: len(rows) for budget, rows in found.items()} == {1: 3, 2: 6, 3: 9, 10: 30, 20: 60}
    assert all(isinstance(budget, int) for budget in found)
    for budget, rows in fewer_labels(labels, [1, 2, 10], seed=0).items():
        np.testing.assert_array_equal(found[budget], rows)
    # as the search hands them on
    choice = Choice(refit=False, held_out="validation", budgets=(1, 0.5))
    assert json.loads(choice.model_dump_json())["budgets"] == [1, 0.5]
    assert Choice.model_validate_json(choice.model_dump_json()) == choice


def test_the_probe_lists_labels_that_neighbours_speak_against_by_their_files(dataset, encoder, searched, tmp_path):
    """Of train and validation, with features that tell the classes; those of test stay closed."""
    source, names = Dataset(dataset), Dataset(dataset).manifest.class_names
    arrays = {split: (np.asarray(source.images(split)), source.labels(split).copy()) for split in SPLITS}
    true = arrays["train"][1].copy()
    arrays["train"][1][4] = (true[4] + 1) % 3
    folder = write_dataset(tmp_path / "dataset", arrays, names, name="training")
    for made in (encoder, searched):
        shutil.copytree(made, tmp_path / made.name)
        belong(tmp_path / made.name, folder)
    truths = {"train": true, "validation": arrays["validation"][1], "test": arrays["test"][1]}
    lengths = {len(images): truths[split] for split, (images, _) in arrays.items() if split in truths}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "components.shared.training.probing.predict",
            lambda network, images, **more: np.eye(network.output_shape[1], dtype="float32")[lengths[len(images)]],
        )
        record = run("probe", folder, tmp_path / encoder.name, tmp_path / searched.name, tmp_path / "probe", OWN)
    (row,) = rows_of(tmp_path / "probe" / "label_suspects.csv")
    label, other = names[arrays["train"][1][4]], names[true[4]]
    assert (row["path"], row["split"], row["row"]) == ("train/4.png", "train", "4")
    assert (row["label"], row["neighbours_label"]) == (label, other)
    assert float(row["share"]) > float(row["own_share"])
    assert record.metrics["label_suspects"] == 1
    with Image.open(tmp_path / "probe" / "suspects.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("L")))) > 20


@pytest.fixture(scope="module")
def relabelled(dataset, encoder, searched, tmp_path_factory):
    """The same dataset with other labels on the test images; encoder and search are said to belong to it."""
    root = tmp_path_factory.mktemp("relabelled")
    arrays = make_arrays({"unlabelled": 40, "train": 24, "validation": 12, "test": 30})
    for split, (images, labels) in arrays.items():
        np.testing.assert_array_equal(images, Dataset(dataset).images(split))
        np.testing.assert_array_equal(labels, Dataset(dataset).labels(split))
    arrays["test"] = (arrays["test"][0], (arrays["test"][1] + 1) % 3)
    folder = write_dataset(root / "dataset", arrays, read_record(dataset, Manifest).class_names, name="training")
    for source in (encoder, searched):
        shutil.copytree(source, root / source.name)
        belong(root / source.name, folder)
    return folder, root / "encoder", root / "search"


def belong(folder, dataset):
    """Make a record name a dataset."""
    path = folder / "result.json"
    record = json.loads(path.read_text()) | {"dataset_digest": read_record(dataset, Manifest).digest}
    path.write_text(json.dumps(record))


# the rival is trained by the same code as fine-tuning
@pytest.mark.parametrize("step", ["probe", "finetune"])
def test_test_labels_decide_nothing(finished, relabelled, tmp_path, step):
    record, folder = finished[step]
    again = run(step, *relabelled, tmp_path / step, OWN)
    before, after = predictions(folder), predictions(tmp_path / step)
    for name in ("test_probabilities", "validation_probabilities", "validation_labels"):
        np.testing.assert_array_equal(after[name], before[name])
    assert again.metrics == record.metrics
    assert again.details == record.details
    assert (tmp_path / step / "curves.csv").read_bytes() == (folder / "curves.csv").read_bytes()


@pytest.mark.slow
def test_a_rate_that_diverges_is_left_out_and_all_that_do_are_refused(dataset, encoder, tmp_path, capsys):
    rates = ("supervised.search.learning_rates=[1e-3,1e30]", "supervised.search.epochs=[1]", OWN)
    record = search(dataset, encoder, tmp_path / "search", params("search", *rates), SEED)
    chosen = {record.details["chosen"][side]["learning_rate"] for side in ("baseline", "finetune")}
    assert chosen <= {1e-3, 1e-4}
    assert "'learning_rate': 1e+30" in capsys.readouterr().out
    # the record is JSON that other programs read too
    json.loads((tmp_path / "search" / "result.json").read_text(), parse_constant=pytest.fail)
    shutil.rmtree(tmp_path / "search")
    alone = ("supervised.search.learning_rates=[1e30]", "supervised.search.epochs=[1]", OWN)
    with pytest.raises(UserError, match=r"search.learning_rates = \[1e\+30\]: the loss of baseline became NaN"):
        search(dataset, encoder, tmp_path / "search", params("search", *alone), SEED)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_budgets_do_with_the_classes_there_are(tracking_uri, tmp_path):
    arrays = make_arrays({"unlabelled": 8, "train": 12, "validation": 6, "test": 6}, classes=2)
    dataset = write_dataset(tmp_path / "dataset", arrays, ["rows", "columns", "absent"], name="training")
    small = ("runtime.epochs=0", "supervised.search.epochs=[1]", "supervised.search.learning_rates=[1e-3]")
    encoder = tmp_path / "encoder"
    pretrain(dataset, encoder, params("pretrain", *small), SEED, tmp_path / "states")
    search(dataset, encoder, tmp_path / "search", params("search", *small), SEED)
    run("probe", dataset, encoder, tmp_path / "search", tmp_path / "probe", *small)
    with np.load(tmp_path / "probe" / "budgets.npz") as budgets:
        assert budgets["labels_per_class"].tolist() == [1, 2, 6]
    # no epoch, no curve
    assert rows_of(tmp_path / "probe" / "curves.csv") == []
    assert predictions(tmp_path / "probe")["probabilities"].shape == (1, 6, 3)


def assert_refused(step, dataset, encoder, searched, out, message, *overrides):
    """One line, no folder."""
    with pytest.raises(UserError, match=message) as caught:
        run(step, dataset, encoder, searched, out, *overrides)
    assert "\n" not in str(caught.value)
    assert list(out.parent.glob(f"*{out.name}*")) == []


@pytest.mark.parametrize("step", ["probe", "finetune"])
def test_an_encoder_of_another_dataset_is_refused(encoder, searched, tmp_path, step):
    other = make_dataset(tmp_path / "other", name="training", unlabelled=40, seed=1)
    message = r"result.json: dataset_digest = \w{12}…: trained on another dataset than .*other"
    assert_refused(step, other, encoder, searched, tmp_path / step, message)


def test_a_search_of_another_dataset_or_a_damaged_one_is_refused(dataset, encoder, searched, tmp_path):
    other = make_dataset(tmp_path / "other", name="training", unlabelled=40, seed=1)
    out, message = tmp_path / "baseline", r"result.json: dataset_digest = \w{12}…: searched on another dataset than"
    assert_refused("baseline", other, encoder, searched, out, message)
    broken = tmp_path / "broken"
    shutil.copytree(searched, broken)
    (broken / "baseline.json").write_text("{}")
    assert_refused("baseline", dataset, encoder, broken, out, r"baseline.json: refit: field required; run the step")
    (broken / "baseline.json").unlink()
    assert_refused("baseline", dataset, encoder, broken, out, "baseline.json: missing")


def test_answers_of_a_search_that_are_damaged_are_told(cross_validated, tmp_path):
    dataset, encoder, searched = cross_validated
    shutil.copytree(searched, tmp_path / "broken")
    (tmp_path / "broken" / "probe.npz").write_bytes(b"half")
    message = r"probe.npz: can't be read \(.*\); run the search step again"
    assert_refused("probe", dataset, encoder, tmp_path / "broken", tmp_path / "probe", message)


def test_an_encoder_of_another_network_is_refused(dataset, encoder, searched, tmp_path):
    message = r"params.encoder = {'name': 'conv', .*'width': 8}: another network than .*'width': 16}; run "
    assert_refused("finetune", dataset, encoder, searched, tmp_path / "finetune", message, "encoder.width=16")


@pytest.mark.parametrize("step", STEPS)
def test_a_missing_input_is_told(dataset, encoder, searched, tmp_path, step):
    missing = tmp_path / "nothing"
    assert_refused(
        step,
        missing,
        encoder,
        searched,
        tmp_path / step,
        "manifest.json: missing; run the step that writes nothing/",
    )
    message = "result.json: missing; run the step that writes nothing/"
    assert_refused(step, dataset, encoder, missing, tmp_path / step, message)
    if step != "baseline":
        assert_refused(step, dataset, missing, searched, tmp_path / step, message)


@pytest.mark.parametrize("damage", ["missing", "empty", "half", "text", "bytes"])
def test_a_damaged_encoder_is_told(dataset, encoder, searched, tmp_path, damage):
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
    assert_refused("finetune", dataset, broken, searched, tmp_path / "finetune", message)


def test_an_encoder_without_its_curves_is_told(dataset, encoder, searched, tmp_path):
    shutil.copytree(encoder, tmp_path / "broken")
    (tmp_path / "broken" / "curves.csv").unlink()
    message = "curves.csv: can't be read: No such file or directory; run the pretrain step again"
    assert_refused("probe", dataset, tmp_path / "broken", searched, tmp_path / "probe", message)


@pytest.mark.parametrize(
    ("split", "step", "wrong"),
    [
        ("train", "baseline", []), ("validation", "baseline", []), ("test", "probe", []),
        ("train", "probe", [0, -1]), ("test", "finetune", [0, 3]), ("validation", "finetune", [-1, -1]),
    ],
)  # fmt: skip
def test_a_split_without_labels_or_with_labels_of_no_class_is_told(encoder, searched, tmp_path, split, step, wrong):
    arrays = make_arrays({"unlabelled": 4, "train": 12, "validation": 6, "test": 6})
    arrays[split] = (arrays[split][0][: len(wrong)], np.array(wrong, np.int64))
    dataset = write_dataset(tmp_path / "dataset", arrays, ["rows", "columns", "rings"], name="training")
    for source in (encoder, searched):
        shutil.copytree(source, tmp_path / source.name)
        belong(tmp_path / source.name, dataset)
    problem = r"labels must be in \[0, 3\), not" if wrong else "at least one labelled image is needed"
    message = rf"{split}.labels.npy: {problem}.*; run the ingest step again"
    assert_refused(step, dataset, tmp_path / "encoder", tmp_path / "search", tmp_path / step, message)
