"""The temperature: a number, or a weight that is trained and kept from falling to 0."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from models import optimizers
from models.losses import nt_xent
from models.temperature import LOWEST, Temperature
from tests.helpers.options import optimizer as options


def push(temperature, optimizer, direction, steps):
    """Train it to rise (1) or to fall (−1); its values after each step."""
    values = []
    for _ in range(steps):
        with tf.GradientTape() as tape:
            loss = -direction * temperature.value()
        gradients = tape.gradient(loss, [v.value for v in temperature.trainable_variables])
        optimizer.apply(gradients, temperature.trainable_variables)
        values.append(float(temperature.value()))
    return values


@pytest.mark.parametrize("initial", [0.02, 0.07, 0.1, 0.5, 2.0])
def test_it_is_its_initial_value_at_first(initial):
    assert Temperature(initial).value() == initial
    assert float(Temperature(initial, learnable=True).value()) == pytest.approx(initial, rel=1e-6)


def test_a_fixed_one_has_no_weight():
    assert Temperature(0.1).variables == []


def test_a_learned_one_is_a_single_trained_number_in_full_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        temperature = Temperature(0.1, learnable=True)
    finally:
        keras.config.set_dtype_policy(before)
    (variable,) = temperature.trainable_variables
    assert (variable.shape, variable.dtype) == ((), "float32")
    assert temperature.value().dtype == "float32"


def test_it_moves_along_the_gradient_of_a_loss():
    # all views alike: a higher temperature changes nothing; far apart: a higher one makes the loss less wrong
    z1 = np.eye(4, dtype="float32")
    temperature = Temperature(0.1, learnable=True)
    with tf.GradientTape() as tape:
        loss = nt_xent(z1, z1[::-1].copy(), temperature.value())
    (gradient,) = tape.gradient(loss, [temperature.logarithm.value])
    keras.optimizers.SGD(0.01).apply([gradient], temperature.trainable_variables)
    assert float(temperature.value()) > 0.101
    assert float(nt_xent(z1, z1[::-1].copy(), temperature.value())) < float(loss)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "lars"])
def test_it_never_falls_below_its_bound_and_comes_back_from_there(name):
    temperature = Temperature(0.02, learnable=True)
    rate = 0.1 if name in ("adam", "adamw") else 20.0
    decay = 0.0 if name == "adam" else 0.1
    optimizer = optimizers.build(options(name, rate, weight_decay=decay, momentum=0.0, schedule="constant"), 1, 1)
    optimizers.exclude_vectors(optimizer, temperature.trainable_variables)
    falling = push(temperature, optimizer, -1, 12)
    assert min(falling) >= LOWEST
    assert falling[-1] == pytest.approx(LOWEST, rel=1e-4)
    rising = push(temperature, optimizer, 1, 60)
    assert max(rising) > 2 * LOWEST


def test_weight_decay_leaves_it_alone():
    temperature = Temperature(0.1, learnable=True)
    optimizer = optimizers.build(options("sgd", 0.1, weight_decay=0.5, schedule="constant"), 1, 1)
    optimizers.exclude_vectors(optimizer, temperature.trainable_variables)
    optimizer.apply([tf.zeros(())], temperature.trainable_variables)
    assert float(temperature.value()) == pytest.approx(0.1, rel=1e-6)


def test_a_learned_one_does_not_start_below_its_bound():
    assert Temperature(0.005).value() == 0.005
    with pytest.raises(ValueError, match=r"temperature = 0\.005: must be ≥ 0\.01 where it is learned"):
        Temperature(0.005, learnable=True)
