"""What all methods share: two views of each image, one network, an online linear probe, and the metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from models.augmentation import Augmentation, augment, scale
from models.metrics import contrastive_ranks, correlation_accuracy


class ContrastiveModel(keras.Model, ABC):
    """An encoder under contrastive training.

    Trained on batches of (uint8 images (N, H, W, 3), int64 labels (N,), −1 = unlabelled). Each image is augmented
    twice; a method turns the two embeddings into a loss (`contrastive_loss`). Beside it a linear probe learns the
    labels there are from features through which no gradient flows, so that its accuracy can be watched.

    Args:
        encoder: as from `models.encoders.build`.
        options: the method's own hyperparameters.
        policy: augmentation of the views.
        classes: number of classes.
        seed: decides the augmentation.
    """

    def __init__(
        self, encoder: keras.Model, options: Mapping[str, Any], policy: Augmentation, classes: int, seed: int
    ):
        super().__init__()
        self.encoder = encoder
        self.policy = policy
        self.projection_head = projection_head(encoder.output_shape[-1], **options["projection"])
        # float32: the softmax of a small probe gains nothing from half precision
        self.online_probe = keras.layers.Dense(classes, dtype="float32", name="online_probe")
        self.online_probe.build((None, encoder.output_shape[-1]))
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.means = {
            name: keras.metrics.Mean(name=name)
            for name in (
                "contrastive_loss",
                "contrastive_accuracy",
                "contrastive_top5",
                "positive_rank",
                "correlation_accuracy",
                "probe_loss",
                "probe_accuracy",
            )
        }
        self.built = True

    @property
    def metrics(self):
        """All metrics that an epoch averages."""
        return list(self.means.values())

    @abstractmethod
    def contrastive_loss(self, z1, z2, labels):
        """The method's loss of two embeddings, each (N, width): a float32 scalar. `labels` (N,) may be −1."""

    def call(self, images, training=False):
        """Two views' embeddings and the probe's logits when training; only the plain images' logits otherwise."""
        if not training:
            return {"logits": self.online_probe(self.encoder(scale(images), training=False))}
        views = [augment(images, self.policy, self.seed_generator) for _ in range(2)]
        # one pass over both views: batch normalisation sees them together, as in the paper's code
        features = self.encoder(ops.concatenate(views, axis=0), training=True)
        embeddings = self.projection_head(features, training=True)
        n = ops.shape(images)[0]
        logits = self.online_probe(ops.stop_gradient(ops.cast(features[:n], "float32")))
        return {"z1": embeddings[:n], "z2": embeddings[n:], "logits": logits}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The method's loss plus the probe's; the probe's gradient reaches the probe alone."""
        probe_loss = self._probe(y, y_pred["logits"])
        if "z1" not in y_pred:
            return probe_loss
        z1, z2 = y_pred["z1"], y_pred["z2"]
        loss = self.contrastive_loss(z1, z2, y)
        ranks = contrastive_ranks(z1, z2)
        self.means["contrastive_loss"].update_state(loss)
        self.means["contrastive_accuracy"].update_state(ops.cast(ranks < 1, "float32"))
        self.means["contrastive_top5"].update_state(ops.cast(ranks < 5, "float32"))
        self.means["positive_rank"].update_state(ranks)
        self.means["correlation_accuracy"].update_state(correlation_accuracy(z1, z2))
        return loss + probe_loss

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """The epoch's averages so far."""
        return self.get_metrics_result()

    def get_metrics_result(self):
        """Name → mean over the epoch."""
        return {name: metric.result() for name, metric in self.means.items()}

    def _probe(self, labels, logits):
        """Cross entropy of the labelled rows (0 where there is none); counts them in the probe's metrics."""
        labelled = ops.cast(labels >= 0, "float32")
        targets = ops.cast(ops.maximum(labels, 0), "int32")
        losses = keras.losses.sparse_categorical_crossentropy(targets, logits, from_logits=True)
        correct = ops.cast(ops.equal(ops.cast(ops.argmax(logits, axis=-1), "int32"), targets), "float32")
        self.means["probe_loss"].update_state(losses, sample_weight=labelled)
        self.means["probe_accuracy"].update_state(correct, sample_weight=labelled)
        return ops.sum(losses * labelled) / ops.maximum(ops.sum(labelled), 1.0)


def projection_head(features: int, hidden: int, width: int) -> keras.Model:
    """Two dense layers with a ReLU between them, from features to embeddings.

    Source: Chen et al. 2020, arXiv:2002.05709, section 2.1.
    """
    return keras.Sequential(
        [
            keras.Input((features,)),
            keras.layers.Dense(hidden, activation="relu"),
            keras.layers.Dense(width),
        ],
        name="projection_head",
    )
