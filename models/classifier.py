"""Training a classifier with labels, from random or pretrained weights: the baseline and fine-tuning alike."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import Literal

import keras
import numpy as np
from keras import ops

from models import encoders
from models.augmentation import Augmentation, augment, scale
from models.batches import Batches, feed, filled
from models.kernels import fuse
from models.optimizers import AdamW, exclude_vectors, require_no_decay
from models.options import options, require_items, within
from models.probes import fit_linear_probe, softmax
from models.training import (
    EpochPace,
    EpochRate,
    EpochSeed,
    StopOnNaN,
    class_weights,
    devices,
    jit,
    precision,
    rate_at,
    reset,
    validation_batch,
)

# what the layer on top of a pretrained encoder starts as
HeadStart = Literal["probe", "random"]
# of that probe: it is a start, which the training goes on from, so that neither is searched for
_PROBE_L2, _PROBE_STEPS = 0.01, 300


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
        """Logits, float32 (N, classes), of uint8 images (N, H, W, C); augmented when training."""
        pixels = augment(images, self.policy, self.seed_generator) if training else scale(images)
        x = ops.cast(self.encoder(pixels, training=training and not self.frozen), "float32")
        x = self._drop(x, training)
        if self.hidden is not None:
            x = self._drop(self.hidden(x), training)
        return self.top(x)

    def features(self, images):
        """What the layers on top are given, float32 (N, D), of uint8 images (N, H, W, C) as they are."""
        return ops.cast(self.encoder(scale(images), training=False), "float32")

    def head_weights(self) -> list[np.ndarray]:
        """Kernel and bias of each layer on top, as `softmax_head` takes them."""
        return [*(self.hidden.get_weights() if self.hidden is not None else []), *self.top.get_weights()]

    def _drop(self, x, training):
        # not a layer: its own random state would outlast a training, and not be the one that the epoch sets
        if not training or not self.dropout:
            return x
        return keras.random.dropout(x, self.dropout, seed=self.seed_generator)


@options
class SearchSpace:
    """What the best training is looked for in, by baseline and fine-tuning alike.

    Args:
        augmentations: `weak`, as the data asks for, and `views`, as the method's pretraining sees the images.
        learning_rates, weight_decays: ascending. Where the best lies at an end, the next value beyond it, in the
            proportion of the last two, is tried too.
        epochs: lengths, ascending; the others are chosen at the first of them.
        widen: how often rates, and decays, may be widened.
        folds: of the cross-validation.
        final_folds: of the chosen trainings, where they are cross-validated on enough images to calibrate by. Their
            answers are calibrated for models that learn from all images: the more folds, the less these differ.
        cross_validate_below: so many validation images choose by themselves; with fewer, all labelled ones do, by
            cross-validation.
        equal_total_epochs: train the baseline at each point for as many epochs as pretraining and fine-tuning take
            together, where both sides else have the fine-tuning's. An epoch of pretraining goes through all images,
            one of the baseline through the labelled ones.
    """

    augmentations: tuple[Literal["weak", "views"], ...] = within(min_length=1)
    learning_rates: tuple[float, ...] = within(min_length=1)
    weight_decays: tuple[float, ...] = within(min_length=1)
    epochs: tuple[int, ...] = within(min_length=1)
    widen: int = within(ge=0, le=2)
    folds: int = within(ge=2)
    final_folds: int = within(ge=2)
    cross_validate_below: int = within(ge=0)
    equal_total_epochs: bool

    def __post_init__(self) -> None:
        require_items("learning_rates", self.learning_rates, 0, math.inf)
        for name in ("augmentations", "learning_rates", "weight_decays", "epochs"):
            values = getattr(self, name)
            if len(set(values)) < len(values) or (name != "augmentations" and sorted(values) != list(values)):
                raise ValueError(f"{name} = {list(values)}: must ascend, each value once")
        if self.weight_decays[0] < 0:
            raise ValueError(f"weight_decays = {list(self.weight_decays)}: must be numbers ≥ 0")
        if self.epochs[0] < 1:
            raise ValueError(f"epochs = {list(self.epochs)}: must be whole numbers ≥ 1")


@options
class Recipe:
    """One way to train with labels.

    Args:
        augmentation: of the training images.
        learning_rate: at the start.
        weight_decay: of AdamW; biases and normalisations have none.
        epochs: passes over the labelled images; above 50, rounded up to a multiple of epochs // 25.
        batch_size: images per step.
        schedule: of the learning rate, as `models.training.rate_at` takes it.
        milestones: of the schedule `steps`, fractions of the training.
    """

    augmentation: Augmentation
    learning_rate: float = within(gt=0)
    weight_decay: float = within(ge=0)
    epochs: int = within(ge=1)
    batch_size: int = within(ge=2)
    optimizer: Literal["adam", "adamw"]
    schedule: Literal["constant", "cosine", "steps"]
    milestones: tuple[float, ...]

    def __post_init__(self) -> None:
        require_items("milestones", self.milestones, 0, 1)
        require_no_decay(self.optimizer, self.weight_decay)


@options
class SupervisedOptions:
    """Training with labels, alike for the baseline and for fine-tuning.

    Args:
        weak: the weak augmentation.
        search: what the training is chosen from.
        refit: once it is chosen, train on the validation images too where these were cut from the labels.
        batch_size: images per step.
        schedule: of the learning rate, as `models.training.rate_at` takes it.
        milestones: of the schedule `steps`, fractions of the training.
        head: the layers on top of the encoder.
        class_weight: what the loss of an image of each class counts, see `models.training.class_weights`; the
            search and both sides train by it, a published recipe does not, and nothing is measured by it.
        head_start: what the layer on top of a pretrained encoder starts as: `probe`, a linear probe on the features
            of the images that it learns from, or `random`. With hidden units, random all the same.
        freeze_encoder: train the head alone where there is a pretrained encoder; random weights are trained all the
            same.
        projection_layers: hidden layers of the pretraining's projection head that stay between the encoder and the
            classifier, as in SimCLR v2; the baseline has the same layers, with random weights. 0: none.
        published: a recipe that is trained besides, as somebody has published it; None where there is none.
    """

    weak: Augmentation
    search: SearchSpace
    refit: bool
    batch_size: int = within(ge=2)
    optimizer: Literal["adam", "adamw"]
    schedule: Literal["constant", "cosine", "steps"]
    milestones: tuple[float, ...]
    head: ClassifierHead
    class_weight: Literal["balanced"] | None
    head_start: HeadStart
    freeze_encoder: bool
    projection_layers: int = within(ge=0)
    published: Recipe | None

    def __post_init__(self) -> None:
        require_items("milestones", self.milestones, 0, 1)
        require_no_decay(self.optimizer, self.search.weight_decays[-1])


class SupervisedTrainer:
    """Trains the same network several times, compiled once.

    Rate, decay, length and images may change from training to training; what is compiled in may not.

    Args:
        augmentation: of the training images.
        optimizer: adam or adamw.
        head: the layers on top.
        network: makes the encoder, with fresh weights.
        classes: number of classes.
        precision: float32 or bfloat16.
        frozen: train the head alone.
    """

    def __init__(
        self,
        augmentation: Augmentation,
        optimizer: str,
        head: ClassifierHead,
        network: Callable[[], keras.Model],
        classes: int,
        precision: str,
        frozen: bool = False,
    ):
        self._augmentation, self._head, self._network = augmentation, head, network
        self._classes, self._precision, self._frozen = classes, precision, frozen
        self._name = optimizer
        self.model = self._fresh(0, None)
        fuse(self.model)
        self._features = _Features(self.model)
        self.model.compile(
            optimizer=self._optimizer(),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            # without weights the same as unweighted; those of the validation leave out what is filled up with
            weighted_metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
            jit_compile=jit(),
        )

    def fit(
        self,
        recipe: Recipe,
        seed: int,
        train: tuple[np.ndarray, np.ndarray],
        pretrained: list[np.ndarray] | None = None,
        validation: tuple[np.ndarray, np.ndarray] | None = None,
        on_epoch: Callable[[int, Mapping[str, float]], None] | None = None,
        class_weight: str | None = None,
        head_start: HeadStart = "random",
    ) -> int:
        """Train once; the last epoch's weights count, so that no split chooses among epochs.

        Args:
            recipe: how; its augmentation and optimiser are those that were compiled.
            seed: decides the initial weights, the order of the images, the augmentation and the dropout.
            train: images uint8 (N, H, W, C) and labels int64 (N,).
            pretrained: weights of the encoder to start from, or None for random ones.
            validation: measured after each epoch, likewise; it changes nothing.
            on_epoch: called with the number of epochs done and the last one's numbers, those of
                `models.training.EpochPace` among them; some 25 times at most.
            class_weight: see `models.training.class_weights`; the training's accuracy, unlike that of the
                validation, is weighted so too.
            head_start: see `SupervisedOptions`; on random weights the head is random.

        Returns:
            The number of optimisation steps.

        Raises:
            FloatingPointError: the loss is no longer a number.

        Source of the probe as a start: Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features and
        Underperform Out-of-Distribution", arXiv:2202.10054. A random head's first gradients change what the encoder
        has learned, before it knows what of that is of use.
        """
        # some twenty-five points make a curve
        passes = max(1, recipe.epochs // 25)
        rounds = -(-recipe.epochs // passes)
        batches = Batches([train], recipe.batch_size, seed, passes=passes)
        fresh = self._fresh(seed, pretrained).get_weights()
        reset(self.model, fresh)
        if pretrained is not None and head_start == "probe" and self.model.hidden is None:
            features = predict(self._features, train[0])
            probe = fit_linear_probe(features, train[1], self._classes, _PROBE_L2, _PROBE_STEPS, seed, class_weight)
            self.model.top.set_weights([probe.kernel, probe.bias])
        if recipe.optimizer == "adamw":
            self.model.optimizer.weight_decay.assign(recipe.weight_decay)

        def rate(done: float) -> float:
            return rate_at(done, recipe.learning_rate, recipe.schedule, recipe.milestones)

        weights = None
        if class_weight is not None:
            weights = dict(enumerate(class_weights(train[1], self._classes, class_weight).tolist()))
        callbacks = [EpochRate(rate, rounds), EpochSeed(seed, batches), StopOnNaN()]
        if on_epoch is not None:
            callbacks.append(EpochPace(batches.images))
            callbacks.append(
                keras.callbacks.LambdaCallback(on_epoch_end=lambda r, logs: on_epoch((r + 1) * passes, logs or {}))
            )
        self.model.fit(
            **feed(batches),
            epochs=rounds,
            validation_data=None if validation is None else _filled(validation),
            validation_batch_size=validation_batch(),
            class_weight=weights,
            verbose=0,
            callbacks=callbacks,
        )
        return rounds * len(batches)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Class probabilities that the last training gives to uint8 images: float32, shape (N, classes)."""
        return softmax(predict(self.model, images))

    def deployable(self, temperature: float = 1.0) -> keras.Model:
        """The trained classifier from raw images to class probabilities, in built-in layers only.

        Args:
            temperature: the logits are divided by it; it is folded into the last layer.
        """
        encoder = self._network()
        encoder.set_weights(self.model.encoder.get_weights())
        *before, kernel, bias = self.model.head_weights()
        return encoders.deployable(encoder, softmax_head(*before, kernel / temperature, bias / temperature))

    def _fresh(self, seed: int, pretrained: list[np.ndarray] | None) -> Classifier:
        # What layers draw the seeds of their weights from, and all that is needed of `keras.utils.set_random_seed`,
        # which makes TensorFlow forget what it has made ready to run: half a second of a core each time
        random.seed(seed)
        with precision(self._precision):
            encoder = self._network()
            if pretrained is not None:
                encoder.set_weights(pretrained)
            if self._augmentation.size is not None:
                encoder = encoders.any_size(encoder)
            return Classifier(encoder, self._augmentation, self._head, self._classes, seed, self._frozen)

    def _optimizer(self) -> keras.optimizers.Optimizer:
        # rate and decay are set by each training
        optimizer = keras.optimizers.Adam() if self._name == "adam" else AdamW()
        exclude_vectors(optimizer, self.model.trainable_variables)
        optimizer.build(self.model.trainable_variables)
        return optimizer


class _Features(keras.Model):
    """The part of a classifier below its head."""

    def __init__(self, classifier: Classifier):
        # TensorFlow takes no name that begins with an underscore
        super().__init__(name="features")
        self.classifier = classifier
        self.compile(jit_compile=jit())
        self.built = True

    def call(self, images):
        return self.classifier.features(images)


def _filled(validation: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, ...]:
    """Validation images and labels; where devices share them out unequally, with others of weight 0."""
    images, labels = (filled(np.asarray(rows), devices()) for rows in validation)
    n = len(validation[1])
    if len(labels) == n:
        return validation
    # Keras divides a loss by the number of images, those of weight 0 among them
    weights = np.full(n, len(labels) / n, "float32")
    return images, labels, filled(weights, devices())


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


def predict(
    model: keras.Model,
    images: np.ndarray,
    batch_size: int = 512,
    on_batch: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Apply a model to uint8 images batch by batch: float32, shape (N, D). Works on memory maps.

    `on_batch` is called with the number of images of each batch that is done.
    """
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
        if on_batch is not None:
            on_batch(rows)
    return np.concatenate(outputs).astype("float32")
