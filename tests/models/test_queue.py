"""The queue: first in, first out, of fixed size, unit length, and changed by nothing else."""

from __future__ import annotations

from collections import deque

import keras
import numpy as np
import pytest
import tensorflow as tf

from models import optimizers
from models.queue import Queue
from tests.helpers.options import optimizer as options


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def random(n, width=4, seed=0):
    return np.random.default_rng(seed).normal(size=(n, width)).astype("float32")


def held(queue):
    """Its rows, the oldest first."""
    return np.roll(queue.rows.numpy(), -int(queue.next), axis=0)


@pytest.mark.parametrize(
    "sizes", [[4, 4, 4], [3, 3, 3, 3], [5, 1, 7, 2, 7], [7, 7], [6, 6, 6], [20, 3], [3, 20, 1, 15]]
)
def test_first_in_first_out(sizes):
    queue = Queue(7, 4, seed=1)
    expected = deque(queue.rows.numpy(), maxlen=7)
    for seed, n in enumerate(sizes):
        new = random(n, seed=seed)
        queue.enqueue(new)
        expected.extend(unit(new))
        np.testing.assert_allclose(held(queue), np.stack(expected), atol=1e-6)


def test_rows_stay_in_their_places_until_they_are_the_oldest():
    queue, new = Queue(5, 4), random(3)
    before = queue.rows.numpy()
    queue.enqueue(new)
    np.testing.assert_allclose(queue.rows.numpy()[:3], unit(new), atol=1e-6)
    np.testing.assert_array_equal(queue.rows.numpy()[3:], before[3:])
    assert int(queue.next) == 3
    queue.enqueue(-new)
    # over the end to the beginning
    np.testing.assert_allclose(queue.rows.numpy()[[3, 4, 0]], unit(-new), atol=1e-6)
    np.testing.assert_allclose(queue.rows.numpy()[[1, 2]], unit(new)[1:], atol=1e-6)
    assert int(queue.next) == 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_rows_have_unit_length_whatever_comes_in(scale, dtype):
    queue = Queue(6, 4)
    np.testing.assert_allclose(np.linalg.norm(queue.rows, axis=1), 1, atol=1e-6)
    queue.enqueue(tf.cast(random(4) * np.float32(scale), dtype))
    assert queue.rows.dtype == "float32"
    np.testing.assert_allclose(np.linalg.norm(queue.rows, axis=1), 1, atol=1e-6)


def test_it_starts_with_different_directions_that_the_seed_decides():
    rows = Queue(50, 8, seed=3).rows.numpy()
    np.testing.assert_array_equal(rows, Queue(50, 8, seed=3).rows.numpy())
    assert np.abs(rows - Queue(50, 8, seed=4).rows.numpy()).max() > 0.1
    # no direction is favoured, and no two are the same
    assert np.linalg.norm(rows.mean(axis=0)) < 0.4
    assert (rows @ rows.T - 2 * np.eye(50)).max() < 0.999


def test_the_nearest_row_is_that_of_the_highest_cosine():
    queue, queries = Queue(40, 4), random(25, seed=2)
    queue.enqueue(random(33, seed=5))
    rows = queue.rows.numpy()
    expected = [max(rows, key=lambda row: row @ query / np.linalg.norm(query)) for query in queries]
    np.testing.assert_array_equal(queue.nearest(queries), np.stack(expected))
    np.testing.assert_array_equal(queue.nearest(queries * 1e5), np.stack(expected))


def test_no_gradient_flows_through_a_neighbour_or_into_what_was_queued():
    queue, z = Queue(6, 4), tf.constant(random(3))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([z, queue.rows.value])
        nearest = tf.reduce_sum(queue.nearest(z))
        queue.enqueue(z)
        queued = tf.reduce_sum(queue.rows.value)
    assert tape.gradient(nearest, [z, queue.rows.value]) == [None, None]
    assert tape.gradient(queued, z) is None


def test_it_works_in_a_compiled_step_with_batches_of_any_size():
    queue, plain = Queue(7, 4), Queue(7, 4)

    @tf.function(input_signature=[tf.TensorSpec((None, 4), "float32")])
    def step(rows):
        queue.enqueue(rows)
        return queue.nearest(rows)

    for seed, n in enumerate([3, 9, 5]):
        nearest = step(random(n, seed=seed))
        plain.enqueue(random(n, seed=seed))
        assert nearest.shape == (n, 4)
    np.testing.assert_allclose(queue.rows, plain.rows, atol=1e-6)
    assert int(queue.next) == int(plain.next) == (3 + 7 + 5) % 7


class Owner(keras.Model):
    """A model with a queue beside something to train."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(4)
        self.queue = Queue(7, 4)

    def call(self, inputs, training=False):
        outputs = self.dense(inputs)
        if training:
            self.queue.enqueue(outputs)
        return outputs


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "lars"])
def test_no_optimiser_changes_it(name):
    model = Owner()
    model(random(5, 3))
    optimizer = optimizers.build(options(name, 0.1, weight_decay=0.1 * (name != "adam"), schedule="constant"), 1, 1)
    optimizer.build(model.trainable_variables)
    before = queue_of(model)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(random(5, 3)) @ tf.transpose(model.queue.rows.value))
    values = [v.value for v in model.trainable_variables]
    assert len(values) == 2
    optimizer.apply(tape.gradient(loss, values), model.trainable_variables)
    for one, other in zip(queue_of(model), before, strict=True):
        np.testing.assert_array_equal(one, other)


def queue_of(model):
    return [v.numpy() for v in model.queue.variables]


def test_it_is_saved_and_restored_with_the_model(tmp_path):
    model, other = Owner(), Owner()
    for seed in range(3):
        model(random(5, 3, seed), training=True)
    other(random(5, 3), training=True)
    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    assert int(other.queue.next) == 15 % 7
    np.testing.assert_array_equal(other.queue.rows, model.queue.rows)
    for each in (model, other):
        each(random(4, 3, 9), training=True)
    np.testing.assert_array_equal(other.queue.rows, model.queue.rows)
