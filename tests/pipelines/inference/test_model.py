"""Models that are loaded for use: what they must be, where their features end, and what is told of others."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from components.shared.errors import UserError
from pipelines.__main__ import main
from pipelines.inference.model import load_ready
from tests.helpers.image_trees import encode, picture


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(encode(picture("photo", 20)))
    return str(path)


@pytest.fixture
def save_model(tmp_path):
    """A function that saves a functional model of some inputs, and returns its path."""
    import keras

    def _save(shape, build, dtype="uint8"):
        images = keras.Input(shape, dtype=dtype)
        keras.Model(images, build(images)).save(tmp_path / "own.keras")
        return str(tmp_path / "own.keras")

    return _save


def test_a_model_without_class_names_numbers_them(save_model, photo, capsys):
    import keras

    def build(images):
        pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(images))
        return keras.layers.Dense(4, activation="softmax")(pooled)

    path = save_model((16, 16, 3), build)
    assert main(["predict", photo, "--model", path, "--top", "4"]) == 0
    out, err = capsys.readouterr()
    assert sorted(line.split("  ")[1] for line in out.splitlines()) == ["0", "1", "2", "3"]
    assert "numbered from 0" in err
    assert load_ready(path).encoder().network.output_shape == (None, 3)


def test_a_model_of_another_kind_is_refused(tmp_path):
    (tmp_path / "MLmodel").write_text("flavors:\n  sklearn:\n    data: model.pkl\n")
    with pytest.raises(UserError, match="holds sklearn, not a Keras model"):
        load_ready(str(tmp_path))
    (tmp_path / "MLmodel").write_text("- no\n- model\n")
    with pytest.raises(UserError, match="not an MLflow model"):
        load_ready(str(tmp_path))


def test_models_that_do_not_take_images_of_one_size_are_refused(save_model):
    import keras

    with pytest.raises(UserError, match="not images"):
        load_ready(save_model((7,), keras.layers.Dense(3), "float32"))
    with pytest.raises(UserError, match="does not tell the size"):
        load_ready(save_model((None, None, 3), keras.layers.GlobalAveragePooling2D()))
    with pytest.raises(UserError, match="does not tell the size"):
        load_ready(save_model((16, 20, 3), keras.layers.GlobalAveragePooling2D()))


def test_features_that_can_t_be_told_from_the_head_are_refused(save_model):
    import keras

    def branched(images):
        x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(images))
        both = keras.layers.Concatenate()([keras.layers.Dense(3)(x), keras.layers.Dense(4)(x)])
        return keras.layers.Dense(3, activation="softmax")(both)

    with pytest.raises(UserError, match="can't be told from its head"):
        load_ready(save_model((16, 16, 3), branched)).encoder()

    def nested(images):
        inner = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")])
        return inner(images)

    with pytest.raises(UserError, match="can't be told from its head"):
        load_ready(save_model((16, 16, 3), nested)).encoder()
    with pytest.raises(UserError, match="not features of shape"):
        load_ready(save_model((16, 16, 3), keras.layers.Rescaling(1 / 255))).encoder()


def test_answers_that_are_no_numbers_are_an_error_and_leave_nothing(save_model, photo, tmp_path):
    import keras

    path = save_model((16, 16, 3), lambda x: keras.layers.GlobalMaxPooling2D()(keras.layers.Rescaling(np.inf)(x)))
    out = tmp_path / "features.parquet"
    with pytest.raises(UserError, match="NaN or infinity"):
        main(["embed", photo, "--out", str(out), "--model", path])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["own.keras", "photo.png"]


@pytest.mark.parametrize("channels", [1, 4])
def test_files_are_read_with_the_models_own_channels(save_model, tmp_path, capsys, channels):
    import keras
    import pandas as pd

    path = save_model(
        (16, 16, channels), lambda x: keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1.0)(x))
    )
    assert load_ready(path).channels == channels
    photos = tmp_path / "photos"
    photos.mkdir()
    four = np.dstack([picture("four", 16), picture("fourth", 16)[..., 0]])
    four[:8, :, 3] = 0
    (photos / "a.png").write_bytes(encode(picture("a", 16)))
    (photos / "four.png").write_bytes(encode(four))
    out = tmp_path / "features.parquet"
    assert main(["embed", str(photos), "--out", str(out), "--model", path]) == (channels == 4)
    table = pd.read_parquet(out).set_index("path")["features"]
    if channels == 1:
        grey = np.asarray(Image.fromarray(picture("a", 16)).convert("L"))
        np.testing.assert_allclose(table[str(photos / "a.png")], [grey.mean()], rtol=1e-5)
    else:
        assert list(table.index) == [str(photos / "four.png")]
        np.testing.assert_allclose(table.iloc[0], four.mean(axis=(0, 1)), rtol=1e-5)
        assert "a.png: can't be read as an image: it has 3 channels (RGB), and four are asked for" in (
            capsys.readouterr().err
        )


def test_models_of_other_channels_are_refused(save_model):
    import keras

    with pytest.raises(UserError, match=r"takes \(None, 16, 16, 2\), not images \(N, size, size, 1, 3 or 4\)"):
        load_ready(save_model((16, 16, 2), keras.layers.GlobalAveragePooling2D()))
