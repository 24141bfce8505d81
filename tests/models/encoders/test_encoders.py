"""Encoders have the published sizes, and what is deployed loads anywhere and sees what the training saw."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from components.shared.sources.pixels import fit
from models import encoders
from models.classifier import softmax_head
from models.encoders.shared.normalization import PixelStatistics
from models.layers import layers_of
from tests.helpers.datasets import texture
from tests.helpers.options import network


def trained_weights(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def test_conv_has_the_documented_number_of_weights():
    model = network("conv", 96, width=128)
    assert trained_weights(model) == model.count_params() == 856_064
    assert model.output_shape == (None, 128)


# Trainable weights of torchvision's models without their classifier, and the channels that they normalise: moving
# means and variances are counted apart there, and added in Keras. The V2: keras.applications, 23,564,800 in all.
PUBLISHED = [
    ("resnet18", 11_176_512, 4_800, 512),
    ("resnet34", 21_284_672, 8_512, 512),
    ("resnet50", 23_508_032, 26_560, 2_048),
    ("resnet50v2", 23_519_360, 22_720, 2_048),
]


@pytest.mark.parametrize(("name", "published", "normalised", "features"), PUBLISHED)
def test_residual_networks_have_the_published_number_of_weights(name, published, normalised, features):
    model = network(name, 96)
    assert trained_weights(model) == published
    assert model.count_params() == published + 2 * normalised
    assert model.output_shape == (None, features)
    small = network(name, 32)
    # a 3×3 stem in place of 7×7
    assert trained_weights(small) == published - (49 - 9) * 3 * 64
    assert small.output_shape == (None, features)


def last_size(model):
    pooled = next(layer for layer in model.layers if isinstance(layer, keras.layers.GlobalAveragePooling2D))
    return pooled.input.shape[1:3]


@pytest.mark.parametrize("name", ["resnet18", "resnet50v2"])
@pytest.mark.parametrize(("size", "last"), [(32, 4), (63, 8), (64, 2), (96, 3)])
def test_the_stem_of_a_residual_network_fits_the_image(name, size, last):
    assert last_size(network(name, size)) == (last, last)


@pytest.mark.parametrize("name", ["resnet34", "resnet50v2"])
@pytest.mark.parametrize(("stem", "size", "last"), [("large", 32, 1), ("small", 96, 12), ("auto", 32, 4)])
def test_the_stem_can_be_chosen(name, stem, size, last):
    assert last_size(network(name, size, stem=stem)) == (last, last)


@pytest.mark.parametrize(("name", "size"), [("conv", 31), ("conv", 40), ("resnet18", 8), ("resnet34", 16)])
def test_features_have_the_announced_shape(name, size):
    model = network(name, size, **({"width": 8} if name == "conv" else {}))
    features = np.asarray(model(np.random.default_rng(0).random((3, size, size, 3), "float32")))
    assert features.shape == (3, model.output_shape[-1])
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


def test_an_image_too_small_or_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="at least 31 pixels, not 30"):
        network("conv", 30, width=8)
    with pytest.raises(ValueError, match=f"vit: must be one of {', '.join(encoders.NAMES)}$"):
        encoders.options_type("vit")


@pytest.fixture(scope="module")
def small():
    keras.utils.set_random_seed(7)
    return network("conv", 32, width=8)


def images(size, count=4, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([texture(name, size, rng) for name in ("checks", "rings", "rows", "dots")[:count]])


def test_the_deployed_encoder_scales_and_gives_the_same_features(small):
    batch = images(32)
    deployed = np.asarray(encoders.deployable(small)(batch))
    np.testing.assert_allclose(deployed, np.asarray(small(batch.astype("float32") / 255)), rtol=1e-5, atol=1e-6)
    assert deployed.dtype == np.float32


@pytest.mark.parametrize("shape", [(96, 96), (128, 100), (48, 64), (97, 50), (20, 24), (32, 32)])
def test_an_image_of_another_size_is_seen_as_ingestion_would_have_stored_it(small, shape):
    deployed = encoders.deployable(small)
    seen = keras.Model(deployed.input, deployed.get_layer("clip").output)
    for pattern in ("checks", "rings", "dots"):
        large = texture(pattern, 128, np.random.default_rng(1))
        image = np.asarray(Image.fromarray(large).resize(shape[::-1], Image.Resampling.BICUBIC))
        stored = fit(Image.fromarray(image), 32) / 255
        found = np.asarray(seen(image[None]))[0]
        assert found.shape == stored.shape
        # Pillow's kernel reads beyond the cut, and cuts at half pixels where Keras cuts at whole ones
        difference = np.abs(found - stored)[3:-3, 3:-3]
        assert difference.mean() < (0.002 if (shape[0] - shape[1]) % 2 == 0 else 0.05)
        assert found.min() >= 0
        assert found.max() <= 1


def test_an_image_of_the_right_size_is_left_as_it_is(small):
    deployed = encoders.deployable(small)
    seen = keras.Model(deployed.input, deployed.get_layer("clip").output)
    np.testing.assert_allclose(np.asarray(seen(images(32))), images(32) / 255, atol=1e-6)


def test_what_is_built_in_half_precision_is_deployed_in_full():
    from models.training import precision

    with precision("bfloat16"):
        half = network("conv", 32, width=8)
    assert keras.config.dtype_policy().name == "float32"
    assert half(np.zeros((1, 32, 32, 3), "float32")).dtype == "bfloat16"
    plain = network("conv", 32, width=8)
    plain.set_weights(half.get_weights())
    assert np.asarray(encoders.deployable(plain)(images(32))).dtype == np.float32


def test_a_plain_call_of_a_deployed_model_is_inference(tmp_path):
    """Batch normalisation neither uses the batch's statistics nor takes note of them, in a loaded model too."""
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Conv2D(4, 3, strides=4),
            keras.layers.BatchNormalization(),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    deployed = encoders.deployable(network, softmax_head(np.ones((4, 3), "float32"), np.zeros(3, "float32")))
    deployed.save(tmp_path / "classifier.keras")
    for model in (deployed, keras.saving.load_model(tmp_path / "classifier.keras", compile=False)):
        before = model.get_weights()
        expected = model.predict_on_batch(images(50))
        np.testing.assert_allclose(np.asarray(model(images(50))), expected, rtol=1e-5)
        for found, weight in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(found, weight)


