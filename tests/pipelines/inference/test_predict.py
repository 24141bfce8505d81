"""Predictions and features of image files: a dataset of odd files, a registered network, both commands."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.ingest import ingest
from components.shared.artifacts import Dataset
from components.shared.errors import UserError
from components.shared.params.schema import select
from components.shared.registry.logged_model import log_classifier
from components.shared.registry.versions import put_up_for_review
from pipelines.__main__ import main
from pipelines.inference import batches as file_answers
from pipelines.inference.model import load_ready
from tests.helpers.image_trees import encode, picture
from tests.helpers.options import network
from tests.helpers.repository import ROOT, make_root

NAME, SIZE = "photos", 32
CLASSES = ["blau", "grün", "rot"]
CHALLENGER = f"models:/{NAME}@challenger"


def file_of(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def odd_files() -> dict[str, bytes]:
    """Image files of every kind and shape, by their path."""
    turned = Image.fromarray(picture("turned", (48, 70)).repeat(3, axis=0).repeat(3, axis=1))
    exif = turned.getexif()
    exif[0x0112] = 6
    grey = picture("grey", (50, 41))[..., 0]
    rgba = np.dstack([picture("rgba", (40, 64)), picture("alpha", (40, 64))[..., 0]])
    return {
        "blau/TURNED.JPG": file_of(turned, "JPEG", quality=90, exif=exif),
        "blau/large.jpeg": encode(picture("large", (90, 120)).repeat(8, axis=0).repeat(8, axis=1), "JPEG"),
        "blau/sub folder/exact ü.png": encode(picture("exact", SIZE)),
        "grün/grey.png": encode(grey),
        "grün/sixteen.PNG": encode(grey.astype(np.uint16) * 257),
        "grün/palette.png": file_of(Image.fromarray(picture("palette", 37)).quantize(16), "PNG"),
        "rot/rgba.png": encode(rgba),
        "rot/small.webp": encode(picture("small", (9, 7)), "WEBP", lossless=True),
        "rot/two words.WebP": encode(picture("words", (200, 61)), "WEBP"),
    }


def write_photos(root: Path) -> Path:
    """A folder of images by class: plain ones to train on, odd ones to test on."""
    for name, data in odd_files().items():
        path = root / "test" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    for split in ("train", "validation"):
        for label in CLASSES:
            (root / split / label).mkdir(parents=True)
            (root / split / label / "1.png").write_bytes(encode(picture(f"{split}{label}", SIZE)))
    return root


@pytest.fixture(scope="module")
def place(tmp_path_factory, tracking_uri):
    """A working folder as the pipeline leaves it: dataset, encoder, classifier, a challenger, params.yaml."""
    import mlflow

    from components.shared.params.composing import compose_params, write_params
    from models import encoders
    from models.classifier import predict, softmax_head

    root = make_root(tmp_path_factory.mktemp("place"))
    write_photos(root / "photos")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        params, values = compose_params(
            [
                "data=folder",
                "data.name=photos",
                "data.path=photos",
                "data.class_folder=first",
                f"data.image_size={SIZE}",
                f"registry.model_name={NAME}",
            ]
        )
        write_params(values, Path("params.yaml"))
        ingest(Path("dataset"), select(params, "ingest"))
        encoder = network("conv", SIZE, width=8)
        # features of an untrained network hardly differ: the head makes much of the little
        features = predict(encoders.deployable(encoder), Dataset(Path("dataset")).images("test"))
        kernel = 60 * np.random.default_rng(0).normal(size=(features.shape[1], len(CLASSES))).astype("float32")
        head = softmax_head(kernel, -features.mean(axis=0) @ kernel)
        for folder, model in (
            ("encoder", encoders.deployable(encoder)),
            ("finetune", encoders.deployable(encoder, head)),
        ):
            Path(folder).mkdir()
            model.save(f"{folder}/{'classifier' if folder == 'finetune' else folder}.keras")
        experiment = mlflow.get_experiment_by_name("contrastive-photos").experiment_id
        with mlflow.start_run(experiment_id=experiment) as run:
            uri = log_classifier(Path("finetune/classifier.keras"), Dataset(Path("dataset")), run.info.run_id)
        put_up_for_review(NAME, uri, "0" * 64, {}, "a network of random weights")
    return root


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    return place


@pytest.fixture(scope="module")
def recorded(place):
    """What the steps would have recorded of the test images: answers and features."""
    import keras

    from models.classifier import predict

    images = Dataset(place / "dataset").images("test")
    found = {
        name: predict(keras.saving.load_model(place / path), images)
        for name, path in (("answers", "finetune/classifier.keras"), ("features", "encoder/encoder.keras"))
    }
    found["paths"] = sorted(f"photos/test/{name}" for name in odd_files())
    return found


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_files_get_the_predictions_that_were_recorded_of_their_images(here, recorded, tmp_path, capsys):
    out = tmp_path / "all.parquet"
    assert run("predict", "photos/test", "--model", CHALLENGER, "--top", 99, "--out", out) == 0
    table = pd.read_parquet(out)
    assert f"{out}: 27 rows by {NAME} version 1\n" in capsys.readouterr().out
    assert sorted(set(table["path"])) == recorded["paths"]
    # each class of each file, in the order in which the dataset holds them
    wide = table.pivot(index="path", columns="class", values="probability")[CLASSES].to_numpy()
    assert np.abs(wide - recorded["answers"]).max() < 1e-4
    assert np.ptp(recorded["answers"], axis=0).min() > 0.1
    assert (table.groupby("path")["probability"].diff().dropna() <= 0).all()


@pytest.mark.slow
def test_pyfunc_names_the_classes_without_this_project(here, recorded, tmp_path):
    program = f"""
