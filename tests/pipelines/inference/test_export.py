"""Exported models: each format, run by its own library, answers as the model does."""

from __future__ import annotations

import json
from importlib.util import find_spec

import numpy as np
import pytest

from components.shared.errors import UserError
from pipelines.__main__ import main
from pipelines.inference.model import load_ready
from tests.helpers.image_trees import encode, picture
from tests.helpers.options import network

SIZE = 24
KINDS = {"keras": ".keras", "saved_model": "", "onnx": ".onnx", "tflite": ".tflite"}


def needs(kind: str) -> None:
    for name in {"onnx": ("tf2onnx", "onnxruntime"), "tflite": ("ai_edge_litert",)}.get(kind, ()):
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed (the extra `export` has it)")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A classifier and its encoder, as the pipeline saves them, with odd pixel statistics and moved averages."""
    from models import encoders
    from models.classifier import softmax_head
    from models.encoders.shared.normalization import PixelStatistics

    folder = tmp_path_factory.mktemp("models")
    rng = np.random.default_rng(0)
    encoder = network("fast", SIZE, PixelStatistics((0.5, 0.4, 0.3), (0.05, 0.06, 0.07)), width=8)
    encoder.set_weights([(rng.uniform(0.5, 1.5, w.shape) * w).astype(w.dtype) for w in encoder.get_weights()])
    # features of an untrained network hardly differ: the head makes much of the little
    features = encoders.deployable(encoder).predict_on_batch(images(SIZE, SIZE))
    kernel = rng.normal(size=(features.shape[1], 5)) / features.std()
    head = softmax_head(kernel.astype("float32"), (-features.mean(axis=0) @ kernel).astype("float32"))
    encoders.deployable(encoder, head).save(folder / "classifier.keras")
    encoders.deployable(encoder).save(folder / "encoder.keras")
    return folder


def images(height: int, width: int) -> np.ndarray:
    return np.stack([picture(name, (height, width)) for name in "abcd"])


def export(kind, model, out, *options) -> None:
    main(["export", "--format", kind, str(model), str(out), *options])


def answers(model, asked) -> np.ndarray:
    import keras

    return keras.saving.load_model(model, compile=False).predict_on_batch(asked)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_format_answers_as_the_model_does(models, tmp_path, kind):
    from pipelines.inference.formats import ask

    needs(kind)
    asked, out = images(SIZE, SIZE), tmp_path / f"out{KINDS[kind]}"
    export(kind, models / "classifier.keras", out)
    expected = answers(models / "classifier.keras", asked)
    # answers that tell something
    assert np.ptp(expected, axis=0).max() > 0.05
    np.testing.assert_allclose(ask(kind, out, asked), expected, atol=1e-4)
    # a batch of another length
    np.testing.assert_allclose(ask(kind, out, asked[:1]), expected[:1], atol=1e-4)
    described = json.loads((tmp_path / f"{out.name}.json").read_text())
    assert described["class_names"] == ["0", "1", "2", "3", "4"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([out.name, f"{out.name}.json"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "tflite"])
@pytest.mark.parametrize(("height", "width"), [(61, 61), (40, 97)])
def test_a_fixed_size_is_resized_as_the_model_resizes_it(models, tmp_path, kind, height, width):
    from pipelines.inference.formats import ask

    needs(kind)
    out = tmp_path / f"out{KINDS[kind]}"
    size = ["--size", f"{height}x{width}", "--input", "float32"]
    export(kind, models / "classifier.keras", out, "--features", *size)
    asked = images(height, width)
    expected = answers(models / "encoder.keras", asked)
    np.testing.assert_allclose(ask(kind, out, asked.astype("float32")), expected, atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(24, 24), (61, 61), (40, 97), (90, 24), (11, 13)])
def test_two_matrix_products_are_the_antialiased_resize(models, height, width):
    """Also where the libraries of the other formats are not installed."""
    from pipelines.inference.formats import with_input

    model = load_ready(str(models / "encoder.keras")).network
    fixed = with_input(model, (height, width), "uint8")
    assert "resize" not in [layer.name for layer in fixed.layers]
    asked = images(height, width)
    np.testing.assert_allclose(fixed.predict_on_batch(asked), model.predict_on_batch(asked), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["keras", "saved_model"])
