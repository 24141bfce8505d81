"""Heads: dense layers with ReLU between them, normalised over the batch where it is asked for."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from models.methods.shared.heads import head, up_to_layer
from tests.helpers.options import head as options

FEATURES = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")


def normalised(rows):
    return (rows - rows.mean(axis=0)) / np.sqrt(rows.var(axis=0) + 1e-5)


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


def test_a_plain_head_is_two_dense_layers_with_a_relu_between():
    model = head("h", 6, options(hidden=5, width=4))
    one, b1, two, b2 = model.get_weights()
    assert (one.shape, two.shape) == ((6, 5), (5, 4))
    expected = np.maximum(FEATURES @ one + b1, 0) @ two + b2
    np.testing.assert_allclose(model(FEATURES, training=True), expected, atol=1e-5)
    # negative answers are possible
    assert expected.min() < 0


def test_one_layer_is_a_linear_map():
    model = head("h", 6, options(hidden=5, width=4, layers=1))
    assert kinds(model) == ["Dense"]
    assert model.output_shape == (None, 4)


@pytest.mark.parametrize("layers", [1, 2, 3, 8])
def test_it_has_as_many_dense_layers_as_asked_for(layers):
    model = head("h", 6, options(hidden=5, width=4, layers=layers, batch_norm=True))
    assert kinds(model) == ["Dense", "BatchNormalization", "ReLU"] * (layers - 1) + ["Dense"]
    widths = [layer.units for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    assert widths == [5] * (layers - 1) + [4]


def test_batch_normalisation_comes_before_the_relu_and_takes_the_place_of_the_bias():
    model = head("h", 6, options(hidden=5, width=4, batch_norm=True))
    one, two, bias = (v.numpy() for v in (model.layers[0].kernel, *model.layers[-1].variables))
    assert len(model.trainable_variables) == 1 + 2 + 2
    expected = np.maximum(normalised(FEATURES @ one), 0) @ two + bias
    np.testing.assert_allclose(model(FEATURES, training=True), expected, atol=1e-4)


def test_a_normalised_output_has_mean_0_and_variance_1_and_nothing_learned():
    model = head("h", 6, options(hidden=5, width=4, output_norm=True))
    found = np.asarray(model(FEATURES, training=True))
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(found.var(axis=0), 1, atol=1e-3)
    # a kernel and a bias, and a kernel
    assert [v.path.split("/")[-1] for v in model.trainable_variables] == ["kernel", "bias", "kernel"]


def test_outside_training_it_works_with_the_running_statistics():
    model = head("h", 6, options(hidden=5, width=4, batch_norm=True, output_norm=True))
    for _ in range(200):
        trained = model(FEATURES, training=True)
    np.testing.assert_allclose(model(FEATURES, training=False), trained, atol=0.2)
    # and an image's embedding then does not depend on the others
    np.testing.assert_allclose(model(FEATURES[:3], training=False), model(FEATURES, training=False)[:3], atol=1e-5)


def encoder():
    return keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(6)])


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_the_first_layers_on_an_encoder_do_what_they_do_in_the_whole_head(layers, batch_norm):
    chosen, below = options(hidden=5, width=4, layers=3, batch_norm=batch_norm), encoder()
    whole = head("h", 6, chosen)
    if batch_norm:
        # statistics as a training leaves them
        for layer in (layer for layer in whole.layers if isinstance(layer, keras.layers.BatchNormalization)):
            layer.moving_mean.assign(np.linspace(-1, 1, 5))
            layer.moving_variance.assign(np.linspace(0.5, 2, 5))
    part = up_to_layer(below, chosen, layers)
    ours = whole.layers[: chosen.layers_up_to(layers)]
    kept = [weight for layer in ours for weight in layer.get_weights()]
    assert len(kept) == layers * (5 if batch_norm else 2)
    part.set_weights([*below.get_weights(), *kept])
    images = np.random.default_rng(0).normal(size=(7, 4, 4, 3)).astype("float32")
    expected = below(images)
    for layer in ours:
        expected = layer(expected)
    np.testing.assert_allclose(part(images), expected, atol=1e-6)
    assert part.output_shape == (None, 5) and np.asarray(expected).min() == 0


@pytest.mark.parametrize("layers", [0, 2, 3])
def test_a_head_has_no_more_middle_layers_than_hidden_ones(layers):
    with pytest.raises(ValueError, match=f"layers = {layers}: a head of 2 layers has 1 hidden ones"):
        up_to_layer(encoder(), options(hidden=5, width=4, layers=2), layers)
