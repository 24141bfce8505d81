"""Pieces that pretraining and supervised training share: precision, compilation, learning rates, restarts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import keras
import numpy as np

from models.batches import Batches

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Build layers in this block for `float32` or `bfloat16` (weights stay float32).

    float16 is not offered: at low temperatures the contrastive softmax overflows in it.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(POLICIES[name])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def jit() -> bool | str:
    """What to pass as `jit_compile`: on a processor TensorFlow is faster without XLA, 750 against 690 images/s."""
    if keras.backend.backend() == "tensorflow" and not keras.distribution.list_devices("gpu"):
        return False
    return "auto"


def devices() -> int:
    """On how many devices a batch is shared out; `keras.distribution` decides."""
    distribution = keras.distribution.distribution()
    return 1 if distribution is None else int(distribution.device_mesh.devices.size)


def process_shard() -> tuple[int, int]:
    """Which part of each batch this process reads, from 0, and how many processes there are."""
    distribution = keras.distribution.distribution()
    return (0, 1) if distribution is None else (distribution.data_shard_id, distribution.num_processes)


def validation_batch(most: int = 512) -> int:
    """Images of a validation step: the largest number up to `most` that the devices can share out equally."""
    return max(1, most // devices()) * devices()


def class_weights(labels: np.ndarray, classes: int, rule: str | None) -> np.ndarray:
    """What the loss of an image of each class counts: float32, shape (classes,).

    Args:
        labels: of the training images, int64, shape (N,), in [0, classes).
        classes: number of classes.
        rule: `balanced`, by which each class that is there counts as much as any other, and an image 1 on average:
            N / (classes that are there · images of the class), as in scikit-learn; None: 1 for all.
    """
    if rule is None:
        return np.ones(classes, "float32")
    counts = np.bincount(labels, minlength=classes)
    return (len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))).astype("float32")


def cosine(base: float, done: float) -> float:
    """Learning rate after a fraction `done` of the training: half a cosine from `base` to 0."""
    return base * 0.5 * (1.0 + math.cos(math.pi * min(max(done, 0.0), 1.0)))


def rate_at(done: float, base: float, schedule: str, milestones: Sequence[float]) -> float:
    """Learning rate after a fraction of the training.

    Args:
        done: fraction, from 0 to 1.
        base: the rate at the start; > 0.
        schedule: `constant`; `cosine`, half a cosine from `base` to 0; `steps`, tenfold lower at each milestone.
        milestones: of `steps`: fractions of the training.

    Raises:
        ValueError: the schedule is unknown.
    """
    if schedule == "cosine":
        return cosine(base, done)
    if schedule == "steps":
        return base * 0.1 ** sum(done >= milestone for milestone in milestones)
    if schedule == "constant":
        return base
    raise ValueError(f"schedule must be constant, cosine or steps, not {schedule!r}")


class EpochRate(keras.callbacks.Callback):
    """Set the learning rate of each epoch.

    Args:
        rate: from the fraction of the training done, from 0 to 1, to the learning rate.
        epochs: of the training.
    """

    def __init__(self, rate: Callable[[float], float], epochs: int):
        super().__init__()
        self.rate, self.epochs = rate, epochs

    def on_epoch_begin(self, epoch, logs=None):
        """Called by Keras."""
        self.model.optimizer.learning_rate = self.rate(epoch / self.epochs)


class EpochSeed(keras.callbacks.Callback):
    """Make the order of the images and the augmentation of each epoch depend on the seed and the epoch alone.

    A training that goes on in epoch k then draws the same numbers as one that was never interrupted. Keras must be
    told not to shuffle the batches itself: it draws from Python's global random state.

    Args:
        seed: of the run.
        batches: what the training reads.
    """

    def __init__(self, seed: int, batches: Batches):
        super().__init__()
        self.seed, self.batches = seed, batches

    def on_epoch_begin(self, epoch, logs=None):
        """Called by Keras."""
        self.batches.shuffle(epoch)
        state = np.random.SeedSequence((self.seed, epoch)).generate_state(2, "uint32")
        variable = self.model.seed_generator.state
        variable.assign(state.astype(variable.dtype))


class EpochPace(keras.callbacks.Callback):
    """Put into each epoch's logs what Keras leaves out, `learning_rate` and `images_per_second`.

    The rate is that at the epoch's end. The time is that of the training alone, without validation; that of the
    first epoch has the building of the step in it.

    Args:
        images: that an epoch goes through.
    """

    LOGS = ("learning_rate", "images_per_second")

    def __init__(self, images: int):
        super().__init__()
        self.images = images
        self._start = 0.0
        self._end: float | None = None

    def on_epoch_begin(self, epoch, logs=None):
        """Called by Keras."""
        self._start, self._end = time.perf_counter(), None

    def on_test_begin(self, logs=None):
        """Called by Keras, before the validation at an epoch's end."""
        self._end = time.perf_counter()

    def on_epoch_end(self, epoch, logs):
        """Called by Keras, which hands the same `logs` to the callbacks after this one."""
        seconds = (self._end or time.perf_counter()) - self._start
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        logs.update(zip(self.LOGS, (rate, self.images / seconds), strict=True))


class StopOnNaN(keras.callbacks.Callback):
    """End the training when the loss is no longer a number.

    Raises:
        FloatingPointError: names the epoch; lower the learning rate or raise the temperature.
    """

    def on_epoch_end(self, epoch, logs=None):
        """Called by Keras."""
        for name, value in (logs or {}).items():
            if name.endswith("loss") and not math.isfinite(value):
                raise FloatingPointError(f"{name} is {value} in epoch {epoch + 1}")


def reset(model: keras.Model, weights: list[np.ndarray]) -> None:
    """Put a compiled model back to given weights and a fresh optimiser, without compiling it again."""
    model.set_weights(weights)
    for variable in model.optimizer.variables:
        if variable is not model.optimizer._learning_rate:
            variable.assign(np.zeros(variable.shape, variable.dtype))
