"""The fast encoder: its size and shape at several sizes of image, and that few steps of it learn."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from models.encoders.shared.normalization import pixel_statistics
from tests.helpers.options import network


def images(n, size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [9, 32, 96])
def test_it_has_as_many_weights_at_any_size(size):
    encoder = network("fast", size, pixel_statistics([images(8, size)]))
    assert encoder.output_shape == (None, 144)
    assert encoder.count_params() == 448_248


def test_images_that_are_too_small_to_pool_are_refused():
    with pytest.raises(ValueError, match="at least 9 pixels, not 8"):
        network("fast", 8, pixel_statistics([images(8, 8)]))


def test_a_few_steps_tell_dark_images_from_bright_ones():
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 64)
    pixels = np.clip(images(64, 16) * 0.3 + labels[:, None, None, None] * 120, 0, 255).astype("float32") / 255
    encoder = network("fast", 16, pixel_statistics([(pixels * 255).astype("uint8")]), width=8)
    model = keras.Sequential([encoder, keras.layers.Dense(2)])
    model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    first = model.evaluate(pixels, labels, verbose=0)
    model.fit(pixels, labels, batch_size=16, epochs=10, shuffle=False, verbose=0)
    assert model.evaluate(pixels, labels, verbose=0) < first / 4
