from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from models.kernels import fuse
from models.training import precision
from tests.helpers.repository import on_jax

tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow" or bool(tf.config.list_physical_devices("GPU")),
    reason="other backends and graphics cards keep Keras's own layers",
)
IMAGES = np.random.default_rng(0).normal(1.5, 2.0, (6, 5, 4, 3)).astype("float32")


def network(dtype: str = "float32", trainable: bool = True) -> keras.Model:
    """The same weights each time: scale, shift and moving statistics that are not those of a fresh layer."""
    keras.utils.set_random_seed(1)
    with precision(dtype):
        made = keras.Sequential(
            [
                keras.Input(IMAGES.shape[1:]),
                keras.layers.BatchNormalization(
                    momentum=0.7, epsilon=1e-2, beta_initializer="normal", gamma_initializer="uniform"
                ),
                keras.layers.Activation("gelu"),
            ]
        )
    made.trainable = trainable
    return made


def trained(model: keras.Model) -> tuple[np.ndarray, ...]:
    """Outputs in training, gradients of the images and of all weights, and the moving statistics afterwards."""
    images = tf.constant(IMAGES)
    # unequal, so that no gradient vanishes by symmetry
    upstream = tf.constant(np.random.default_rng(1).normal(size=IMAGES.shape).astype("float32"))
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = tf.cast(model(images, training=True), "float32")
        total = tf.reduce_sum(outputs * upstream)
    weights = [weight.value for weight in model.trainable_weights]
    gradients = tape.gradient(total, [images, *weights])
    return tuple(np.asarray(each) for each in (outputs, *gradients, *model.non_trainable_weights))


def test_fused_layers_compute_what_keras_does():
    plain, fused = network(), network()
    fuse(fused)
    for expected, found in zip(trained(plain), trained(fused), strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)
    # it was another computation
    assert fused.layers[0].call.__func__ is not type(fused.layers[0]).call


def test_in_half_precision_they_differ_from_full_by_no_more_than_keras_does():
    exact = trained(network())
    plain, fused = network("bfloat16"), network("bfloat16")
    fuse(fused)
    for right, expected, found in zip(exact, trained(plain), trained(fused), strict=True):
        # a bfloat16 has 8 bits
        scale = np.abs(right).max()
        assert np.abs(found - right).max() <= max(1.5 * np.abs(expected - right).max(), scale / 256)


def test_frozen_layers_and_plain_calls_use_the_moving_statistics_and_leave_them():
    for training, trainable in ((False, True), (True, False)):
        plain, fused = network(trainable=trainable), network(trainable=trainable)
        fuse(fused)
        expected, found = (np.asarray(model(IMAGES, training=training)) for model in (plain, fused))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        for one, other in zip(plain.weights, fused.weights, strict=True):
            np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_a_copy_from_the_configuration_has_keras_s_own_layers_and_the_same_answers(tmp_path):
    fused = network()
    fuse(fused)
    assert [type(layer) for layer in fused.layers] == [keras.layers.BatchNormalization, keras.layers.Activation]
    assert fused.layers[1].get_config()["activation"] == "gelu"
    fused.save(tmp_path / "fused.keras")
    for copy in (keras.models.clone_model(fused), keras.saving.load_model(tmp_path / "fused.keras")):
        assert not any("call" in vars(layer) for layer in copy.layers)
        copy.set_weights(fused.get_weights())
        np.testing.assert_allclose(np.asarray(copy(IMAGES)), np.asarray(fused(IMAGES)), rtol=1e-5, atol=1e-6)


def test_networks_within_networks_are_reached_and_what_the_kernel_does_not_know_is_left():
    inner = network()
    images = keras.Input(IMAGES.shape[1:])
    flat = keras.layers.BatchNormalization()
    outer = keras.Model(images, flat(keras.layers.GlobalAveragePooling2D()(inner(images))))
    fuse(outer)
    assert all("call" in vars(layer) for layer in inner.layers)
    assert "call" not in vars(flat)


def test_far_from_zero_gelu_and_its_gradient_are_still_right():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Activation("gelu")])
    fuse(model)
    points = tf.constant([[-40.0, -6.0, -1.0], [0.0, 3.0, 40.0]])
    with tf.GradientTape() as tape:
        tape.watch(points)
        outputs = model(points)
    scipy = pytest.importorskip("scipy.stats")
    exact, density = scipy.norm.cdf(points), scipy.norm.pdf(points)
    np.testing.assert_allclose(outputs, points * exact, atol=1e-6)
    np.testing.assert_allclose(tape.gradient(outputs, points), exact + points * density, atol=1e-6)


def test_on_jax_convolutions_and_poolings_compute_what_keras_does(tmp_path):
    pytest.importorskip("jax")
    script = Path(__file__).parents[1] / "helpers" / "kernels_on_jax.py"
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=300,
        env=on_jax(tmp_path / "compiled", devices=1),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["compared", "14"]
