"""Asking accepted versions: real Keras models in a real registry, and those that can't be asked."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from components.shared.artifacts import SPLITS, Dataset
from components.shared.checks.drift import TRAINING_IMAGES, dataset_statistics
from components.shared.evaluation.predictions import TEST, image_digests
from components.shared.registry.accepted_dataset import accepted_dataset
from components.shared.registry.logged_model import DATASET_FEATURES, log_classifier
from components.shared.registry.rivals import ask_rivals
from components.shared.registry.versions import find_champion, put_up_for_review
from tests.helpers.datasets import make_dataset, write_dataset
from tests.helpers.reviewed import log_model

NAMES = ["rows", "columns", "rings"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return Dataset(make_dataset(tmp_path_factory.mktemp("data") / "dataset", image_size=16))


@pytest.fixture(scope="module")
def bright(tmp_path_factory):
    """The file of a classifier that answers the first class for bright images, else the second."""
    import keras

    inputs = keras.Input((16, 16, 3), dtype="uint8")
    mean = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255, offset=-0.5)(inputs))
    dense = keras.layers.Dense(3, activation="softmax")
    model = keras.Model(inputs, dense(mean))
    dense.set_weights([np.array([[9, -9, 0]] * 3, "float32"), np.array([0, 0, -99], "float32")])
    path = tmp_path_factory.mktemp("bright") / "classifier.keras"
    model.save(path)
    return path


@pytest.fixture
def crown(tracking_uri, bright, in_tmp):
    """A function that registers the classifier as trained on a dataset and makes it champion."""
    import mlflow

    def _crown(name: str, trained_on: Dataset, status: str | None = None, digest: str = "a" * 64) -> str:
        mlflow.set_tracking_uri(tracking_uri)
        client = mlflow.MlflowClient()
        run = client.create_run(mlflow.set_experiment("rivals").experiment_id).info.run_id
        uri = log_classifier(bright, trained_on, run)
        version = put_up_for_review(name, uri, digest, {"review.status": status} if status else {}, "card")
        client.set_registered_model_alias(name, "champion", version.number)
        return uri

    return _crown


def model_folder(uri: str) -> Path:
    """Where the registry keeps the files of a logged model."""
    import mlflow

    return Path(
        mlflow.MlflowClient()
        .get_logged_model(uri.removeprefix("models:/"))
        .artifact_location.removeprefix("file://")
    )


def test_an_accepted_version_answers_the_test_images(crown, data):
    crown("rivals-asked", data)
    rivals = ask_rivals(find_champion("rivals-asked"), data, [])
    (rival,) = rivals.found
    answers = np.where(np.asarray(data.images(TEST)).mean(axis=(1, 2, 3)) > 127.5, 0, 1)
    np.testing.assert_array_equal(rival.right, answers == data.labels(TEST))
    assert (rival.version, rival.fresh.all(), rivals.faults) == ("1", True, [])


def test_the_statistics_of_its_dataset_are_kept_with_it(crown, data):
    crown("rivals-statistics", data)
    accepted, version = accepted_dataset("rivals-statistics")
    assert (accepted.statistics, version) == (dataset_statistics(data), "rivals-statistics version 1")
    np.testing.assert_array_equal(accepted.test, np.sort(image_digests(data, TEST)))
    assert len(accepted.training) == 96


def test_test_images_that_it_trained_on_are_known(crown, data, tmp_path):
    """As where the images were split anew: some of tonight's were trained on."""
    folder = tmp_path / "other"
    shutil.copytree(data.folder, folder)
    digests = image_digests(data, TEST)
    uri = crown("rivals-seen", Dataset(folder))
    np.save(model_folder(uri) / TRAINING_IMAGES, np.sort(digests[:7]))
    (rival,) = ask_rivals(find_champion("rivals-seen"), data, []).found
    assert (~rival.fresh).nonzero()[0].tolist() == list(range(7))


