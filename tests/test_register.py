"""Registering: a real Keras classifier, a real SQLite registry, and a fresh process that loads it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from datasets import make_arrays, write_dataset
from trained import write_all

from components import register as module
from components.evaluate import evaluate
from components.register import register, requirements
from components.shared.artifacts import Dataset, Result, read_record, save_predictions
from components.shared.errors import UserError
from components.shared.fresh_process import answers
from components.shared.gate import Champion, read_blessing
from components.shared.params import only
from components.shared.registry import absolute_uri, champion, find_version, put_up_for_review

SEEDS, EXPORTED = 3, 1


def build_classifier():
    """A classifier of built-in layers, uint8 images to probabilities: which of red, green and blue prevails."""
    import keras

    model = keras.Sequential(
        [
            keras.Input((32, 32, 3), dtype="uint8"),
            keras.layers.Rescaling(1 / 255),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.layers[-1].set_weights([8 * np.eye(3, dtype="float32"), np.zeros(3, "float32")])
    return model


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tracking_uri):
    """A finished, blessed run up to the evaluation, whose winner is a real model with its true predictions."""
    root = tmp_path_factory.mktemp("finished")
    model = build_classifier()
    arrays = make_arrays({"unlabelled": 9, "train": 12, "validation": 60, "test": 150})
    for split in ("train", "validation", "test"):
        images, _ = arrays[split]
        arrays[split] = (images, model.predict(images, verbose=0).argmax(axis=1))
    dataset = write_dataset(root / "dataset", arrays, ["red", "green", "blue"], name="colours")
    write_all(root, dataset, baseline=0.6, probe=0.65, finetune=0.7)
    save_true_predictions(root / "finetune", dataset, model)
    model.save(root / "finetune" / "classifier.keras")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        run_evaluate(root)
    return root


def save_true_predictions(folder: Path, dataset: Path, model) -> None:
    data = Dataset(dataset)
    splits = {}
    for split in ("validation", "test"):
        exported = model.predict(np.asarray(data.images(split)), verbose=0)
        # the other seeds answer alike but not the same
        mixed = [0.9 * exported + 0.1 / 3 if seed != EXPORTED else exported for seed in range(SEEDS)]
        splits[split] = (np.stack(mixed), data.labels(split))
    save_predictions(folder / "predictions.npz", splits)


def run_evaluate(root: Path, *overrides: str) -> None:
    from components.shared.config import compose

    params = only(compose(["data.name=colours", *overrides])[0], "evaluate")
    shutil.rmtree(root / "evaluation", ignore_errors=True)
    evaluate(root / "dataset", root / "probe", root / "baseline", root / "finetune", root / "evaluation", params)


@pytest.fixture
def run(finished, tmp_path, monkeypatch):
    """A copy of the finished run that a test may spoil, as working folder."""
    shutil.copytree(finished, tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def do_register(run, compose_params):
    """A function that registers under a model name of the test's own."""

    def _register(name: str) -> Result:
        params = only(compose_params(f"registry.model_name={name}"), "register")
        folders = [run / folder for folder in ("dataset", "evaluation", "probe", "finetune")]
        return register(*folders, run / "registration", params)

    return _register


@pytest.fixture
def recorded(monkeypatch, run):
    """Let the fresh process answer what was recorded, for tests of what comes after it."""
    probabilities = np.load(run / "finetune" / "predictions.npz")["test_probabilities"][EXPORTED]
    monkeypatch.setattr(module, "COMPARED_IMAGES", len(probabilities))
    monkeypatch.setattr(module, "answers", lambda uri, images, environment: probabilities.copy())
    return probabilities


def client():
    import mlflow

    return mlflow.MlflowClient()


