"""Registering: a real Keras classifier, a real SQLite registry, a fresh process that loads it and serves it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components import register as module
from components.champion import champion
from components.evaluate import evaluate
from components.register import register
from components.shared.artifacts import SPLITS, Dataset, Result, read_record, save_predictions
from components.shared.checks.drift import TRAINING_IMAGES
from components.shared.digests import file_digest
from components.shared.errors import RefusedError, UserError
from components.shared.evaluation.champion import Accepted, Champion
from components.shared.evaluation.gate import read_blessing
from components.shared.evaluation.predictions import image_digests
from components.shared.params.composing import compose_params, write_params
from components.shared.params.schema import select
from components.shared.registry import ledger
from components.shared.registry.ledger import RegistryLedger
from components.shared.registry.rivals import ask_rivals
from components.shared.registry.versions import all_tags, find_champion, find_version
from components.shared.steps import STEPS
from components.shared.tracking.addresses import absolute_uri, local_path
from components.shared.tracking.models import requirements
from pipelines.__main__ import main
from tests.helpers import reviewed
from tests.helpers.datasets import make_arrays, write_dataset
from tests.helpers.repository import make_root
from tests.helpers.signing import make_keys
from tests.helpers.trained import write_all

SEEDS, EXPORTED = 3, 1
MEASURED = {
    **{"load_seconds": 8.25, "served_images": 32.0, "refused_requests": 7.0},
    **{"latency_ms_batch_1": 40.0, "largest_difference": 1e-7},
}


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
    params = select(compose_params(["data.name=colours", *overrides])[0], "evaluate")
    shutil.rmtree(root / "evaluation", ignore_errors=True)
    evaluate(*(root / name for name in (*STEPS["evaluate"].inputs, "evaluation")), params)


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
        params = select(compose_params(f"registry.model_name={name}"), "register")
        folders = [run / folder for folder in ("dataset", "evaluation", "probe", "finetune")]
        return register(*folders, run / "registration", params)

    return _register


@pytest.fixture
def validated(monkeypatch):
    """Let every model pass the infrastructure validation, for tests of what comes after it."""
    monkeypatch.setattr(module, "validate_infrastructure", lambda *arguments: dict(MEASURED))


def client():
    import mlflow

    return mlflow.MlflowClient()


@pytest.mark.slow
def test_a_blessed_model_becomes_challenger_once(run, do_register, capsys, monkeypatch):
    assert read_blessing(run / "evaluation").blessed
    result = do_register("colours-once")
    assert result.details["registered"] is True
    assert (result.details["version"], result.details["aliases"]) == ("1", ["challenger"])
    assert result.metrics["compared_images"] >= 64
    assert result.metrics["largest_difference"] < 1e-5
    assert result.metrics["served_images"] == 32
    assert result.metrics["served_difference"] < 1e-5
    assert result.metrics["refused_requests"] == 7
    assert read_record(run / "registration", Result) == result
    check_measurements(result.metrics, run / "finetune" / "classifier.keras")
    said = capsys.readouterr().out
    assert "register: loaded by MLflow in a fresh process" in said
    assert "register: served over HTTP; 32 images answered as recorded, 7 malformed requests refused" in said

    version = client().get_model_version_by_alias("colours-once", "challenger")
    manifest = Dataset(run / "dataset").manifest
    assert version.source.startswith("models:/m-")
    assert version.tags["verdict"] == "blessed"
    assert len(version.tags) < 10
    tags = all_tags(version.tags)
    assert tags["winner"] == "finetune"
    assert version.tags["dataset_digest"] == manifest.digest
    assert tags["test_digest"] == manifest.test_digest
    assert float(version.tags["test_accuracy"]) == 1.0
    assert float(version.tags["gain"]) == pytest.approx(0.4, abs=0.05)
    assert (tags["encoder"], tags["method"]) == ("conv", "simclr")
    assert float(tags["load_seconds"]) == pytest.approx(result.metrics["load_seconds"])
    assert set(client().get_registered_model("colours-once").aliases) == {"challenger"}
    check_description(version, result, manifest)

    before = len(client().search_logged_models([client().get_run(result.mlflow_run_id).info.experiment_id]))
    asked = []
    monkeypatch.setattr(module, "validate_infrastructure", lambda uri, *rest: asked.append(uri) or dict(MEASURED))
    again = do_register("colours-once")
    assert asked == ["models:/colours-once/1"]
    assert again.details["version"] == "1"
    assert "registered before" in again.details["why"]
    (version,) = client().search_model_versions("name = 'colours-once'")
    assert all_tags(version.tags)["load_seconds"] == "8.25"
    after = len(client().search_logged_models([client().get_run(result.mlflow_run_id).info.experiment_id]))
    assert after == before


def check_measurements(metrics, path):
    assert metrics["model_mebibytes"] == pytest.approx(path.stat().st_size / 2**20, abs=1e-3)
    assert 0.5 < metrics["load_seconds"] < 300
    # TensorFlow alone takes some hundred
    assert 100 < metrics["memory_mebibytes"] < 8000
    for name in (
        "latency_ms_batch_1",
        "latency_ms_batch_32",
        "http_latency_ms_batch_1",
        "http_latency_ms_batch_32",
    ):
        assert 0.1 < metrics[name] < 60_000, name


def check_description(version, result, manifest):
    assert "encoder `conv`, pretrained with `simclr`" in version.description
    assert "- certainty passed: " in version.description
    assert version.description.startswith("**`colours-once` version 1: 100.0 % accuracy**")
    assert "Classifiers of images" in client().get_registered_model("colours-once").description
    assert manifest.digest[:12] in version.description
    assert f"models:/colours-once/{version.version}" in version.description
    experiment = client().get_run(result.mlflow_run_id).info.experiment_id
    assert f"[register](#/experiments/{experiment}/runs/{result.mlflow_run_id})" in version.description
    # the runs of the steps before are simulated, so MLflow does not know them, but their ids are told
    assert f"baseline `{'0' * 32}`" in version.description
    assert set(result.details["runs"]) >= set(STEPS) - {"validate", "pretrain", "champion"}
    assert all_tags(version.tags)["run.register"] == result.mlflow_run_id


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


def test_a_model_that_fails_the_validation_is_not_registered(do_register, monkeypatch, run):
    def fail(*arguments):
        raise RefusedError("over HTTP the model answers images of another size with status 500")

    monkeypatch.setattr(module, "validate_infrastructure", fail)
    result = do_register("colours-unfit")
    assert result.details["registered"] is False
    assert result.details["why"] == "over HTTP the model answers images of another size with status 500"
    assert result.metrics["registered"] == 0.0
    assert set(result.metrics) == {"registered", "model_mebibytes"}
    assert find_version("colours-unfit", "any") is None


def test_the_validation_asks_for_what_was_recorded(do_register, monkeypatch, run):
    asked = []

    def remember(uri, images, expected, environment):
        asked.append((images, expected, environment))
        return dict(MEASURED)

    monkeypatch.setattr(module, "validate_infrastructure", remember)
    monkeypatch.setattr(module, "COMPARED_IMAGES", 40)
    do_register("colours-asked")
    ((images, expected, environment),) = asked
    answers = build_classifier().predict(images, verbose=0)
    assert len(images) == 40
    np.testing.assert_allclose(answers, expected, atol=1e-5)
    assert environment["MLFLOW_TRACKING_URI"].startswith("sqlite:////")


def test_a_refused_model_is_not_registered_and_the_step_ends_well(run, do_register):
    run_evaluate(run, "gate.min_gain=0.9")
    result = do_register("colours-refused")
    assert result.details["registered"] is False
    assert result.details["why"].startswith("not blessed: gain: the fine-tuned model gains")
    assert find_version("colours-refused", "any") is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda values: values["checks"].pop(2), "nobody asked for certainty"),
        (lambda values: values.update(schema_version=2), "schema_version = 2: written by a later version"),
        (lambda values: values.update(look=None), "does not tell which look"),
    ],
)
def test_a_verdict_of_another_version_is_not_enough(run, do_register, change, words):
    path = run / "evaluation" / "blessing.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    result = do_register("colours-versions")
    assert result.details["registered"] is False
    assert words in result.details["why"] and "\n" not in result.details["why"]
    assert find_version("colours-versions", "any") is None


def test_a_refused_run_without_models_ends_well(run, do_register):
    shutil.rmtree(run / "finetune")
    run_evaluate(run)
    result = do_register("colours-refused")
    assert "finetune/result.json: missing" in result.details["why"]


# --- signed models


@pytest.fixture
def signing(tmp_path, monkeypatch):
    """A new pair of keys, named to whoever signs and checks."""
    keys = make_keys(tmp_path / "keys")
    for name, value in keys.variables().items():
        monkeypatch.setenv(name, value)
    return keys


@pytest.fixture
def tried(monkeypatch):
    """Let every model pass the infrastructure validation; returns what was tried."""
    asked = []
    monkeypatch.setattr(module, "validate_infrastructure", lambda uri, *rest: asked.append(uri) or dict(MEASURED))
    return asked


def settle(run, name, required=True):
    """Make the run's folder a repository whose parameters ask for signed models, and whose model is this one."""
    if not (run / "conf").exists():
        make_root(run)
    values = compose_params([f"registry.model_name={name}", f"registry.require_signature={str(required).lower()}"])
    write_params(values[1], run / "params.yaml")
    Image.new("RGB", (32, 32), "red").save(run / "photo.png")


