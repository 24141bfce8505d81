"""The momentum encoder: a copy that follows by its formula, with batch normalisation of its own."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.encoders.shared.normalization import normalized
from models.heads import head
from models.momentum import ema_copy, ema_update, momentum_at
from models.training import precision
from tests.helpers.method_cases import FILES, assert_equal, batch, build, options, step, tiny_encoder
from tests.helpers.options import head as head_options

MOMENTUM = [file for file in FILES if "momentum" in options(file)]


def images(n=8, seed=0):
    return np.random.default_rng(seed).random((n, 8, 8, 3), dtype="float32")


def move(network, seed):
    """Change every weight, as training would."""
    rng = np.random.default_rng(seed)
    for variable in network.variables:
        variable.assign_add(rng.normal(0, 0.1, variable.shape).astype("float32"))


def numbers(network):
    return [v.numpy() for v in network.variables]


NETWORKS = {
    "encoder": tiny_encoder,
    "normalised encoder": lambda: normalized(tiny_encoder(), "symmetric", None),
    "head": lambda: head("head", 6, head_options(hidden=5, width=4, layers=3, batch_norm=True, output_norm=True)),
}


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_it_starts_as_an_equal_network_with_weights_of_its_own(make):
    network = make()
    move(network, 0)
    copy = ema_copy(network)
    assert_equal(numbers(copy), numbers(network))
    inputs = np.random.default_rng(0).random((8, *network.input_shape[1:]), dtype="float32")
    assert_equal([copy(inputs, training=True)], [network(inputs, training=True)])
    before = numbers(copy)
    move(network, 1)
    assert_equal(numbers(copy), before)


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.99, 1.0])
def test_it_follows_by_its_formula_and_keeps_its_running_statistics(make, momentum):
    network = make()
    copy = ema_copy(network)
    expected = numbers(copy)
    m, rest = np.float32(momentum), np.float32(1.0 - momentum)
    for seed in range(4):
        move(network, seed)
        ema_update(copy, network, momentum)
        for index, variable in enumerate(network.variables):
            if "moving" not in variable.path:
                expected[index] = m * expected[index] + rest * variable.numpy()
        for own, value in zip(copy.variables, expected, strict=True):
            np.testing.assert_allclose(own.numpy(), value, rtol=1e-6, atol=1e-7, err_msg=own.path)
    statistics = [v for v in copy.variables if "moving" in v.path]
    assert len(statistics) in (2, 6)
    for variable in statistics:
        np.testing.assert_array_equal(variable.numpy(), np.full(variable.shape, "variance" in variable.path))


def test_nothing_of_it_is_trained_but_it_normalises_by_the_batch():
    copy = ema_copy(tiny_encoder())
    assert copy.trainable_variables == []
    first = copy(images(), training=True)
    norm = next(layer for layer in copy.layers if isinstance(layer, keras.layers.BatchNormalization))
    means = norm.moving_mean.numpy()
    convolved = copy.layers[0](images())
    # momentum 0.9, from 0
    np.testing.assert_allclose(means, 0.1 * np.mean(convolved, axis=(0, 1, 2)), rtol=1e-4, atol=1e-6)
    # with the running statistics the answer would be another one
    assert np.abs(first - copy(images(), training=False)).max() > 1e-3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("file", MOMENTUM)
def test_in_training_each_network_has_running_statistics_of_its_own(file, dtype):
    model = build(file, dtype=dtype)
    move(model.target_encoder, 0)
    pairs = [(model.target_encoder, model.encoder), (model.target_head, model.projection_head)]
    before = [numbers(copy) for copy, _ in pairs]
    step(model, *batch())
    moving = 0
    for (copy, network), old in zip(pairs, before, strict=True):
        for own, other, value in zip(copy.variables, network.variables, old, strict=True):
            if "moving" in own.path:
                moving += 1
                assert np.abs(own.numpy() - value).max() > 1e-4, own.path
                assert np.abs(own.numpy() - other.numpy()).max() > 1e-4, own.path
    assert moving >= 2


@pytest.mark.parametrize("file", MOMENTUM)
def test_under_half_precision_it_follows_in_full(file):
    model = build(file, dtype="bfloat16", momentum={"start": 0.999, "end": 0.999})
    assert model.target_encoder.layers[0].compute_dtype == "bfloat16"
    copy, network = model.target_encoder, model.encoder
    move(network, 1)
    expected = numbers(copy)
    for _ in range(2):
        step(model, *batch())
        for index, other in enumerate(network.variables):
            if other.trainable:
                expected[index] = np.float32(0.999) * expected[index] + np.float32(0.001) * other.numpy()
    for own, other, value in zip(copy.variables, network.variables, expected, strict=True):
        assert own.dtype == "float32"
        if other.trainable:
            # bfloat16 would round to 4e-3 of the value, which is more than the step
            np.testing.assert_allclose(own.numpy(), value, rtol=2e-6, atol=1e-7, err_msg=own.path)


@pytest.mark.parametrize("file", MOMENTUM)
def test_its_weights_are_in_no_optimiser(file):
    model = build(file)
    optimizer = keras.optimizers.Adam(0.1)
    optimizer.build(model.trainable_variables)
    targets = [*model.target_encoder.variables, *model.target_head.variables]
    trained = {id(v) for v in optimizer._trainable_variables}
    assert trained == {id(v) for v in model.trainable_variables}
    assert not trained & {id(v) for v in targets}
    # and training does not make them trainable
    model(batch()[0], training=True)
    assert not {id(v) for v in model.trainable_variables} & {id(v) for v in targets}


@pytest.mark.parametrize(("start", "end"), [(0.9, 1.0), (0.99, 0.99), (0.0, 1.0), (1.0, 0.5)])
def test_the_momentum_goes_along_half_a_cosine(start, end):
    done = np.linspace(0, 1, 9, dtype="float32")
    found = np.array([momentum_at(tf.constant(d), start, end) for d in done])
    expected = end - (end - start) * (np.cos(np.pi * done.astype(float)) + 1) / 2
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found[0] == pytest.approx(start, abs=1e-6)
    assert found[-1] == pytest.approx(end, abs=1e-6)
    assert found[4] == pytest.approx((start + end) / 2, abs=1e-6)


def test_the_schedule_spans_the_training_and_stays_at_its_end():
    model = build("byol", steps=3)
    found = []
    for _ in range(5):
        found.append(float(model.done))
        model(batch()[0], training=True)
    assert found == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])


def test_with_momentum_1_the_copy_stays_where_it_is():
    model = build("byol", momentum={"start": 1.0, "end": 1.0})
    before = [v.numpy() for v in model.target_head.variables if "moving" not in v.path]
    move(model.projection_head, 0)
    step(model, *batch())
    assert_equal([v for v in model.target_head.variables if "moving" not in v.path], before)


def test_a_network_in_half_precision_has_a_copy_in_half_precision():
    with precision("bfloat16"):
        network = tiny_encoder()
    copy = ema_copy(network)
    assert [layer.dtype_policy.name for layer in copy.layers] == ["mixed_bfloat16"] * len(network.layers)
    assert {v.dtype for v in copy.variables} == {"float32"}
    assert copy(images()).dtype == "bfloat16"