def test_a_format_that_can_resize_takes_any_size(models, tmp_path, kind):
    from pipelines.inference.formats import ask

    out = tmp_path / f"out{KINDS[kind]}"
    export(kind, models / "classifier.keras", out, "--features")
    # again: what lies there is replaced
    export(kind, models / "classifier.keras", out, "--features")
    for height, width in ((SIZE, SIZE), (40, 97), (11, 13)):
        asked = images(height, width)
        np.testing.assert_allclose(ask(kind, out, asked), answers(models / "encoder.keras", asked), atol=1e-4)


def test_an_exported_file_of_keras_keeps_its_class_names(models, tmp_path, capsys):
    import keras

    from pipelines.inference.export import export_model

    names = {"class_names": ["a", "b", "c", "d", "e"]}
    (models / "classifier.keras.json").write_text(json.dumps(names))
    try:
        export_model(str(models / "classifier.keras"), tmp_path / "m.keras", "keras", False, None, "uint8")
    finally:
        (models / "classifier.keras.json").unlink()
    (tmp_path / "photo.png").write_bytes(encode(picture("photo", 40)))
    main(["predict", str(tmp_path / "photo.png"), "--model", str(tmp_path / "m.keras"), "--top", "5"])
    assert sorted(line.split("  ")[1] for line in capsys.readouterr().out.splitlines()[-5:]) == names["class_names"]
    assert keras.saving.load_model(tmp_path / "m.keras").input_shape == (None, None, None, 3)


def test_an_export_that_answers_otherwise_is_not_kept(models, tmp_path, monkeypatch):
    from pipelines.inference import formats

    monkeypatch.setattr(formats, "ask", lambda kind, path, asked: np.zeros((3, 5), "float32"))
    with pytest.raises(UserError, match=r"m\.keras: answers otherwise than the model, by"):
        export("keras", models / "classifier.keras", tmp_path / "m.keras")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "out", "options", "words"),
    [
        ("onnx", "m.keras", [], r"a file of --format onnx ends in \.onnx"),
        ("keras", "no/m.keras", [], "there is no folder"),
        ("saved_model", "file.json", [], "is a file already"),
        ("saved_model", "full", [], "is a folder of something else"),
        ("keras", "full.keras", [], "is a folder already"),
        ("keras", "m.keras", ["--size", "96"], "--size 96: --format keras takes images of any size"),
        ("onnx", "m.onnx", ["--size", "96 px"], "--size 96 px: must be pixels, 96 or 480x640"),
        ("onnx", "m.onnx", ["--size", "9999"], "at most 4096"),
        ("onnx", "m.onnx", ["--size", "0"], "must be pixels"),
        ("gif", "m.gif", [], "--format"),
    ],
)
def test_wrong_usage_is_one_line_before_any_work(tmp_path, kind, out, options, words, monkeypatch):
    monkeypatch.setattr("pipelines.inference.model.start_backend", lambda: pytest.fail("no model is needed"))
    (tmp_path / "file.json").touch()
    for name in ("full", "full.keras"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").touch()
    with pytest.raises(UserError, match=words) as caught:
        export(kind, tmp_path / "model.keras", tmp_path / out, *options)
    assert "\n" not in str(caught.value)


def test_without_the_library_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.inference.export.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--format onnx: tf2onnx and onnxruntime not installed; .*export"):
        export("onnx", "m.keras", tmp_path / "m.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("channels", "values"), [(1, "grey, 0 to 255"), (4, "four channels, 0 to 255")])
def test_models_of_other_channels_are_exported_too(tmp_path, kind, channels, values):
    from models import encoders
    from pipelines.inference.formats import ask

    needs(kind)
    encoders.deployable(network("fast", SIZE, channels=channels, width=8)).save(tmp_path / "encoder.keras")
    size = ["--size", "40x61"] if kind in ("onnx", "tflite") else []
    out = tmp_path / f"out{KINDS[kind]}"
    export(kind, tmp_path / "encoder.keras", out, *size)
    asked = np.random.default_rng(0).integers(0, 256, (2, 40, 61, channels), np.uint8)
    np.testing.assert_allclose(ask(kind, out, asked), answers(tmp_path / "encoder.keras", asked), atol=1e-4)
    takes = json.loads((tmp_path / f"{out.name}.json").read_text())["takes"]
    assert (takes["shape"][-1], takes["values"]) == (channels, values)
