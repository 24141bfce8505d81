"""Every option file of `conf/method/` as a small network on small images, for the tests of the methods."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import keras
import numpy as np
import tensorflow as tf
from pydantic_core import to_jsonable_python

from models import methods
from models.training import precision
from tests.helpers.options import augmentation, checked, method
from tests.helpers.repository import ROOT

FILES = sorted(path.stem for path in (ROOT / "conf" / "method").glob("[!_]*.yaml"))
SIZE, FEATURES, WIDTH, CLASSES, ROWS = 8, 6, 5, 3, 8
# as in conf/method/, but for their size
SMALLER = {
    "projection": {"hidden": 7, "width": WIDTH},
    "prediction": {"hidden": 4, "width": WIDTH},
    "queue_size": 20,
    "prototypes": 9,
}
# enough to tell two views apart
CROPPED = augmentation(crop_area=(0.3, 1.0))


@cache
def composed(file):
    """The options of a file."""
    return method(file)


def options(file, **changes):
    """The plain options of a file, smaller; `changes` replace some of them."""
    found = to_jsonable_python(composed(file))
    for name, value in SMALLER.items():
        if name in found:
            found[name] = {**found[name], **value} if isinstance(value, dict) else value
    return {**found, **changes}


def tiny_encoder(normalized=True):
    """A convolution with batch normalisation and a dense layer: all that an encoder may consist of."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            layers.Conv2D(4, 3, strides=2, use_bias=False),
            *([layers.BatchNormalization(momentum=0.9)] if normalized else []),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(FEATURES, activation="swish"),
        ],
        name="tiny",
    )


def build(file, seed=0, steps=4, dtype="float32", policy=CROPPED, sub_batches=1, normalized=True, **changes):
    """A method from an option file around the tiny encoder; `changes` are of its options."""
    keras.utils.set_random_seed(seed)
    chosen = options(file, **changes)
    with precision(dtype):
        encoder = tiny_encoder(normalized)
        return methods.build(encoder, as_options(chosen, policy), CLASSES, seed, steps, sub_batches)


def as_options(chosen, policy):
    """Plain options, checked, with another augmentation."""
    return replace(checked(methods.options_type(chosen["name"]), chosen), augmentation=policy)


def batch(seed=0, rows=ROWS):
    """Random uint8 images and labels, one in four −1."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(rows) % (CLASSES + 1)) - 1
    return rng.integers(0, 256, (rows, SIZE, SIZE, 3)).astype("uint8"), labels.astype("int64")


def step(model, images, labels):
    """Outputs, total loss, and the gradient of each trained variable by its path; None where there is none."""
    model.reset_metrics()
    with tf.GradientTape() as tape:
        outputs = model(tf.constant(images), training=True)
        loss = model.compute_loss(x=images, y=tf.constant(labels), y_pred=outputs)
    variables = model.trainable_variables
    found = tape.gradient(loss, [v.value for v in variables])
    gradients = {v.path: None if g is None else np.asarray(g) for v, g in zip(variables, found, strict=True)}
    return outputs, float(loss), gradients


def contrastive_loss(model):
    """The contrastive part of the loss since the metrics were reset."""
    return float(model.get_metrics_result()["contrastive_loss"])


def assert_equal(found, expected):
    """Two lists of arrays, bit by bit."""
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
