"""A batch in sub-batches: the whole batch's gradient in every method, on TensorFlow and on JAX."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest

from models.sub_batches import in_sub_batches
from tests.helpers.method_cases import FILES, build, tiny_encoder
from tests.helpers.repository import ROOT, on_jax
from tests.helpers.sub_batch_numbers import assert_alike, trained

IMAGES = np.random.default_rng(0).uniform(size=(12, 8, 8, 3)).astype("float32")


@pytest.mark.parametrize("file", FILES)
def test_a_method_trains_in_sub_batches_as_on_the_whole_batch(file):
    assert_alike(trained(file, 4, normalized=False), trained(file, 1, normalized=False))


# a momentum network and a queue are between them
@pytest.mark.parametrize("file", ["moco", "nnclr"])
def test_a_compiled_step_does_so_too(file):
    found, whole = (trained(file, count, eagerly=False, normalized=False) for count in (2, 1))
    assert_alike(found, whole)


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "compared"), [(1, len(FILES)), (2, 1)])
def test_on_jax_every_method_does_so_and_one_on_several_devices(devices, compared, tmp_path):
    pytest.importorskip("jax")
    command = [sys.executable, ROOT / "tests" / "helpers" / "sub_batch_numbers.py"]
    if devices > 1:
        command.append(str(devices))
    environment = on_jax(tmp_path / "compiled", devices)
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["compared", str(compared)]


@pytest.mark.parametrize("file", ["simclr", "byol"])
def test_half_precision_computes_in_sub_batches(file):
    found = trained(file, 2, dtype="bfloat16")
    assert all(np.isfinite(array).all() and array.dtype != "bfloat16" for array in found.values())


def test_all_views_of_an_image_are_in_one_part_and_rows_keep_their_order():
    seen = []

    class Noting(keras.layers.Layer):
        def call(self, rows):
            seen.append(keras.ops.convert_to_numpy(rows).ravel().tolist())
            return rows

    network = keras.Sequential([keras.Input((1,)), Noting()])
    seen.clear()
    # two views of six images: 0 to 5, and 10 to 15
    rows = np.array([*range(6), *range(10, 16)], "float32")[:, None]
    np.testing.assert_array_equal(in_sub_batches(network, rows, 3), rows)
    # the first one is looked at for its shape too
    assert seen[-3:] == [[0, 3, 10, 13], [1, 4, 11, 14], [2, 5, 12, 15]]


def test_batch_normalisation_sees_sub_batches_and_its_moving_statistics_take_one_step():
    network, whole = tiny_encoder(), tiny_encoder()
    whole.set_weights(network.get_weights())
    features = np.asarray(in_sub_batches(network, IMAGES, 3))
    parts = [np.asarray(whole(IMAGES[start::3], training=True)) for start in range(3)]
    for start, part in enumerate(parts):
        np.testing.assert_allclose(features[start::3], part, rtol=1e-4, atol=1e-6)
    mean = np.asarray(network.layers[0](IMAGES)).mean(axis=(0, 1, 2))
    # momentum 0.9, from 0
    np.testing.assert_allclose(network.layers[1].moving_mean, 0.1 * mean, rtol=1e-4, atol=1e-6)
    assert 0.9 < np.asarray(network.layers[1].moving_variance).min() < 0.95


def test_a_momentum_copys_statistics_take_one_step_and_its_weights_none():
    model = build("byol", sub_batches=4)
    model.momentum = type(model.momentum)(start=1.0, end=1.0)
    before = {v.path: v.numpy() for v in model.target_encoder.variables}
    model(np.zeros((8, 8, 8, 3), "uint8"), training=True)
    changed = {path for v in model.target_encoder.variables if (v.numpy() != before[path := v.path]).any()}
    assert {path.split("/")[-1] for path in changed} <= {"moving_mean", "moving_variance"} and changed
