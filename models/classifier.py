"""Training a classifier with labels, from random or pretrained weights: the baseline and fine-tuning alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import keras
import numpy as np
from keras import ops

from models import encoders
from models.augmentation import Augmentation, augment, scale
from models.batches import Batches, filled
from models.optimizers import exclude_vectors, require_no_decay
from models.options import options, require_items, within
from models.training import (
    EpochRate,
    EpochSeed,
    StopOnNaN,
    devices,
    jit,
    precision,
    rate_at,
    reset,
    validation_batch,
)


@options
class ClassifierHead:
    """What stands between the features and the classes.

    Args:
        hidden: units of a dense layer with ReLU before the last one; 0 leaves it out.
        dropout: fraction of the features, and of the hidden units, that a training step leaves out.
    """

    hidden: int = within(ge=0)
    dropout: float = within(ge=0, lt=1)


class Classifier(keras.Model):
    """An encoder with a classifier on top, trained on augmented uint8 images; its outputs are logits.

    Args:
        encoder: as from `models.encoders.build`.
        policy: augmentation of the training images.
        head: the layers on top.
        classes: number of classes.
        seed: decides augmentation and dropout.
        frozen: train the head alone: the encoder's weights stay as they are, and its batch normalisation uses its
            moving statistics and leaves them as they are.
    """

    def __init__(
        self,
        encoder: keras.Model,
        policy: Augmentation,
        head: ClassifierHead,
        classes: int,
        seed: int,
        frozen: bool = False,
    ):
        super().__init__()
        self.encoder = encoder
        self.encoder.trainable = not frozen
        self.policy = policy
        self.dropout = head.dropout
        self.frozen = frozen
        features = encoder.output_shape[-1]
        # float32: the softmax gains nothing from half precision
        self.hidden = None
        if head.hidden:
            self.hidden = keras.layers.Dense(head.hidden, activation="relu", dtype="float32", name="hidden")
            self.hidden.build((None, features))
        self.top = keras.layers.Dense(classes, dtype="float32", name="top")
        self.top.build((None, head.hidden or features))
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True

    def call(self, images, training=False):
        """Logits, float32 (N, classes), of uint8 images (N, H, W, 3); augmented when training."""
        pixels = augment(images, self.policy, self.seed_generator) if training else scale(images)
        x = ops.cast(self.encoder(pixels, training=training and not self.frozen), "float32")
        x = self._drop(x, training)
        if self.hidden is not None:
            x = self._drop(self.hidden(x), training)
        return self.top(x)

    def head_weights(self) -> list[np.ndarray]:
        """Kernel and bias of each layer on top, as `softmax_head` takes them."""
        return [*(self.hidden.get_weights() if self.hidden is not None else []), *self.top.get_weights()]

    def _drop(self, x, training):
        # not a layer: its own random state would outlast a training, and not be the one that the epoch sets
        if not training or not self.dropout:
            return x
        return keras.random.dropout(x, self.dropout, seed=self.seed_generator)


@options
class SupervisedOptions:
    """Training with labels, alike for the baseline and for fine-tuning.

    Args:
        epochs: passes over the labelled images; above 100, rounded up to a multiple of epochs // 50.
        batch_size: images per step.
        learning_rates: to choose from, on validation.
        weight_decay: of AdamW; biases and normalisations have none.
        schedule: of the learning rate, as `models.training.rate_at` takes it.
        milestones: of the schedule `steps`, fractions of the training.
        head: the layers on top of the encoder.
        freeze_encoder: train the head alone where there is a pretrained encoder; random weights are trained all the
            same.
        augmentation: of the training images.
    """

    epochs: int = within(ge=1)
    batch_size: int = within(ge=2)
    optimizer: Literal["adam", "adamw"]
    learning_rates: tuple[float, ...] = within(min_length=1)
    weight_decay: float = within(ge=0)
    schedule: Literal["constant", "cosine", "steps"]
    milestones: tuple[float, ...]
    head: ClassifierHead
    freeze_encoder: bool
    augmentation: Augmentation

    def __post_init__(self) -> None:
        require_items("learning_rates", self.learning_rates, 0, math.inf)
        require_items("milestones", self.milestones, 0, 1)
        require_no_decay(self.optimizer, self.weight_decay)


class SupervisedTrainer:
    """Trains the same network several times, compiled once.

    Args:
        options: how; the learning rate is `fit`'s.
        network: makes the encoder, with fresh weights.
        classes: number of classes.
        precision: float32 or bfloat16.
        train, validation: (images uint8 (N, H, W, 3), labels int64 (N,)).
        pretrained: weights of the encoder to start from, or None for random ones.
    """

    def __init__(
        self,
        options: SupervisedOptions,
        network: Callable[[], keras.Model],
        classes: int,
        precision: str,
        train: tuple[np.ndarray, np.ndarray],
        validation: tuple[np.ndarray, np.ndarray],
        pretrained: list[np.ndarray] | None = None,
    ):
        self.options, self.train, self.validation = options, train, validation
        self._network, self._classes, self._precision, self._pretrained = network, classes, precision, pretrained
        # some fifty points make a curve
        self._passes = max(1, options.epochs // 50)
        self._rounds = -(-options.epochs // self._passes)
        self.model = self._fresh(0)
        self.model.compile(
            optimizer=self._optimizer(),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            # without weights the same as unweighted; those of the validation leave out what is filled up with
            weighted_metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
            jit_compile=jit(),
        )
        self.model.optimizer.build(self.model.trainable_variables)

    @property
    def steps(self) -> int:
        """Optimisation steps of one training."""
        return self._rounds * len(self._batches(0))

    def fit(self, learning_rate: float, seed: int, on_epoch: Callable[[int, Mapping[str, float]], None]) -> None:
        """Train once; the last epoch's weights count, so that no split chooses among epochs.

        Args:
            learning_rate: of the first epoch; it then follows the schedule.
            seed: decides the initial weights, the order of the images, the augmentation and the dropout.
            on_epoch: called with the number of epochs done and the last one's numbers; some fifty times at most.

        Raises:
            FloatingPointError: the loss is no longer a number.
        """
        options = self.options
        reset(self.model, self._fresh(seed).get_weights())
        batches = self._batches(seed)

        def rate(done: float) -> float:
            return rate_at(done, learning_rate, options.schedule, options.milestones)

        self.model.fit(
            batches,
            shuffle=False,
            epochs=self._rounds,
            validation_data=self._filled_validation(),
            validation_batch_size=validation_batch(),
            verbose=0,
            callbacks=[
                EpochRate(rate, self._rounds),
                EpochSeed(seed, batches),
                StopOnNaN(),
                keras.callbacks.LambdaCallback(
                    on_epoch_end=lambda r, logs: on_epoch((r + 1) * self._passes, logs or {})
                ),
            ],
        )

    def weights(self) -> list[np.ndarray]:
        """The trained weights, to be put back with `restore`."""
        return self.model.get_weights()

    def restore(self, weights: list[np.ndarray]) -> None:
        """Put back weights of an earlier training."""
        self.model.set_weights(weights)

    def _filled_validation(self) -> tuple[np.ndarray, ...]:
        """The validation images and labels; where devices share them out unequally, with others of weight 0."""
        images, labels = (filled(np.asarray(rows), devices()) for rows in self.validation)
        n = len(self.validation[1])
        if len(labels) == n:
            return self.validation
        # Keras divides a loss by the number of images, those of weight 0 among them
        weights = np.full(n, len(labels) / n, "float32")
        return images, labels, filled(weights, devices())

    def _batches(self, seed: int) -> Batches:
        return Batches([self.train], self.options.batch_size, seed, passes=self._passes)

    def deployable(self) -> keras.Model:
        """The trained classifier from raw images to class probabilities, in built-in layers only."""
        encoder = self._network()
        encoder.set_weights(self.model.encoder.get_weights())
        return encoders.deployable(encoder, softmax_head(*self.model.head_weights()))

    def _fresh(self, seed: int) -> Classifier:
        keras.utils.set_random_seed(seed)
        with precision(self._precision):
            encoder = self._network()
            if self._pretrained is not None:
                encoder.set_weights(self._pretrained)
            options, frozen = self.options, self.options.freeze_encoder and self._pretrained is not None
            return Classifier(encoder, options.augmentation, options.head, self._classes, seed, frozen)

    def _optimizer(self) -> keras.optimizers.Optimizer:
        # the rate is set at the start of each epoch
        if self.options.optimizer == "adam":
            return keras.optimizers.Adam()
        optimizer = keras.optimizers.AdamW(weight_decay=self.options.weight_decay)
        exclude_vectors(optimizer, self.model.trainable_variables)
        return optimizer


def softmax_head(*weights: np.ndarray) -> keras.Model:
    """Dense layers from given weights, with ReLU between them and softmax at the end.

    Args:
        weights: kernel (D, units) and bias (units,) of each layer in turn.
    """
    kernels = weights[::2]
    layers = [keras.layers.Dense(kernel.shape[1], activation="relu") for kernel in kernels[:-1]]
    layers.append(keras.layers.Dense(kernels[-1].shape[1], activation="softmax"))
    head = keras.Sequential([keras.Input((kernels[0].shape[0],)), *layers], name="probabilities")
    head.set_weights(list(weights))
    return head


def predict(model: keras.Model, images: np.ndarray, batch_size: int = 512) -> np.ndarray:
    """Apply a model to uint8 images batch by batch: float32, shape (N, D). Works on memory maps."""
    if not len(images):
        return np.zeros((0, model.output_shape[-1]), "float32")
    # fixed batch shapes: the last batch is filled up, so that nothing is compiled a second time
    outputs = []
    for start in range(0, len(images), batch_size):
        batch = np.asarray(images[start : start + batch_size])
        rows = len(batch)
        if rows < batch_size and start:
            batch = np.concatenate([batch, np.zeros((batch_size - rows, *batch.shape[1:]), batch.dtype)])
        outputs.append(np.asarray(model.predict_on_batch(batch))[:rows])
    return np.concatenate(outputs).astype("float32")