def test_how_far_images_have_moved_in_the_champions_features(crown, tmp_path):
    """The same images, others of the kind, and others of the kind that are darker."""
    nights = {
        name: make_dataset(tmp_path / name, image_size=16, unlabelled=200, test=120, seed=seed)
        for name, seed in (("accepted", 0), ("same", 0), ("new", 1), ("dark", 2))
    }
    arrays = {split: (np.load(nights["dark"] / f"{split}.images.npy") // 2,
                      np.load(nights["dark"] / f"{split}.labels.npy")) for split in SPLITS}  # fmt: skip
    nights["dark"] = write_dataset(tmp_path / "darker", arrays, NAMES)
    uri = crown("rivals-moved", Dataset(nights["accepted"]))
    champion, moved = find_champion("rivals-moved"), {}
    for name, folder in nights.items():
        rivals = ask_rivals(champion, Dataset(folder), [])
        assert (rivals.no_drift, [found.split for found in rivals.drift]) == ("", ["unlabelled", "test"])
        moved[name] = rivals.drift
    assert all(found.times == 0 for found in (*moved["accepted"], *moved["same"]))
    assert not any(found.warns for found in moved["new"])
    assert all(found.warns and "warning" in found.in_words("1") for found in moved["dark"])

    few = ask_rivals(champion, Dataset(make_dataset(tmp_path / "few", image_size=16, unlabelled=20)), [])
    assert "fewer than 50 images of each split" in few.no_drift
    (model_folder(uri) / DATASET_FEATURES).write_bytes(b"no archive")
    damaged = ask_rivals(champion, Dataset(nights["same"]), [])
    assert len(damaged.found) == 1 and not damaged.drift
    assert "version 1: its features can't be compared" in damaged.no_drift
    (model_folder(uri) / DATASET_FEATURES).unlink()
    older = ask_rivals(champion, Dataset(nights["same"]), [])
    assert older.no_drift == "version 1 keeps no features of its dataset (dataset_features.npz)"


def test_no_champion_is_nothing_to_ask(tracking_uri, data):
    rivals = ask_rivals(find_champion("rivals-nobody"), data, [])
    assert (rivals.found, rivals.faults, rivals.notes) == ([], [], [])
    assert rivals.no_drift == "there is no champion"


def test_the_same_file_is_asked_once(crown, data):
    import mlflow

    crown("rivals-twice", data, "approved")
    mlflow.MlflowClient().copy_model_version("models:/rivals-twice/1", "rivals-twice")
    champion = find_champion("rivals-twice")
    assert [model.version for model in champion.accepted] == ["1", "2"]
    assert [rival.version for rival in ask_rivals(champion, data, []).found] == ["1"]


def without_list(folder):
    (folder / TRAINING_IMAGES).unlink()


def damaged_list(folder):
    (folder / TRAINING_IMAGES).write_bytes(b"no array")


def list_of_something_else(folder):
    np.save(folder / TRAINING_IMAGES, np.zeros(3))


def other_class_names(folder):
    path = folder / "MLmodel"
    path.write_text(path.read_text().replace("- rows", "- lines"))


def another_size(folder):
    path = folder / "MLmodel"
    path.write_text(re.sub(r"16,(\s+)16,(\s+)3", r"24,\1 24,\2 3", path.read_text()))


def other_channels(folder):
    path = folder / "MLmodel"
    path.write_text(re.sub(r"16,(\s+)16,(\s+)3", r"16,\1 16,\2 1", path.read_text()))


def no_description(folder):
    (folder / "MLmodel").write_text("{}")


NOT_COMPARABLE = {
    without_list: "has no list of its training images",
    damaged_list: "list of its training images (training_images.npy) is damaged",
    list_of_something_else: "list of its training images (training_images.npy) is none",
    other_class_names: "it knows 3 other classes",
    another_size: "it takes images of 24×24 pixels",
    other_channels: "it was trained with data.channels=1",
    no_description: "does not tell its classes and image size",
}