import sys
for name in ("components", "models", "pipelines"):
    sys.modules[name] = None
import mlflow, numpy as np
model = mlflow.pyfunc.load_model("{CHALLENGER}")
answers = model.predict(np.load("dataset/test.images.npy"))
answers.to_parquet(sys.argv[1])
print(*model.metadata.signature.outputs.input_names(), *answers.idxmax(axis=1))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "answers.parquet"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    best = [CLASSES[index] for index in recorded["answers"].argmax(axis=1)]
    assert done.stdout.split()[-len(best) - len(CLASSES) :] == [*CLASSES, *best]
    table = pd.read_parquet(tmp_path / "answers.parquet")
    assert list(table) == CLASSES
    np.testing.assert_allclose(table.to_numpy(), recorded["answers"], atol=1e-4)


def test_another_preparation_would_be_noticed(here, recorded):
    import keras

    model = keras.saving.load_model("finetune/classifier.keras")
    squeezed = [
        np.asarray(Image.open(path).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC))
        for path in recorded["paths"]
    ]
    differences = np.abs(model.predict(np.stack(squeezed), verbose=0) - recorded["answers"]).max(axis=1)
    assert (differences > 1e-3).sum() >= 5


def test_predictions_are_printed_best_first(here, recorded, capsys):
    path = "photos/test/blau/sub folder/exact ü.png"
    assert run("predict", path, "photos/test/rot/small.webp", path, "--model", CHALLENGER, "--top", 2) == 0
    out, err = capsys.readouterr()
    answers = recorded["answers"][recorded["paths"].index(path)]
    lines = out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [path, path, *["photos/test/rot/small.webp"] * 2]
    for line, index in zip(lines[:2], np.argsort(-answers)[:2], strict=True):
        assert line.split("  ")[1:] == [CLASSES[index], f"{answers[index]:.4f}"]
    assert err == ""