def stored(name, number="1"):
    """The folder in which the registry keeps a version's files."""
    logged = client().get_model_version(name, number).source.rpartition("/")[2]
    return local_path(client().get_logged_model(logged).artifact_location)


def flip(path):
    changed = bytearray(path.read_bytes())
    changed[len(changed) // 2] ^= 1
    path.write_bytes(bytes(changed))


def test_a_model_is_signed_approved_and_used_until_somebody_changes_it(run, do_register, signing, tried, capsys):
    name = "colours-signed"
    settle(run, name)
    result = do_register(name)
    assert (result.details["registered"], result.details["signed"]) == (True, True)
    assert (run / "registration" / "model.sig").read_bytes() == (stored(name) / "model.sig").read_bytes()
    assert (stored(name) / "blessing.json").read_bytes() == (run / "evaluation" / "blessing.json").read_bytes()
    # not what lies in the registry is run beside the private key, but a copy that was held against the signature
    assert not tried[0].startswith("models:")
    assert "registered before" in do_register(name).details["why"]

    approve = ["review", "approve", "1", "--reason", "good"]
    client().set_model_version_tag(name, "1", "dataset_digest", "0" * 64)
    with pytest.raises(UserError, match=rf"^{name} version 1: tag dataset_digest = '0+': '\w+' was signed"):
        main(approve)
    client().set_model_version_tag(name, "1", "dataset_digest", Dataset(run / "dataset").manifest.digest)
    main(approve)
    capsys.readouterr()
    assert main(["predict", "photo.png"]) == 0
    assert "  red  " in capsys.readouterr().out
    rivals = ask_rivals(find_champion(name), Dataset(run / "dataset"), [], True)
    assert (len(rivals.found), rivals.faults) == (1, [])

    flip(stored(name) / "data" / "model.keras")
    changed = "data/model.keras: changed since it was signed"
    for command in (
        ["predict", "photo.png"],
        ["embed", "photo.png", "--model", f"models:/{name}/1", "--out", "o.parquet"],
    ):
        with pytest.raises(UserError, match=f"^{name} version 1: {changed}"):
            main(command)
    (fault,) = ask_rivals(find_champion(name), Dataset(run / "dataset"), [], True).faults
    assert f"version 1 can't be loaded: its files: {changed}" in fault
    refused = do_register(name)
    assert refused.details["registered"] is False
    assert f"is not what was signed: models:/{name}/1: {changed}; delete that version" in refused.details["why"]
    assert len(tried) == 2


@pytest.mark.slow
def test_a_signed_model_is_tried_as_any_other(run, do_register, signing):
    result = do_register("colours-tried")
    assert (result.details["registered"], result.details["signed"]) == (True, True)
    # by the loader too, which checks the signature again in the fresh process
    assert (result.metrics["served_images"], result.metrics["refused_requests"]) == (32, 7)


def test_an_unsigned_model_is_not_used_where_signed_ones_are_asked_for(run, do_register, tried, tmp_path):
    name = "colours-unsigned"
    settle(run, name, required=False)
    assert do_register(name).details["signed"] is False
    reviewed.put_up(name, client().get_model_version(name, "1").source, "2")
    for number in "12":
        assert not main(["review", "approve", number, "--reason", "nobody asks for signed ones"])
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in make_keys(tmp_path / "keys").variables().items():
            patch.setenv(variable, value)
        unsigned = r"it is not signed \(it has no model.sig\)"
        with pytest.raises(UserError, match=f"^{name} version 1: {unsigned}"):
            main(["review", "rollback", "--reason", "back"])
        main(["review", "withdraw", "2", "--reason", "unsigned"])
        for more in ([], ["--override"]):
            with pytest.raises(UserError, match=f"^{name} version 1: {unsigned}"):
                main(["review", "approve", "1", "--reason", "good", *more])
        with pytest.raises(UserError, match=f"^{name} version 1: {unsigned}"):
            main(["predict", "photo.png", "--model", f"models:/{name}/1"])
        refused = do_register(name)
        assert "it is not signed" in refused.details["why"] and len(tried) == 1
    # and who must have a key is not let through without one
    settle(run, name)
    for command in (
        ["review", "approve", "1", "--reason", "good"],
        ["predict", "photo.png", "--model", f"models:/{name}/1"],
    ):
        with pytest.raises(UserError, match=r"^CONTRASTIVE_PUBLIC_KEY: not set"):
            main(command)


def test_what_is_changed_on_its_way_to_the_registry_is_neither_run_nor_signed(
    run, do_register, signing, tried, monkeypatch
):
    log = module.log_classifier

    def log_and_change(*arguments):
        uri = log(*arguments)
        flip(
            local_path(client().get_logged_model(uri.rpartition("/")[2]).artifact_location) / "code/signed_files.py"
        )
        return uri

    monkeypatch.setattr(module, "log_classifier", log_and_change)
    result = do_register("colours-way")
    assert result.details["registered"] is False and tried == []
    assert "code/signed_files.py: changed since it was signed; look who may write there" in result.details["why"]
    assert find_version("colours-way", "any") is None
    assert list(run.rglob("model.sig")) == []


def test_who_must_sign_and_can_not_is_told_before_anything_is_done(run, tmp_path):
    params = compose_params(["registry.model_name=colours-keyless", "registry.require_signature=true"])[0]
    folders = [run / folder for folder in ("dataset", "evaluation", "probe", "finetune")]
    with pytest.raises(
        UserError, match=r"^CONTRASTIVE_SIGNING_KEY: not set, and registry.require_signature = true"
    ):
        register(*folders, run / "registration", select(params, "register"))
    assert not (run / "registration").exists()


# --- the ledger of looks, again


@pytest.fixture
def other_registry(monkeypatch, tmp_path):
    """A ledger that knows nothing of the evaluation, as where a run cache restores it."""
    monkeypatch.setattr(ledger, "EXPERIMENT", f"looks-{tmp_path.name}")


def test_a_restored_evaluation_is_claimed_where_it_is_registered(run, do_register, validated, other_registry):
    images = image_digests(Dataset(run / "dataset"), "test")
    assert RegistryLedger().expected("another", images) == 1
    assert do_register("colours-restored").details["registered"] is True
    assert RegistryLedger().expected(read_blessing(run / "evaluation").look_key, images) == 1
    assert RegistryLedger().expected("another", images) == 2


def test_a_look_that_was_a_later_one_here_is_not_registered(run, do_register, validated, other_registry):
    RegistryLedger().claim("another", image_digests(Dataset(run / "dataset"), "test"), {})
    result = do_register("colours-later")
    assert result.details["registered"] is False
    assert "this is look 2 at these test images, and it was judged as look 1" in result.details["why"]
    assert find_version("colours-later", "any") is None


def test_what_was_not_judged_is_not_put_up(run, do_register):
    run_evaluate(run, "gate.open_test=false")
    result = do_register("colours-closed")
    assert result.details["registered"] is False
    assert result.details["why"].startswith("not judged: the test set stayed closed: nobody asked for a verdict")


# --- the champion, on tonight's images


@pytest.fixture
def crowned(run, do_register, validated, other_registry, compose_params):
    """A function that lets the winner be registered and crowned, and asks the registry for its champion."""

    def _crowned(name: str) -> None:
        do_register(name)
        client().set_registered_model_alias(name, "champion", "1")
        find(name)

    def find(name: str) -> None:
        champion(run / "champion", select(compose_params(f"registry.model_name={name}"), "champion"))

    return _crowned


def answer_wrongly(folder: Path, every: int) -> None:
    """Let one in so many answers on test be wrong, of all replicates."""
    arrays = dict(np.load(folder / "predictions.npz"))
    arrays["test_probabilities"][:, ::every] = np.roll(arrays["test_probabilities"][:, ::every], 1, axis=2)
    np.savez(folder / "predictions.npz", **arrays)


def test_the_champion_is_asked_tonights_images_and_a_worse_model_is_refused(run, crowned, do_register):
    crowned("colours-reign")
    run_evaluate(run)
    same = read_blessing(run / "evaluation")
    assert same.blessed
    assert (same.champion.version, same.champion.accuracy, same.champion.difference) == ("1", 1.0, 0.0)
    assert same.champion.images == 150
    moved = read_record(run / "evaluation", Result)
    assert moved.metrics["feature_drift_test"] == 0
    assert "test: images are as before (version 1's features have moved by 0.0" in moved.details["drift"][-1]
    assert moved.details["drift"][-1] in (run / "evaluation" / "report.html").read_text().replace("&#39;", "'")

    answer_wrongly(run / "finetune", 6)
    run_evaluate(run, "gate.alpha=0.2")
    worse = read_blessing(run / "evaluation")
    assert [check.name for check in worse.checks if not check.passed] == ["champion"]
    assert "version 1 answers 100.0 % of 150 images right, the exported model -16.7 points" in worse.reasons()[0]
    result = do_register("colours-reign")
    assert result.details["why"].startswith("not blessed: champion: version 1 answers")


@pytest.mark.slow
def test_a_champion_that_can_not_be_compared_refuses_until_it_is_left_out_on_record(run, crowned, do_register):
    crowned("colours-unlisted")
    source = client().get_model_version("colours-unlisted", "1").source
    logged = client().get_logged_model(source.removeprefix("models:/"))
    (Path(logged.artifact_location.removeprefix("file://")) / TRAINING_IMAGES).unlink()
    answer_wrongly(run / "finetune", 10)
    run_evaluate(run, "gate.alpha=0.2")
    (reason,) = read_blessing(run / "evaluation").reasons()
    assert reason.startswith("champion: version 1 is champion, but it has no list of its training images")
    assert do_register("colours-unlisted").details["registered"] is False

    run_evaluate(run, "gate.alpha=0.2", "gate.skip_champions=[1]")
    blessing = read_blessing(run / "evaluation")
    assert (blessing.blessed, blessing.options_changed) == (True, True)
    assert "skip_champions = [1] instead of []" in blessing.weaker
    with (run / "finetune" / "classifier.keras").open("ab") as file:
        file.write(b" ")
    evaluated_anew(run)
    assert do_register("colours-unlisted").details["version"] == "2"
    tags = client().get_model_version("colours-unlisted", "2").tags
    assert tags["weaker"] == "alpha = 0.2 instead of 0.05; skip_champions = [1] instead of []"
    assert all_tags(tags)["options_changed"] == "true"


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (drop_classifier, "judged another finetune/"),
        (change_predictions, "judged another finetune/"),
        (change_dataset, "judged another dataset"),
        (garble_classifier, "does not answer in a fresh process"),
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


def test_a_champion_keeps_its_alias_and_is_not_put_up_again(run, do_register, validated):
    first = do_register("colours-crowned")
    client().set_registered_model_alias("colours-crowned", "champion", "1")
    client().delete_registered_model_alias("colours-crowned", "challenger")
    again = do_register("colours-crowned")
    assert first.details["aliases"] == ["challenger"]
    assert again.details["aliases"] == ["champion"]
    assert client().get_registered_model("colours-crowned").aliases == {"champion": 1}
    digest = file_digest(run / "finetune" / "classifier.keras")
    crowned = Accepted(version="1", artifact_digest=digest, uri="models:/colours-crowned/1")
    expected = Champion(model="colours-crowned", version="1", artifact_digest=digest, accepted=[crowned])
    assert find_champion("colours-crowned") == expected


def test_another_model_is_another_version_and_takes_the_alias(run, do_register, validated):
    do_register("colours-two")
    with (run / "finetune" / "classifier.keras").open("ab") as file:
        file.write(b" ")
    evaluated_anew(run)
    second = do_register("colours-two")
    assert (second.details["version"], second.details["aliases"]) == ("2", ["challenger"])
    assert client().get_registered_model("colours-two").aliases == {"challenger": 2}


def test_the_logged_model_is_the_judged_file_with_example_requirements_and_types(run, do_register, validated):
    import mlflow
    from mlflow.types import DataType

    result = do_register("colours-types")
    uri = "models:/colours-types@challenger"
    info = mlflow.models.get_model_info(uri)
    assert info.signature.inputs.to_dict()[0]["tensor-spec"] == {"dtype": "uint8", "shape": (-1, 32, 32, 3)}
    assert info.signature.outputs.input_types_dict() == dict.fromkeys(("red", "green", "blue"), DataType.float)
    assert info.metadata["class_names"] == ["red", "green", "blue"]
    folder = Path(mlflow.artifacts.download_artifacts(uri))
    assert file_digest(folder / "data" / "model.keras") == result.details["artifact_digest"]
    assert file_digest(run / "finetune" / "classifier.keras") == result.details["artifact_digest"]
    first = Dataset(run / "dataset").images("train")[:1]
    example = mlflow.models.Model.load(uri).load_input_example(uri)
    assert example.dtype == np.uint8
    np.testing.assert_array_equal(example, first)
    served = json.loads((folder / "serving_input_example.json").read_text())
    assert served == {"inputs": first.tolist()}
    assert (folder / "requirements.txt").read_text().split() == requirements()
    seen, data = np.load(folder / TRAINING_IMAGES), Dataset(run / "dataset")
    assert seen.dtype == np.uint64 and len(seen) == 9 + 12 + 60
    assert set(seen) == {int(digest[:16], 16) for split in SPLITS[:3] for digest in data.files(split)["digest"]}


def test_requirements_are_pinned():
    pinned = requirements()
    assert any(line.startswith("keras==") for line in pinned)
    assert any(line.startswith("tensorflow") for line in pinned)
    assert all("==" in line for line in pinned)


def test_a_sqlite_address_is_made_absolute(in_tmp):
    assert absolute_uri("sqlite:///mlflow.db") == f"sqlite:///{in_tmp / 'mlflow.db'}"
    assert absolute_uri("sqlite:////there/mlflow.db") == "sqlite:////there/mlflow.db"
    assert absolute_uri("http://there:5000") == "http://there:5000"
