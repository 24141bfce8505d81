"""Watching a pretraining from outside: kNN and views of validation images, and whether embeddings collapse."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from components.shared.artifacts import Dataset
from components.shared.params.schema import MonitorParams
from models.augmentation import augment
from models.classifier import predict
from models.collapse import effective_rank, spread
from models.knn import knn_probabilities
from models.methods import Method
from models.methods.shared.metrics import view_ranks

# the views of validation images are the same in every epoch, so that only the network moves their ranks
VIEWS_SEED = 0
# images whose embeddings are looked at for collapse
SAMPLE = 512


class Monitor:
    """Measures a method's encoder every so many epochs, in inference mode and without drawing random numbers.

    Args:
        model: the method in training.
        data: the dataset; kNN needs labelled training and validation images and is left out without them.
        options: how often, and what counts as collapse.
        epochs: of the whole training; the last one is always measured.
        batch_size: images whose views are ranked among each other, as in a training step.
    """

    def __init__(self, model: Method, data: Dataset, options: MonitorParams, epochs: int, batch_size: int):
        self.data, self.options, self.epochs, self.batch_size = data, options, epochs, batch_size
        self.advice, self.policy = model.advice, model.policy
        self.pairs = model.views > 1
        self._scale = keras.layers.Rescaling(1 / 255, dtype="float32")
        images = keras.Input(data.manifest.image_shape, dtype="uint8")
        self._features = keras.Model(images, model.encoder(self._scale(images), training=False))
        # of any size, where the views' is another one than the images'
        pixels = keras.Input(model.encoder.input_shape[1:])
        seen = model.projection_head(model.encoder(pixels, training=False), training=False)
        self._embeddings = keras.Model(pixels, seen)

    def measure(self, epoch: int, last: bool = False) -> dict[str, float]:
        """What is due after `epoch` epochs: everything after the `last` one.

        `knn_accuracy`; `validation_view_top1`, `validation_view_top5` and `validation_view_rank`: how often the
        other view of a validation image is the first, or among the first five, of the 2N − 1 others in batches of N
        images, and its mean rank from 1; `embedding_spread` and `embedding_rank`.

        Raises:
            FloatingPointError: the embeddings are no numbers any more.
        """
        if not self.options.every or (epoch % self.options.every and epoch != self.epochs and not last):
            return {}
        shape = self._shape()
        if not np.isfinite(list(shape.values())).all():
            raise FloatingPointError(f"the embeddings are not finite after epoch {epoch}")
        return {**self._knn(), **self._views(), **shape}

    def warning(self, epoch: int, values: Mapping[str, float]) -> str | None:
        """One line that says what to try if the embeddings have collapsed, else None."""
        for name, limit in (("spread", self.options.min_spread), ("rank", self.options.min_rank)):
            value = values.get(f"embedding_{name}")
            if value is not None and not value >= limit:
                return (
                    f"warning: epoch {epoch}: embedding_{name} = {value:.3g} < monitor.min_{name} = {limit:g}: "
                    f"the embeddings collapse, images look alike to the network; {self.advice}"
                )
        return None

    def _knn(self) -> dict[str, float]:
        train, validation = (self.data.labels(split) for split in ("train", "validation"))
        if not len(train) or not len(validation):
            return {}
        votes = knn_probabilities(
            predict(self._features, self.data.images("train")),
            train,
            predict(self._features, self.data.images("validation")),
            self.data.classes,
            self.options.knn_neighbours,
            self.options.knn_temperature,
        )
        return {"knn_accuracy": float((votes.argmax(axis=1) == validation).mean())}

    def _views(self) -> dict[str, float]:
        images = self.data.images("validation")
        size = min(self.batch_size, len(images))
        # a last, smaller batch is left out: among fewer views it is easier to be first
        whole = len(images) // size * size if size > 1 and self.pairs else 0
        if not whole:
            return {}
        generator = keras.random.SeedGenerator(VIEWS_SEED)
        found = []
        for start in range(0, whole, size):
            batch = np.asarray(images[start : start + size])
            z1, z2 = (
                predict(self._embeddings, np.asarray(augment(batch, self.policy, generator)), size)
                for _ in range(2)
            )
            found.append(np.asarray(view_ranks(z1, z2)))
        ranks = np.concatenate(found)
        return {
            "validation_view_top1": float((ranks <= 1).mean()),
            "validation_view_top5": float((ranks <= 5).mean()),
            "validation_view_rank": float(ranks.mean()),
        }

    def _shape(self) -> dict[str, float]:
        images = max((self.data.images(split) for split in ("unlabelled", "train")), key=len)
        rows = np.unique(np.linspace(0, len(images) - 1, SAMPLE).astype(int))
        embeddings = predict(self._embeddings, np.asarray(self._scale(images[rows])))
        return {"embedding_spread": spread(embeddings), "embedding_rank": effective_rank(embeddings)}