@pytest.mark.slow
def test_a_blessed_model_becomes_challenger_once(run, do_register):
    assert read_blessing(run / "evaluation").blessed
    result = do_register("colours-once")
    assert result.details["registered"] is True
    assert (result.details["version"], result.details["aliases"]) == ("1", ["challenger"])
    assert result.details["compared_images"] >= 64
    assert result.details["largest_difference"] < 1e-5
    assert read_record(run / "registration", Result) == result

    version = client().get_model_version_by_alias("colours-once", "challenger")
    manifest = Dataset(run / "dataset").manifest
    assert version.source.startswith("models:/m-")
    assert version.tags["verdict"] == "blessed"
    assert version.tags["winner"] == "finetune"
    assert version.tags["dataset_digest"] == manifest.digest
    assert version.tags["test_digest"] == manifest.test_digest
    assert float(version.tags["test_accuracy"]) == 1.0
    assert float(version.tags["gain"]) == pytest.approx(0.4, abs=0.05)
    assert (version.tags["encoder"], version.tags["method"]) == ("conv", "simclr")
    assert "conv pretrained with simclr" in version.description
    assert set(client().get_registered_model("colours-once").aliases) == {"challenger"}
    assert "| certainty | yes |" in version.description
    assert manifest.digest[:12] in version.description

    before = len(client().search_logged_models([client().get_run(result.mlflow_run_id).info.experiment_id]))
    again = do_register("colours-once")
    assert again.details["version"] == "1"
    assert "registered before" in again.details["why"]
    assert len(client().search_model_versions("name = 'colours-once'")) == 1
    after = len(client().search_logged_models([client().get_run(result.mlflow_run_id).info.experiment_id]))
    assert after == before


@pytest.mark.slow
def test_a_model_that_needs_this_project_is_not_registered(run, do_register):
    import keras

    @keras.saving.register_keras_serializable("project")
    class Own(keras.layers.Layer):
        def call(self, x):
            return x

    model = build_classifier()
    inputs = keras.Input((32, 32, 3), dtype="uint8")
    path = run / "finetune" / "classifier.keras"
    keras.Model(inputs, Own()(model(inputs))).save(path)
    evaluated_anew(run)
    result = do_register("colours-own-layer")
    assert result.details["registered"] is False
    assert "fresh process" in result.details["why"]
    assert find_version("colours-own-layer", "any") is None


def evaluated_anew(run: Path) -> None:
    """Let the evaluation's record name the winner's folder as it is now."""
    from components.shared.artifacts import input_digest

    path = run / "evaluation" / "result.json"
    record = json.loads(path.read_text())
    record["inputs"]["finetune"] = input_digest(run / "finetune")
    path.write_text(json.dumps(record))


def test_a_process_that_fails_tells_its_last_words(tmp_path):
    with pytest.raises(RuntimeError, match="no-such-model"):
        answers(str(tmp_path / "no-such-model"), np.zeros((1, 32, 32, 3), np.uint8), {})


def test_a_process_that_hangs_is_ended(tmp_path):
    with pytest.raises(RuntimeError, match="no answer within"):
        answers("models:/any", np.zeros((1, 32, 32, 3), np.uint8), {}, seconds=0.05)


@pytest.mark.parametrize("how_far", [2e-4, np.nan])
def test_other_answers_are_not_registered(do_register, recorded, how_far, run):
    recorded[0, 0] += how_far
    result = do_register("colours-other-answers")
    assert result.details["registered"] is False
    assert "differ by up to" in result.details["why"] or "NaN" in result.details["why"]
    assert result.metrics == {"registered": 0.0}
    assert find_version("colours-other-answers", "any") is None


def test_a_refused_model_is_not_registered_and_the_step_ends_well(run, do_register):
    run_evaluate(run, "gate.min_gain=0.9")
    result = do_register("colours-refused")
    assert result.details["registered"] is False
    assert "gain: the fine-tuned model gains" in result.details["why"]
    assert find_version("colours-refused", "any") is None


def test_a_refused_run_without_models_ends_well(run, do_register):
    shutil.rmtree(run / "finetune")
    run_evaluate(run)
    result = do_register("colours-refused")
    assert "finetune/result.json: missing" in result.details["why"]


def drop_classifier(run):
    (run / "finetune" / "classifier.keras").unlink()


def change_predictions(run):
    path = run / "finetune" / "predictions.npz"
    arrays = dict(np.load(path))
    arrays["test_probabilities"] = arrays["test_probabilities"][:, ::-1]
    np.savez(path, **arrays)


def change_dataset(run):
    path = run / "dataset" / "manifest.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "digest": "0" * 64}))


