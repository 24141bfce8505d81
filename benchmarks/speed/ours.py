"""The project's own pretraining: the step's model, batches, optimiser and compilation, on random images."""

from __future__ import annotations

import keras
import numpy as np

from benchmarks.speed.turns import serve, work
from components.shared.params.composing import compose_params
from models import encoders, methods, optimizers
from models.augmentation import augment
from models.batches import Batches, feed
from models.encoders.shared.normalization import pixel_statistics
from models.kernels import fuse
from models.training import EpochSeed, StopOnNaN, jit, precision

asked = work()
params, _ = compose_params(asked["overrides"])
size, batch, rows = asked["size"], asked["batch"], asked["rows"]
rng = np.random.default_rng(0)
images = rng.integers(0, 256, (rows, size, size, 3), "uint8")
labels = np.full(rows, -1)
keras.utils.set_random_seed(0)


def augmentation():
    """Two views of each image, and nothing else."""
    seed = keras.random.SeedGenerator(0)
    policy = params.method.augmentation
    # imported here: a pretraining on JAX does without TensorFlow
    from benchmarks.speed.views import over_batches

    return over_batches(lambda data: [augment(data, policy, seed) for _ in range(2)], images, batch)


def pretraining():
    """As `components.shared.training.pretraining` builds and fits it."""
    statistics = pixel_statistics([images]) if params.encoder.normalization == "statistics" else None
    with precision(params.runtime.precision):
        encoder = encoders.build(params.encoder, size, statistics)
        model = methods.build(encoder, params.method, 10, 0, 1000)
    optimizer = optimizers.build(params.method.optimizer, 100, 100)
    optimizers.exclude_vectors(optimizer, model.trainable_variables)
    fuse(model)
    model.compile(optimizer=optimizer, jit_compile=jit())
    model.optimizer.build(model.trainable_variables)

    def train(steps):
        batches = Batches([(images[: steps * batch], labels[: steps * batch])], batch, 0)
        assert len(batches) == steps, "more steps than images were made for"
        model.fit(**feed(batches), verbose=0, callbacks=[EpochSeed(0, batches), StopOnNaN()])

    return train


serve(augmentation() if asked["what"] == "augmentation" else pretraining())