PROGRAM = """
import pathlib, sys
import numpy as np, keras
batch, answers = np.load("batch.npy"), {}
for path in pathlib.Path().glob("*.keras"):
    model = keras.saving.load_model(path, compile=False)
    answers[path.stem] = np.stack([model(batch), model.predict_on_batch(batch), model(batch)])
np.savez("answers.npz", **answers)
print([name for name in sys.modules if name.split(".")[0] in ("models", "components")])
"""
STATISTICS = PixelStatistics((0.49, 0.48, 0.45), (0.06, 0.059, 0.068))
# each encoder and each normalisation, not all pairs: the one is put before the other, whatever they are
NETWORKS = [
    ("conv", 32, "none"),
    ("conv", 32, "symmetric"),
    ("conv", 32, "statistics"),
    ("resnet18", 16, "statistics"),
    ("resnet34", 8, "none"),
    ("resnet50", 8, "symmetric"),
    ("resnet50v2", 16, "statistics"),
]
NETWORKS += [(name, 16, "statistics") for name in encoders.NAMES if name not in {row[0] for row in NETWORKS}]


@pytest.mark.slow
def test_deployed_models_load_in_a_process_without_this_project(small, tmp_path):
    rng, batch = np.random.default_rng(0), images(50)
    head = softmax_head(rng.standard_normal((8, 3)).astype("float32"), np.zeros(3, "float32"))
    deployed = {"classifier": encoders.deployable(small, head)}
    for name, size, normalization in NETWORKS:
        encoder = network(name, size, STATISTICS, normalization=normalization)
        deployed[f"{name}-{normalization}"] = encoders.deployable(encoder)
    expected = {}
    for name, model in deployed.items():
        expected[name] = np.asarray(model(batch))
        model.save(tmp_path / f"{name}.keras")
    np.save(tmp_path / "batch.npy", batch)
    done = subprocess.run(
        [sys.executable, "-I", "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    with np.load(tmp_path / "answers.npz") as answers:
        assert set(answers) == set(expected)
        assert {name.split("-")[0] for name in answers} == {"classifier", *encoders.NAMES}
        for name, features in expected.items():
            # called, predicted with, and called again
            for answer in answers[name]:
                np.testing.assert_allclose(answer, features, rtol=1e-3, atol=1e-4 * np.abs(features).max())
            assert np.ptp(features, axis=0).max() > 0
        np.testing.assert_allclose(answers["classifier"].sum(axis=-1), np.ones((3, 4)), rtol=1e-5)


def test_a_deployed_encoder_that_is_called_does_not_learn():
    encoder = network("resnet18", 8)
    deployed = encoders.deployable(encoder)
    start = [weight.copy() for weight in deployed.get_weights()]
    batch = images(8)
    features = np.asarray(deployed(batch))
    plain = np.asarray(encoder(batch.astype("float32") / 255, training=False))
    np.testing.assert_allclose(features, plain, rtol=1e-4, atol=1e-5)
    assert all(np.array_equal(a, b) for a, b in zip(start, deployed.get_weights(), strict=True))
    # who wants to train it on can
    deployed(batch, training=True)
    assert not all(np.array_equal(a, b) for a, b in zip(start, deployed.get_weights(), strict=True))


@pytest.mark.parametrize(
    ("name", "normalization"),
    [("fast", "symmetric"), ("resnet18", "none"), ("resnet18", "symmetric"), ("resnet50v2", "symmetric")],
)
def test_any_size_shares_layers_and_weights_and_may_be_copied(name, normalization):
    small = {"width": 8} if name == "fast" else {}
    model = network(name, 32, normalization=normalization, **small)
    any_size = encoders.any_size(model)
    assert [id(weight) for weight in any_size.weights] == [id(weight) for weight in model.weights]
    assert layers_of(any_size) == layers_of(model)
    seen = images(32).astype("float32") / 255
    np.testing.assert_allclose(np.asarray(any_size(seen)), np.asarray(model(seen)), rtol=1e-5, atol=1e-6)
    copy = keras.models.clone_model(any_size)
    copy.set_weights(model.get_weights())
    smaller = np.asarray(any_size(seen[:, :24, :24], training=True))
    assert smaller.shape == (4, model.output_shape[-1])
    assert np.asarray(copy(seen[:, :24, :24])).shape == smaller.shape


def test_the_encoders_say_which_take_images_of_any_size():
    assert {name for name in encoders.NAMES if not encoders.options_type(name).any_size} == {"conv"}


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("name", encoders.NAMES)
def test_every_encoder_takes_images_of_other_channels(name, channels):
    small = {"width": 8} if name in ("conv", "fast") else {}
    model = network(name, 32, channels=channels, **small)
    # but for the first kernel, the same weights as for RGB
    shapes = [[weight.shape for weight in network(name, 32, channels=n, **small).weights] for n in (channels, 3)]
    differ = [(own, rgb) for own, rgb in zip(*shapes, strict=True) if own != rgb]
    assert [(own[2], rgb[2]) for own, rgb in differ] == [(channels, 3)]
    raw = np.random.default_rng(0).integers(0, 256, (2, 32, 32, channels), np.uint8)
    deployed = encoders.deployable(model)
    assert deployed.input_shape == (None, None, None, channels)
    expected = np.asarray(model(raw.astype("float32") / 255))
    np.testing.assert_allclose(np.asarray(deployed(raw)), expected, rtol=1e-4, atol=1e-6 * expected.max())
    assert np.asarray(deployed(raw.repeat(2, axis=1).repeat(2, axis=2))).shape == expected.shape
