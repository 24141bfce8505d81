"""Shuffled batches whose order depends on the seed and the epoch alone, on every backend."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from itertools import count
from typing import Any

import keras
import numpy as np

from models.whole_epochs import WholeEpochs, fits_on_card


class Batches(keras.utils.PyDataset):
    """Batches of images and labels for `fit`, each with the parts in the proportion of their sizes.

    100,000 unlabelled and 5,000 labelled images in batches of 525 are 500 + 25 in every batch. Where the sizes do
    not divide, each of two parts is at most one image off its share.

    Args:
        parts: pairs of (images uint8 (N, H, W, C), labels int64 (N,)), memory-mapped or not, taken as one set.
        batch_size: rows per batch; the last, smaller batch of an epoch is left out unless it is the only one.
        seed: with the epoch's number it decides the order.
        passes: how often an epoch goes through the images. With few images the work around an epoch (metrics,
            validation, callbacks) would take longer than the training.
        shard: of several processes that train together, which one this is, from 0, and how many they are. Each
            reads its own rows of every batch, one part after another; the last part has what is left.

    Raises:
        ValueError: there is no image.
    """

    def __init__(
        self,
        parts: list[tuple[np.ndarray, np.ndarray]],
        batch_size: int,
        seed: int,
        passes: int = 1,
        shard: tuple[int, int] = (0, 1),
    ):
        super().__init__()
        self._parts = [(images, labels) for images, labels in parts if len(labels)]
        if not self._parts:
            raise ValueError("there is no image to train on")
        self._starts = np.cumsum([0] + [len(labels) for _, labels in self._parts])
        self._batch_size = min(batch_size, int(self._starts[-1]))
        self._seed = seed
        self._passes = passes
        index, count = shard
        part = self._batch_size // count
        self._own = slice(index * part, (index + 1) * part if index + 1 < count else None)
        self.shuffle(0)

    def __len__(self) -> int:
        return self._passes * int(self._starts[-1]) // self._batch_size

    @property
    def images(self) -> int:
        """Images that an epoch goes through, those of other processes among them."""
        return len(self) * self._batch_size

    def rows(self, index: int) -> np.ndarray:
        """Which rows a batch has, of all parts one after the other: int64, ascending."""
        # ascending, so that a memory map is read in one direction
        return np.sort(self._order[index * self._batch_size : (index + 1) * self._batch_size])[self._own]

    def whole(self) -> tuple[np.ndarray, np.ndarray]:
        """The images and labels of all parts, one after the other, in memory."""
        images, labels = zip(*self._parts, strict=True)
        return np.concatenate(images), np.concatenate(labels)

    @property
    def nbytes(self) -> int:
        """What all images take in memory."""
        return sum(images.nbytes for images, _ in self._parts)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self.rows(index)
        images, labels = [], []
        for part, (part_images, part_labels) in enumerate(self._parts):
            own = rows[(rows >= self._starts[part]) & (rows < self._starts[part + 1])] - self._starts[part]
            images.append(part_images[own])
            labels.append(part_labels[own])
        return np.concatenate(images), np.concatenate(labels)

    def shuffle(self, epoch: int) -> None:
        """Put the images into the order of an epoch, counted from 0.

        `models.training.EpochSeed` calls it. Keras's own hook, `on_epoch_end`, is not told the number of the epoch,
        and is called once more before the first one.
        """
        rng = np.random.default_rng((self._seed, epoch))
        self._order = np.concatenate([self._one_pass(rng) for _ in range(self._passes)])

    def _one_pass(self, rng: np.random.Generator) -> np.ndarray:
        """Each part in an order of its own, spread evenly over the pass."""
        sizes = np.diff(self._starts)
        rows = [start + rng.permutation(size) for start, size in zip(self._starts, sizes, strict=False)]
        # where in the pass, from 0 to 1, each image stands: the middle of its share of it
        places = [(np.arange(size) + 0.5) / size for size in sizes]
        return np.concatenate(rows)[np.argsort(np.concatenate(places), kind="stable")]


def feed(batches: Batches, first_epoch: int = 0, whole_epochs: bool = False) -> dict[str, Any]:
    """What to hand to `fit` for it to read batches, by name: `x`, `shuffle`, and for TensorFlow `steps_per_epoch`.

    For TensorFlow, Keras would read the batches through a pipeline that tunes itself: on two cores, and batches of
    32 small images, an epoch then takes 1.25 to 1.7 times as long, mostly in waiting for the tuning to end. And it
    would begin a pipeline anew for each epoch; this one goes on through all of them.

    Args:
        batches: what the training reads.
        first_epoch: in which it begins, counted from 0.
        whole_epochs: the model can train an epoch in one call (`models.whole_epochs`); it does where JAX trains on
            one graphics card that has room for the images.
    """
    # Keras would shuffle by Python's global random state
    if keras.backend.backend() == "jax" and whole_epochs and fits_on_card(batches):
        return {"x": WholeEpochs(batches), "shuffle": False}
    if keras.backend.backend() != "tensorflow":
        return {"x": batches, "shuffle": False}
    # imported here: another backend does without it
    import tensorflow as tf

    def rows() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        # in an order of its own: it is read ahead, while the training is still in the epoch before
        ahead = copy(batches)
        for epoch in count(first_epoch):
            ahead.shuffle(epoch)
            yield from (ahead[index] for index in range(len(ahead)))

    images, labels = batches[0]
    dataset = tf.data.Dataset.from_generator(
        rows,
        output_signature=(
            tf.TensorSpec((None, *images.shape[1:]), images.dtype),
            tf.TensorSpec((None,), labels.dtype),
        ),
    )
    options = tf.data.Options()
    options.autotune.enabled = False
    return {"x": dataset.prefetch(2).with_options(options), "steps_per_epoch": len(batches), "shuffle": False}


def filled(rows: np.ndarray, multiple: int, value: int = 0) -> np.ndarray:
    """Rows up to a multiple of a number, so that devices can share them out equally.

    Args:
        rows: shape (N, …).
        multiple: ≥ 1; 1 changes nothing.
        value: what the added rows are full of.

    Returns:
        The rows, and after them up to `multiple` − 1 others.
    """
    missing = -len(rows) % multiple
    if not missing:
        return rows
    return np.concatenate([rows, np.full((missing, *rows.shape[1:]), value, rows.dtype)])


def check_labels(labels: np.ndarray, classes: int) -> None:
    """Refuse what would be taken for another class, or for none.

    Raises:
        ValueError: there is no label, or one outside [0, classes).
    """
    if not len(labels):
        raise ValueError("at least one labelled image is needed")
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        raise ValueError(f"labels must be in [0, {classes}), not {labels[wrong][0]}")
