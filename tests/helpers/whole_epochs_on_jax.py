"""Train methods by whole epochs and step by step: `KERAS_BACKEND=jax python whole_epochs_on_jax.py METHOD …`."""

from __future__ import annotations

import sys

import keras
import numpy as np

from models import batches as feeding
from models import methods, optimizers
from models.batches import Batches, feed
from models.training import EpochSeed, StopOnNaN, jit
from models.whole_epochs import WholeEpochs
from tests.helpers.options import augmentation, method
from tests.helpers.options import optimizer as optimizer_options

EPOCHS, STEPS, BATCH = 2, 3, 8
rng = np.random.default_rng(0)
PARTS = [
    (rng.integers(0, 256, (rows, 8, 8, 3), "uint8"), labels)
    for rows, labels in ((20, np.full(20, -1)), (6, np.arange(6) % 3))
]


def prepare(name):
    """The method around a small network with batch normalisation."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    images = keras.Input((8, 8, 3))
    encoder = keras.Sequential(
        [images, layers.Conv2D(4, 3), layers.BatchNormalization(), layers.Flatten(), layers.Dense(6)]
    )
    options = method(name, augmentation(crop_area=(0.3, 1.0)))
    model = methods.build(encoder, options, 3, 0, EPOCHS * STEPS)
    optimizer = optimizers.build(optimizer_options("sgd", 0.01), EPOCHS, STEPS)
    optimizers.exclude_vectors(optimizer, model.trainable_variables)
    model.compile(optimizer=optimizer, jit_compile=jit())
    optimizer.build(model.trainable_variables)
    return model


def train(model, whole, first=0, last=EPOCHS):
    """The losses of some epochs."""
    feeding.fits_on_card = lambda batches: whole
    batches = Batches(PARTS, BATCH, 0)
    fed = feed(batches, whole_epochs=True)
    assert isinstance(fed["x"], WholeEpochs) == whole
    found = model.fit(
        **fed, initial_epoch=first, epochs=last, verbose=0,
        validation_data=PARTS[1], callbacks=[EpochSeed(0, batches), StopOnNaN()],
    )  # fmt: skip
    return found.history


def state(model):
    """All numbers that a training changes."""
    return {index: np.asarray(v) for index, v in enumerate([*model.variables, *model.optimizer.variables])}


def assert_same(found, expected, rtol=0.0, atol=0.0):
    """By name or place; bit by bit unless a tolerance is given."""
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=rtol, atol=atol, err_msg=str(name))


for name in sys.argv[1:]:
    plain, whole = prepare(name), prepare(name)
    curves = [train(model, by_epoch) for model, by_epoch in ((plain, False), (whole, True))]
    assert int(whole.step) == int(whole.optimizer.iterations) == EPOCHS * STEPS
    assert_same(curves[1], curves[0], rtol=1e-3, atol=1e-4)
    assert_same(state(whole), state(plain), rtol=1e-3, atol=1e-4)
    # again, but ended after an epoch and gone on from there in another model
    first, second = prepare(name), prepare(name)
    train(first, True, last=1)
    for variable, other in zip(
        [*second.variables, *second.optimizer.variables],
        [*first.variables, *first.optimizer.variables],
        strict=True,
    ):
        variable.assign(other)
    train(second, True, first=1)
    assert_same(state(second), state(whole))
    print(name)
