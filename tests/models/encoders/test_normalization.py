"""Input normalisation: exact statistics, part of the network, alike in pretraining, fine-tuning and deployment."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.pretrain import pretrain
from components.shared.artifacts import Dataset
from components.shared.params.composing import compose_params
from components.shared.params.schema import select
from components.shared.training import inputs
from models import encoders
from models.classifier import ClassifierHead, SupervisedTrainer, predict
from models.encoders.shared.normalization import PixelStatistics, pixel_statistics
from models.training import precision
from tests.helpers.datasets import make_arrays, make_dataset, write_dataset
from tests.helpers.options import augmentation, encoder, network, recipe

STATISTICS = PixelStatistics((0.4, 0.5, 0.6), (0.04, 0.09, 0.01))


def raw(count, height=5, width=6, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3)).astype(np.uint8)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=4), st.integers(1, 400))
def test_statistics_are_those_of_all_parts_whatever_the_chunks(counts, chunk):
    parts = [raw(count, seed=index) for index, count in enumerate(counts)]
    if not sum(counts):
        with pytest.raises(ValueError, match="no image"):
            pixel_statistics(parts, chunk)
        return
    found = pixel_statistics(parts, chunk)
    everything = np.concatenate(parts).astype(float) / 255
    np.testing.assert_allclose(found.mean, everything.mean(axis=(0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(found.variance, everything.var(axis=(0, 1, 2)), rtol=1e-9)
    assert found == pixel_statistics([np.concatenate(parts)])


def test_statistics_of_a_memory_map_and_of_a_blank_channel(tmp_path):
    images = raw(20)
    images[..., 1] = 77
    np.save(tmp_path / "images.npy", images)
    found = pixel_statistics([np.load(tmp_path / "images.npy", mmap_mode="r")])
    assert found == pixel_statistics([images])
    # one grey level, so that what differs later is not blown up without end
    assert found.mean[1] == pytest.approx(77 / 255)
    assert found.variance[1] == pytest.approx(1 / 255**2)


def test_a_normalised_encoder_is_the_plain_one_on_normalised_images():
    images = np.random.default_rng(0).random((4, 32, 32, 3), "float32")
    mean, variance = (np.array(values, "float32") for values in STATISTICS)
    seen = {"none": images, "symmetric": 2 * images - 1, "statistics": (images - mean) / np.sqrt(variance)}
    plain = network("conv", 32, width=8)
    features = []
    for normalization, pixels in seen.items():
        encoder = network("conv", 32, width=8, normalization=normalization, statistics=STATISTICS)
        # numbers of the architecture, not weights
        assert encoder.input_shape == plain.input_shape
        assert encoder.output_shape == plain.output_shape
        encoder.set_weights(plain.get_weights())
        features.append(np.asarray(encoder(images)))
        np.testing.assert_allclose(features[-1], np.asarray(plain(pixels)), rtol=1e-4, atol=1e-5)
        copy = keras.models.clone_model(encoder)
        copy.set_weights(plain.get_weights())
        np.testing.assert_array_equal(np.asarray(copy(images)), features[-1])
    assert min(np.abs(features[i] - features[j]).max() for i, j in ((0, 1), (0, 2), (1, 2))) > 1e-3


def test_normalisation_is_in_full_precision_in_a_half_precision_network():
    with precision("bfloat16"):
        encoder = network("conv", 32, width=8, normalization="statistics", statistics=STATISTICS)
    layer, conv = encoder.layers
    assert layer.compute_dtype == "float32"
    assert conv.compute_dtype == "bfloat16"
    assert encoder(np.zeros((1, 32, 32, 3), "float32")).dtype == "bfloat16"


def test_a_normalisation_without_its_numbers_is_refused():
    with pytest.raises(ValueError, match="needs the training images' statistics"):
        encoders.build(encoder("conv", width=8, normalization="statistics"), 32)


def test_steps_take_the_statistics_of_all_training_images_and_of_no_other(tmp_path):
    arrays = make_arrays({"unlabelled": 7, "train": 6, "validation": 6, "test": 6}, image_size=8)
    arrays["validation"][0][:] = 255
    arrays["test"][0][:] = 0
    data = Dataset(write_dataset(tmp_path / "dataset", arrays, ["rows", "columns", "rings"]))
    found = inputs.network(encoder("conv", normalization="statistics"), data).args[-1]
    seen = np.concatenate([arrays["unlabelled"][0], arrays["train"][0]])
    assert found == pixel_statistics([seen])
    assert inputs.network(encoder("conv", normalization="symmetric"), data).args[-1] is None


def test_the_pretrained_encoder_carries_the_statistics(tracking_uri, tmp_path):
    folder = make_dataset(tmp_path / "dataset", name="normalised", unlabelled=20)
    options = (
        "encoder.width=8", "encoder.normalization=statistics", "method.projection.hidden=8",
        "method.projection.width=8", "runtime.batch_size=16", "runtime.epochs=0",
    )  # fmt: skip
    params = select(compose_params(["encoder=conv", *options])[0], "pretrain")
    pretrain(folder, tmp_path / "encoder", params, 0, tmp_path / "states")
    deployed = keras.saving.load_model(tmp_path / "encoder" / "encoder.keras")
    data = Dataset(folder)
    images = np.asarray(data.images("validation"))
    mean, variance = pixel_statistics([data.images("unlabelled"), data.images("train")])
    plain = network("conv", 32, width=8)
    plain.set_weights(deployed.get_weights())
    pixels = (images / 255 - mean) / np.sqrt(variance)
    expected = np.asarray(plain(pixels.astype("float32")))
    assert expected.std() > 0
    np.testing.assert_allclose(predict(deployed, images), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("normalization", ["symmetric", "statistics"])
def test_a_classifier_starts_from_the_pretrained_encoder_and_is_deployed_with_its_normalisation(normalization):
    arrays = make_arrays({"train": 12, "validation": 6}, classes=3)
    build = partial(network, "conv", 32, STATISTICS, width=8, normalization=normalization)
    pretrained = build()
    how = recipe(augmentation(), epochs=1, batch_size=6, weight_decay=0.0)
    head = ClassifierHead(hidden=0, dropout=0.0)
    trainer = SupervisedTrainer(how.augmentation, how.optimizer, head, build, 3, "float32")
    images = arrays["validation"][0]
    features = np.asarray(pretrained(images.astype("float32") / 255))
    trainer.fit(replace(how, learning_rate=1e-30), 0, arrays["train"], pretrained.get_weights())
    np.testing.assert_allclose(np.asarray(trainer.model.encoder(images / 255)), features, rtol=1e-4, atol=1e-5)
    trainer.fit(how, 0, arrays["train"], pretrained.get_weights())
    logits = np.asarray(trainer.model(images))
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = odds / odds.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(predict(trainer.deployable(), images), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 4])
def test_the_statistics_are_those_of_each_channel(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 7, channels), np.uint8)
    pixels[..., -1] //= 2
    found = pixel_statistics([pixels[:2], pixels[2:]])
    np.testing.assert_allclose(found.mean, pixels.mean(axis=(0, 1, 2)) / 255)
    np.testing.assert_allclose(found.variance, pixels.var(axis=(0, 1, 2)) / 255**2)
