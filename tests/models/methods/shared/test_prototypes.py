"""Prototypes: cosines with learned directions, which may be held still."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from models.methods.shared.prototypes import prototypes, scores


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(7, 4)).astype("float32"), rng.normal(size=(4, 5)).astype("float32")


def with_kernel(kernel):
    found = prototypes(*kernel.shape)
    found.set_weights([kernel])
    return found


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_scores_are_cosines_whatever_the_lengths(scale):
    z, kernel = arrays()
    expected = (z / np.linalg.norm(z, axis=1, keepdims=True)) @ (kernel / np.linalg.norm(kernel, axis=0))
    lengths = np.array([1, 10, 0.1, 3, 1], "float32")
    found = scores(with_kernel(kernel * lengths * np.float32(scale)), z / np.float32(scale))
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_an_embedding_on_a_prototype_scores_1_and_opposite_to_it_minus_1():
    _, kernel = arrays()
    found = scores(with_kernel(kernel), np.concatenate([3 * kernel.T, -kernel.T])).numpy()
    np.testing.assert_allclose(np.diagonal(found[:5]), 1, atol=1e-6)
    np.testing.assert_allclose(np.diagonal(found[5:]), -1, atol=1e-6)


def test_half_precision_embeddings_are_compared_in_full_precision():
    z, kernel = arrays()
    half = tf.cast(z, "bfloat16")
    found = scores(with_kernel(kernel), half)
    assert found.dtype == "float32"
    np.testing.assert_array_equal(found, scores(with_kernel(kernel), tf.cast(half, "float32")))


@pytest.mark.parametrize("trained", [True, False, tf.constant(True), tf.constant(False)], ids=str)
def test_held_still_they_get_no_gradient_while_the_embeddings_do(trained):
    z, kernel = arrays()
    directions, z = with_kernel(kernel), tf.constant(z)
    with tf.GradientTape() as tape:
        tape.watch(z)
        found = scores(directions, z, trained)
        loss = tf.reduce_sum(found**2)
    of_z, of_kernel = tape.gradient(loss, [z, directions.layers[-1].kernel.value])
    assert np.abs(of_z).max() > 0.1
    assert (of_kernel is not None and np.abs(of_kernel).max() > 0.1) == bool(trained)
    np.testing.assert_array_equal(found, scores(directions, z))


def test_they_are_one_trained_matrix_in_full_precision():
    (kernel,) = prototypes(4, 5).trainable_variables
    assert (tuple(kernel.shape), kernel.dtype) == ((4, 5), "float32")