def test_a_reader_that_has_seen_enough_is_no_error(here, monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        assert run("predict", "photos/test", "--model", "finetune/classifier.keras") == 0


def test_bad_files_are_told_skipped_and_counted(here, tmp_path, capsys):
    folder = tmp_path / "mixed"
    shutil.copytree("photos/test/rot", folder)
    (folder / "broken.png").write_bytes(encode(picture("a", 40))[:200])
    (folder / "empty.jpg").touch()
    (folder / "notes.txt").write_text("left alone")
    out = tmp_path / "predictions.csv"
    assert run("predict", folder, __file__, "--model", "finetune/classifier.keras", "--out", out) == 1
    told = capsys.readouterr()
    skipped = [line for line in told.err.splitlines() if line.startswith("skipped: ")]
    assert [line.split(":")[1].strip() for line in skipped] == [
        str(folder / "broken.png"), str(folder / "empty.jpg"), __file__,
    ]  # fmt: skip
    assert "note: other files in the folders, left alone: 1" in told.err
    assert "3 rows by finetune/classifier.keras, 3 skipped" in told.out
    good = ("rgba.png", "small.webp", "two words.WebP")
    assert list(pd.read_csv(out)["path"]) == [str(folder / name) for name in good]


def test_without_a_readable_image_nothing_is_written(here, tmp_path, capsys):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    for out in (tmp_path / "t.csv", tmp_path / "t.parquet"):
        assert run("predict", bad, "--model", "finetune/classifier.keras", "--out", out) == 1
        assert "not written: no image could be read" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["bad.png"]


def test_batches_do_not_change_the_answers(here, recorded, tmp_path, monkeypatch):
    monkeypatch.setattr(file_answers, "_LARGEST_BATCH", 2)
    assert run("embed", "photos/test", "--out", tmp_path / "f.parquet") == 0
    table = pd.read_parquet(tmp_path / "f.parquet").sort_values("path")
    assert list(table["path"]) == recorded["paths"]
    np.testing.assert_allclose(np.stack(table["features"]), recorded["features"], atol=1e-4)


def test_a_registered_classifier_gives_the_features_below_its_head(here, recorded, tmp_path):
    out = tmp_path / "f.parquet"
    assert run("embed", "photos/test/rot", "photos/test", "--out", out, "--model", CHALLENGER) == 0
    table = pd.read_parquet(out)
    assert table["path"][0].startswith("photos/test/rot/")
    table = table.sort_values("path")
    np.testing.assert_allclose(np.stack(table["features"]), recorded["features"], atol=1e-4)
    assert np.stack(table["features"]).dtype == np.float32


def test_without_a_champion_the_challenger_is_named_and_a_champion_is_the_default(here, capsys):
    import mlflow

    image = "photos/test/rot/small.webp"
    with pytest.raises(UserError, match=f"models:/{NAME}@champion: no version is champion; .*{CHALLENGER}"):
        run("predict", image)
    client = mlflow.MlflowClient()
    client.set_registered_model_alias(NAME, "champion", "1")
    try:
        assert run("predict", image) == 0
    finally:
        client.delete_registered_model_alias(NAME, "champion")
    assert capsys.readouterr().out.startswith(f"{image}  ")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("models:/nobody@champion", "registry has no model nobody"),
        (f"models:/{NAME}@best", f"no version is best; .*{CHALLENGER}"),
        (f"models:/{NAME}/99", "MLflow does not give it"),
        ("models:/m-00000000000000000000000000000000", "MLflow does not give it"),
        ("runs:/0123456789abcdef0123456789abcdef/classifier", "MLflow does not give it"),
        ("nowhere.keras", "no such model"),
        ("photos", "not an MLflow model"),
        ("params.yaml", "Keras can't load it"),
        ("encoder/encoder.keras", "gives no probabilities.*contrastive embed"),
    ],
)
def test_an_unknown_model_is_one_line(here, model, words):
    with pytest.raises(UserError, match=words) as caught:
        run("predict", "photos/test/rot/small.webp", "--model", model)
    assert "\n" not in str(caught.value)


def test_a_registry_that_is_not_there_is_not_made(here, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'none.db'}")
    with pytest.raises(UserError, match=r"there is no registry at sqlite:.*none\.db"):
        run("predict", "photos/test/rot/small.webp", "--model", CHALLENGER)
    assert list(tmp_path.iterdir()) == []


def test_a_local_model_takes_its_names_from_the_dataset_it_was_trained_on(here, tmp_path):
    shutil.copytree("dataset", tmp_path / "dataset")
    shutil.copytree("finetune", tmp_path / "finetune")
    record = {
        "step": "finetune", "params": {}, "params_digest": "", "inputs": {}, "seconds": 1, "mlflow_run_id": "",
        "dataset_digest": Dataset(Path("dataset")).manifest.digest, "metrics": {},
    }  # fmt: skip
    (tmp_path / "finetune" / "result.json").write_text(json.dumps(record))
    assert load_ready(str(tmp_path / "finetune" / "classifier.keras")).labels() == CLASSES
    (tmp_path / "finetune" / "result.json").write_text(json.dumps({**record, "dataset_digest": "another"}))
    assert load_ready(str(tmp_path / "finetune" / "classifier.keras")).labels() == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predict", "nowhere"], "nowhere: no such file or folder"),
        (["predict", "conf"], "no image found"),
        (["predict", "photos", "--out", "table.json"], "ends in .csv or .parquet"),
        (["predict", "photos", "--out", "no/table.csv"], "no folder no/"),
        (["predict", "photos", "--top", "0"], "--top': Input should be greater than"),
        (["embed", "photos", "--out", "table.csv"], "ends in .parquet"),
    ],
)
def test_wrong_usage_is_one_line_before_any_work(here, arguments, words, monkeypatch):
    monkeypatch.setattr("pipelines.inference.model.start_backend", lambda: pytest.fail("no model is needed"))
    before = sorted(path.name for path in here.iterdir())
    with pytest.raises(UserError, match=words):
        run(*arguments)
    assert sorted(path.name for path in here.iterdir()) == before


def shell(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_an_error_ends_with_status_2(here):
    done = shell("predict", "photos/test", "--model", "nowhere.keras")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: nowhere.keras: no such model")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_command_line_keeps_its_streams_apart_and_ends_with_status_1(here, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    done = shell("predict", "photos/test", tmp_path, "--model", CHALLENGER)
    assert done.returncode == 1
    assert [line.split("  ")[0] for line in done.stdout.splitlines()] == sorted(
        f"photos/test/{name}" for name in odd_files()
    )
    assert done.stderr.startswith(f"skipped: {tmp_path / 'bad.png'}: ")
    assert done.stderr.count("\n") == 1
