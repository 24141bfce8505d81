"""What all methods share: views of each image, one network, an online linear probe, and the metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import keras
from keras import ops

from models.augmentation import Augmentation, augment, scale
from models.losses.views import split_views
from models.methods.shared.heads import HeadOptions, head
from models.methods.shared.metrics import contrastive_ranks, correlation_accuracy, view_ranks
from models.optimizers import OptimizerOptions
from models.options import options, within
from models.sub_batches import in_sub_batches
from models.whole_epochs import train_epoch

# of each image, in a batch; beyond a few a step takes long and brings little
MOST_VIEWS = 8
# what compares the first two views of each image
OF_TWO_VIEWS = (
    *("contrastive_accuracy", "contrastive_top5", "positive_rank"),
    *("view_top1", "view_top5", "view_rank", "correlation_accuracy"),
)


@options
class MethodOptions:
    """What all methods have: a projection head, an optimiser, and the number and augmentation of the views."""

    name: str
    views: int = within(ge=2, le=MOST_VIEWS)
    projection: HeadOptions
    optimizer: OptimizerOptions
    augmentation: Augmentation

    def __post_init__(self) -> None:
        """Where the checks of several bases end."""


Chosen = TypeVar("Chosen", bound=MethodOptions, covariant=True)


@dataclass(frozen=True)
class Setup(Generic[Chosen]):
    """What a method is built from.

    Args:
        encoder: as from `models.encoders.build`; it is trained in place.
        options: the method's own, as in `conf/method/<name>.yaml`.
        classes: number of classes of the online probe.
        seed: decides the augmentation.
        steps: of the whole training, for what changes in its course.
        sub_batches: in how many equal parts the images of a step go through the encoder, one after another.
    """

    encoder: keras.Model
    options: Chosen
    classes: int
    seed: int
    steps: int
    sub_batches: int = 1


class Method(keras.Model, ABC):
    """An encoder in self-supervised training.

    Trained on batches of (uint8 images (N, H, W, C), int64 labels (N,), −1 = unlabelled). Each image is augmented
    V times (`views`), and all views go through the encoder in one batch, so that batch normalisation sees them
    together; with `sub_batches` those of a part of the images at a time. A method turns the features into
    embeddings (`embed`) and these into a loss (`contrastive_loss`), of the whole batch in any case.
    Beside it a linear probe learns the labels there are from the first views' features, through which no gradient
    flows, so that its accuracy can be watched.

    Args:
        setup: what it is built from.
    """

    # whether the encoder learns from labels; the online probe's gradient does not reach it
    uses_labels = False
    # what to try when the embeddings collapse
    advice = "lower method.optimizer.learning_rate, or choose stronger views"

    def __init__(self, setup: Setup[MethodOptions]):
        # Its layers keep their own precision. With half precision of its own, Keras would round every weight that
        # the methods read directly: of momentum encoders, of prototypes.
        super().__init__(dtype="float32")
        features = setup.encoder.output_shape[-1]
        self.encoder = setup.encoder
        self.policy, self.views = setup.options.augmentation, setup.options.views
        self.projection_head = head("projection_head", features, setup.options.projection)
        # float32: the softmax of a small probe gains nothing from half precision
        self.online_probe = keras.layers.Dense(setup.classes, dtype="float32", name="online_probe")
        self.online_probe.build((None, features))
        self.seed_generator = keras.random.SeedGenerator(setup.seed)
        self.steps = max(1, setup.steps)
        self.sub_batches = setup.sub_batches
        self.step = self.add_weight(name="step", shape=(), dtype="int32", trainable=False, initializer="zeros")
        self.means = {
            name: keras.metrics.Mean(name=name)
            for name in ("contrastive_loss", *OF_TWO_VIEWS, "probe_loss", "probe_accuracy")
        }
        self.built = True

    @property
    def metrics(self):
        """All metrics that an epoch averages."""
        return list(self.means.values())

    @property
    def done(self):
        """Fraction of the training's steps that are done, float32 scalar in [0, 1]."""
        return ops.minimum(ops.cast(ops.convert_to_tensor(self.step), "float32") / self.steps, 1.0)

    def encode(self, network: keras.Model, views):
        """Features of views, shape (V·N, D), by the encoder or a copy of it, as in training."""
        if self.sub_batches == 1:
            return network(views, training=True)
        return in_sub_batches(network, views, self.sub_batches)

    def embed(self, views, features) -> dict[str, Any]:
        """What the loss needs.

        Args:
            views: the augmented images, float32 in [0, 1], shape (V·N, H, W, C): all first views, then all second
                ones, and so on (`split_views`).
            features: the encoder's output for them, shape (V·N, D).

        Returns:
            Name → array of V·N rows; `z` are the embeddings of which the metrics compare the first two views.
        """
        return {"z": self.projection_head(features, training=True)}

    @abstractmethod
    def contrastive_loss(self, outputs, labels):
        """The method's loss of what `embed` returned: a float32 scalar. `labels` (N,) may be −1."""

    def call(self, images, training=False):
        """What `embed` returns and the probe's logits when training; only the plain images' logits otherwise."""
        if not training:
            return {"logits": self.online_probe(self.encoder(scale(images), training=False))}
        views = [augment(images, self.policy, self.seed_generator) for _ in range(self.views)]
        views = ops.concatenate(views, axis=0)
        features = self.encode(self.encoder, views)
        first = ops.stop_gradient(ops.cast(features[: ops.shape(images)[0]], "float32"))
        outputs = {"logits": self.online_probe(first), **self.embed(views, features)}
        self.step.assign_add(1)
        return outputs

    def train_step(self, *state_and_batch):
        """As Keras's, of its backend; of an item of `WholeEpochs` all steps of the epoch."""
        if isinstance(state_and_batch[-1], dict):
            return train_epoch(super().train_step, *state_and_batch)
        return super().train_step(*state_and_batch)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The method's loss plus the probe's; the probe's gradient reaches the probe alone."""
        probe_loss = self._probe(y, y_pred["logits"])
        if "z" not in y_pred:
            return probe_loss
        loss = self.contrastive_loss(y_pred, y)
        self.means["contrastive_loss"].update_state(loss)
        if self.views > 1:
            self._watch(*split_views(y_pred["z"], self.views)[:2])
        return loss + probe_loss

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """The epoch's averages so far."""
        return self.get_metrics_result()

    def get_metrics_result(self):
        """Name → mean over the epoch; without what compares two views where there is one."""
        names = [name for name in self.means if self.views > 1 or name not in OF_TWO_VIEWS]
        return {name: self.means[name].result() for name in names}

    def _watch(self, z1, z2):
        ranks = contrastive_ranks(z1, z2)
        self.means["contrastive_accuracy"].update_state(ops.cast(ranks < 1, "float32"))
        self.means["contrastive_top5"].update_state(ops.cast(ranks < 5, "float32"))
        self.means["positive_rank"].update_state(ranks)
        ranks = view_ranks(z1, z2)
        self.means["view_top1"].update_state(ops.cast(ranks <= 1, "float32"))
        self.means["view_top5"].update_state(ops.cast(ranks <= 5, "float32"))
        self.means["view_rank"].update_state(ranks)
        self.means["correlation_accuracy"].update_state(correlation_accuracy(z1, z2))

    def _probe(self, labels, logits):
        """Cross entropy of the labelled rows (0 where there is none); counts them in the probe's metrics."""
        labelled = ops.cast(labels >= 0, "float32")
        targets = ops.cast(ops.maximum(labels, 0), "int32")
        losses = keras.losses.sparse_categorical_crossentropy(targets, logits, from_logits=True)
        correct = ops.cast(ops.equal(ops.cast(ops.argmax(logits, axis=-1), "int32"), targets), "float32")
        self.means["probe_loss"].update_state(losses, sample_weight=labelled)
        self.means["probe_accuracy"].update_state(correct, sample_weight=labelled)
        return ops.sum(losses * labelled) / ops.maximum(ops.sum(labelled), 1.0)
