"""Residual networks against those of keras.applications, and what freezing means."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tests.helpers.options import network


def layers_of(model, kind):
    return [layer for layer in model.layers if isinstance(layer, kind)]


def shake(model, seed=0):
    """Biases and normalisation that are not at their first values, which hide mistakes."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
        elif isinstance(layer, keras.layers.Conv2D) and layer.use_bias:
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel, rng.uniform(-0.5, 0.5, bias.shape)])


def pixels(size, count=2, seed=0):
    # of different brightness: a deep network at its first weights tells images of mere noise hardly apart
    brightness = np.linspace(0.2, 1, count, dtype="float32").reshape(count, 1, 1, 1)
    return brightness * np.random.default_rng(seed).random((count, size, size, 3), "float32")


def assert_close(found, expected):
    found, expected = np.asarray(found), np.asarray(expected)
    assert np.ptp(expected, axis=0).max() > 1e-3 * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
def test_resnet50v2_with_the_large_stem_is_that_of_keras():
    size = 32
    reference = keras.applications.ResNet50V2(
        include_top=False, weights=None, input_shape=(size, size, 3), pooling="avg"
    )
    model = network("resnet50v2", size, stem="large")
    assert model.count_params() == reference.count_params() == 23_564_800
    assert [w.shape for w in model.trainable_weights] == [w.shape for w in reference.trainable_weights]
    shake(reference)
    model.set_weights(reference.get_weights())
    assert_close(model(pixels(size)), reference(pixels(size)))
    for ours, theirs in zip(
        layers_of(model, keras.layers.BatchNormalization),
        layers_of(reference, keras.layers.BatchNormalization),
        strict=True,
    ):
        assert (ours.momentum, ours.epsilon) == (theirs.momentum, theirs.epsilon)
    # one step of training moves the statistics alike
    model(pixels(size), training=True)
    reference(pixels(size), training=True)
    for one, other in zip(model.get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_resnet50v2_starts_from_the_same_distribution_as_that_of_keras():
    reference = keras.applications.ResNet50V2(include_top=False, weights=None, input_shape=(32, 32, 3))
    model = network("resnet50v2", 32, stem="large")
    for one, other in zip(model.get_weights(), reference.get_weights(), strict=True):
        assert np.std(one) == pytest.approx(np.std(other), rel=0.1)
        assert np.mean(one) == pytest.approx(np.mean(other), abs=0.02)


def stride_in_the_middle(config):
    """keras.applications strides in a block's first 1×1, torchvision (and we) in its 3×3."""
    for layer in config["layers"]:
        block = layer["name"].split("_block1_")[0]
        if "_block1_" in layer["name"] and block != "conv2":
            if layer["name"].endswith("_1_conv"):
                layer["config"]["strides"] = (1, 1)
            elif layer["name"].endswith("_2_conv"):
                layer["config"]["strides"] = (2, 2)
    return config


@pytest.mark.slow
def test_resnet50_is_that_of_keras_with_biases_folded_and_strides_moved():
    # at a size that stays odd, padding of the same width on both sides and Keras's "same" agree
    size = 65
    reference = keras.applications.ResNet50(
        include_top=False, weights=None, input_shape=(size, size, 3), pooling="avg"
    )
    reference = keras.Model.from_config(stride_in_the_middle(reference.get_config()))
    shake(reference)
    model = network("resnet50", size)
    convolutions = [layers_of(net, keras.layers.Conv2D) for net in (model, reference)]
    norms = [layers_of(net, keras.layers.BatchNormalization) for net in (model, reference)]
    assert len(convolutions[0]) == len(norms[0]) == 53
    biases = 0
    for ours, theirs, norm, their_norm in zip(*convolutions, *norms, strict=True):
        kernel, bias = theirs.get_weights()
        assert theirs.name.replace("conv", "") == their_norm.name.replace("bn", "").replace("conv", "")
        ours.set_weights([kernel])
        gamma, beta, mean, variance = their_norm.get_weights()
        # normalisation subtracts a bias again
        norm.set_weights([gamma, beta, mean - bias, variance + their_norm.epsilon - norm.epsilon])
        biases += bias.size
    assert model.count_params() == reference.count_params() - biases
    assert_close(model(pixels(size)), reference(pixels(size)))


@pytest.mark.parametrize(("name", "depths"), [("resnet18", (2, 2, 2, 2)), ("resnet34", (3, 4, 6, 3))])
def test_basic_blocks_are_the_published_ones_layer_by_layer(name, depths):
    # at a size that stays odd, padding of the same width on both sides and Keras's "same" agree
    images = pixels(33)
    model = network(name, 33)
    shake(model)
    norms = {id(norm.input): norm.get_weights() for norm in layers_of(model, keras.layers.BatchNormalization)}
    convolutions = layers_of(model, keras.layers.Conv2D)
    main = iter([layer for layer in convolutions if layer.kernel_size == (3, 3)])
    shortcuts = iter([layer for layer in convolutions if layer.kernel_size == (1, 1)])

    def normalised(x, layer, stride):
        (kernel,) = layer.get_weights()
        border = (kernel.shape[0] // 2,) * 2
        x = keras.ops.conv(np.pad(x, ((0, 0), border, border, (0, 0))), kernel, stride, "valid")
        gamma, beta, mean, variance = norms[id(layer.output)]
        return gamma * (np.asarray(x) - mean) / np.sqrt(variance + 1e-5) + beta

    x = np.maximum(normalised(images, next(main), 1), 0)
    for stage, depth in enumerate(depths):
        for index in range(depth):
            stride = 2 if stage > 0 and index == 0 else 1
            y = normalised(np.maximum(normalised(x, next(main), stride), 0), next(main), 1)
            if stride == 2:
                x = normalised(x, next(shortcuts), 2)
            x = np.maximum(x + y, 0)
    assert next(main, None) is next(shortcuts, None) is None
    assert_close(model(images), x.mean(axis=(1, 2)))


@pytest.mark.parametrize("name", ["resnet18", "resnet50v2"])
def test_a_frozen_encoder_keeps_its_statistics(name):
    encoder = network(name, 16)
    start = [weight.copy() for weight in encoder.get_weights()]
    encoder.trainable = False
    still = np.asarray(encoder(pixels(16, 4), training=False))
    # asked to train, a frozen network answers as in use, and learns nothing
    np.testing.assert_allclose(np.asarray(encoder(pixels(16, 4), training=True)), still, rtol=1e-5, atol=1e-6)
    assert all(np.array_equal(a, b) for a, b in zip(start, encoder.get_weights(), strict=True))
    assert encoder.trainable_weights == []
    encoder.trainable = True
    encoder(pixels(16, 4), training=True)
    changed = [not np.array_equal(a, b) for a, b in zip(start, encoder.get_weights(), strict=True)]
    assert sum(changed) == 2 * len(layers_of(encoder, keras.layers.BatchNormalization))


def test_training_a_head_on_a_frozen_encoder_changes_the_head_alone():
    encoder = network("resnet18", 8, normalization="symmetric")
    encoder.trainable = False
    model = keras.Sequential([encoder, keras.layers.Dense(2)])
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse", jit_compile=False)
    start = [weight.copy() for weight in model.get_weights()]
    model.fit(pixels(8, 8), np.ones((8, 2)), epochs=2, verbose=0)
    changed = [not np.array_equal(a, b) for a, b in zip(start, model.get_weights(), strict=True)]
    assert sum(changed) == 2
    assert changed[-2:] == [True, True]