@pytest.mark.parametrize("spoil", NOT_COMPARABLE, ids=lambda spoil: spoil.__name__)
def test_a_champion_that_is_not_comparable_refuses_and_one_before_it_does_not_count(crown, data, spoil):
    name = f"rivals-{spoil.__name__.replace('_', '-')}"
    spoil(model_folder(crown(name, data, "approved")))
    rivals = ask_rivals(find_champion(name), data, [])
    assert rivals.found == []
    (fault,) = rivals.faults
    assert "version 1 is champion, but " in fault and NOT_COMPARABLE[spoil] in fault
    assert "set gate.skip_champions=[1] (approving then needs --override)" in fault

    crown(name, data, digest="b" * 64)
    rivals = ask_rivals(find_champion(name), data, [])
    assert [rival.version for rival in rivals.found] == ["2"]
    assert rivals.faults == []
    (note,) = rivals.notes
    assert note.startswith("version 1, champion before, does not count: ") and NOT_COMPARABLE[spoil] in note


def gone(folder):
    shutil.rmtree(folder)


def garbled(folder):
    (folder / "data" / "model.keras").write_bytes(b"not a zip")


@pytest.mark.parametrize("spoil", [gone, garbled], ids=lambda spoil: spoil.__name__)
def test_one_that_can_not_be_loaded_refuses_be_it_champion_or_before(crown, data, spoil):
    name = f"rivals-{spoil.__name__}"
    spoil(model_folder(crown(name, data, "approved")))
    for number in (1, 2):
        rivals = ask_rivals(find_champion(name), data, [])
        assert len(rivals.found) == number - 1
        (fault,) = rivals.faults
        assert fault.startswith("version 1 can't be loaded: ") and "\n" not in fault
        crown(name, data, digest="b" * 64)
    rivals = ask_rivals(find_champion(name), data, [1])
    assert (rivals.faults, rivals.notes) == ([], ["version 1 was left out (gate.skip_champions)"])


def test_a_champion_that_this_pipeline_did_not_register_refuses(tracking_uri, data, in_tmp):
    import mlflow

    put_up_for_review("rivals-foreign", log_model("rivals"), "a" * 64, {}, "card")
    mlflow.MlflowClient().set_registered_model_alias("rivals-foreign", "champion", "1")
    (fault,) = ask_rivals(find_champion("rivals-foreign"), data, []).faults
    assert "has no list of its training images" in fault


@pytest.mark.parametrize("channels", [1, 4])
def test_of_other_images_than_rgb_a_model_is_logged_asked_and_compared(tracking_uri, in_tmp, channels):
    """From the signature to the drift of features."""
    import keras
    import mlflow

    own = Dataset(make_dataset(in_tmp / "dataset", image_size=16, unlabelled=200, test=120, channels=channels))
    inputs = keras.Input((16, 16, channels), dtype="uint8")
    mean = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(inputs))
    keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(mean)).save("classifier.keras")
    name = f"rivals-channels-{channels}"
    client = mlflow.MlflowClient()
    run = client.create_run(mlflow.set_experiment("rivals").experiment_id).info.run_id
    uri = log_classifier(Path("classifier.keras"), own, run)
    signature = mlflow.models.get_model_info(uri).signature
    assert signature.inputs.to_dict()[0]["tensor-spec"]["shape"] == (-1, 16, 16, channels)
    version = put_up_for_review(name, uri, "a" * 64, {}, "card")
    client.set_registered_model_alias(name, "champion", version.number)
    rivals = ask_rivals(find_champion(name), own, [])
    assert (rivals.faults, [rival.version for rival in rivals.found]) == ([], ["1"])
    assert {drift.split for drift in rivals.drift} == {"unlabelled", "test"}
    answers = mlflow.pyfunc.load_model(uri).predict(np.asarray(own.images(TEST))[:5])
    assert answers.shape == (5, 3)