def garble_classifier(run):
    (run / "finetune" / "classifier.keras").write_bytes(b"not a zip")
    evaluated_anew(run)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (drop_classifier, "judged another finetune/"),
        (change_predictions, "judged another finetune/"),
        (change_dataset, "judged another dataset"),
        (garble_classifier, "Keras can't load it"),
    ],
)
def test_what_was_not_judged_is_not_registered(run, do_register, spoil, words):
    spoil(run)
    result = do_register("colours-spoilt")
    assert result.details["registered"] is False
    assert words in result.details["why"]
    assert find_version("colours-spoilt", "any") is None


@pytest.mark.parametrize("folder", ["dataset", "evaluation"])
def test_a_missing_input_is_an_error(run, do_register, folder):
    shutil.rmtree(run / folder)
    with pytest.raises(UserError, match=folder):
        do_register("colours-missing")
    assert not (run / "registration").exists()


def test_a_registry_that_is_away_is_an_error_and_leaves_nothing(run, do_register, monkeypatch):
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9") as caught:
        do_register("colours-away")
    assert "\n" not in str(caught.value)
    assert not (run / "registration").exists()


def test_a_champion_keeps_its_alias_and_is_not_put_up_again(run, do_register, recorded):
    first = do_register("colours-crowned")
    client().set_registered_model_alias("colours-crowned", "champion", "1")
    client().delete_registered_model_alias("colours-crowned", "challenger")
    again = do_register("colours-crowned")
    assert first.details["aliases"] == ["challenger"]
    assert again.details["aliases"] == ["champion"]
    assert client().get_registered_model("colours-crowned").aliases == {"champion": 1}
    manifest = Dataset(run / "dataset").manifest
    assert champion("colours-crowned") == Champion("1", manifest.test_digest, 1.0)


def test_another_model_is_another_version_and_takes_the_alias(run, do_register, recorded):
    do_register("colours-two")
    with (run / "finetune" / "classifier.keras").open("ab") as file:
        file.write(b" ")
    evaluated_anew(run)
    second = do_register("colours-two")
    assert (second.details["version"], second.details["aliases"]) == ("2", ["challenger"])
    assert client().get_registered_model("colours-two").aliases == {"challenger": 2}


def test_no_champion_without_a_model_or_without_the_alias(finished, run, recorded, do_register):
    assert champion("colours-nobody") is None
    do_register("colours-uncrowned")
    assert champion("colours-uncrowned") is None


def test_a_champion_with_odd_tags_is_read_without_a_crash(run, do_register, recorded):
    do_register("colours-odd")
    client().set_registered_model_alias("colours-odd", "champion", "1")
    client().set_model_version_tag("colours-odd", "1", "test_accuracy", "good")
    client().delete_model_version_tag("colours-odd", "1", "test_digest")
    assert champion("colours-odd") == Champion("1", None, None)


def test_a_description_is_cut_at_what_the_registry_takes(run, do_register, recorded):
    result = do_register("colours-long")
    uri = client().get_model_version("colours-long", "1").source
    digest = result.details["artifact_digest"]
    put_up_for_review("colours-long", uri, digest, {}, "x" * 9000)
    assert len(client().get_model_version("colours-long", "1").description) == 5000


def test_the_model_names_its_requirements_and_its_types(run, do_register, recorded):
    import mlflow

    do_register("colours-types")
    info = mlflow.models.get_model_info("models:/colours-types@challenger")
    assert info.signature.inputs.to_dict()[0]["tensor-spec"] == {"dtype": "uint8", "shape": (-1, 32, 32, 3)}
    assert info.signature.outputs.to_dict()[0]["tensor-spec"] == {"dtype": "float32", "shape": (-1, 3)}
    assert info.metadata["class_names"] == ["red", "green", "blue"]
    pinned = requirements()
    assert any(line.startswith("keras==") for line in pinned)
    assert any(line.startswith("tensorflow") for line in pinned)
    assert all("==" in line for line in pinned)


def test_a_sqlite_address_is_made_absolute(in_tmp):
    assert absolute_uri("sqlite:///mlflow.db") == f"sqlite:///{in_tmp / 'mlflow.db'}"
    assert absolute_uri("sqlite:////there/mlflow.db") == "sqlite:////there/mlflow.db"
    assert absolute_uri("http://there:5000") == "http://there:5000"
