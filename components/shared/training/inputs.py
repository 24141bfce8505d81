"""What the steps that learn read: labelled images, the network for them, and the pretrained encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import keras
import numpy as np
from pydantic_core import to_jsonable_python

from components.shared.artifacts import Dataset, Result, read_record
from components.shared.errors import UserError, first_line
from models import encoders
from models.batches import check_labels
from models.encoders import EncoderOptions
from models.encoders.shared.normalization import pixel_statistics
from models.methods.shared.heads import HeadOptions, up_to_layer

PROJECTION_HEAD = "projection_head.keras"


def labelled(data: Dataset, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (memory-mapped) and labels of a split in which each image must have a label.

    Raises:
        UserError: the dataset has no labels, the split is empty, or a label is no class.
    """
    data.require_labels()
    labels = data.labels(split)
    try:
        check_labels(labels, data.classes)
    except ValueError as error:
        raise UserError(f"{data.folder / split}.labels.npy: {error}; run the ingest step again") from None
    return data.images(split), labels


def fewer_labels(labels: np.ndarray, budgets: Sequence[int | float], seed: int) -> dict[int, np.ndarray]:
    """Labels per class → which images keep theirs: for budgets that each class can fill, and the smallest class's.

    Args:
        labels: int64, shape (N,).
        budgets: numbers of labels per class, and fractions between 0 and 1 of those that the smallest class has,
            rounded, at least one.
        seed: with the budget, it decides which; so that probe and baseline are given the same ones.
    """
    smallest = int(np.unique(labels, return_counts=True)[1].min())
    numbers = {budget if budget >= 1 else max(1, round(budget * smallest)) for budget in budgets}
    return {
        int(number): _subset(labels, int(number), seed)
        for number in sorted({known for known in numbers if known <= smallest} | {smallest})
    }


def _subset(labels: np.ndarray, budget: int, seed: int) -> np.ndarray:
    """Rows of `budget` images of each class."""
    rng = np.random.default_rng((seed, budget))
    chosen = [rng.choice(np.flatnonzero(labels == c), budget, replace=False) for c in np.unique(labels)]
    return np.sort(np.concatenate(chosen))


def network(
    options: EncoderOptions, data: Dataset, projection: HeadOptions | None = None, layers: int = 0
) -> Callable[[], keras.Model]:
    """What builds an encoder with fresh weights for the images of a dataset, with hidden `layers` of a head on it.

    The statistics, where the options ask for them, are those of all images that pretraining sees, so that the
    baseline and the fine-tuned network see the same input as the pretrained one.
    """
    statistics = None
    if options.normalization == "statistics":
        statistics = pixel_statistics([data.images(split) for split in ("unlabelled", "train")])
    build = partial(encoders.build, options, data.manifest.image_size, statistics, channels=data.manifest.channels)
    return build if projection is None or not layers else lambda: up_to_layer(build(), projection, layers)


def pretrained_weights(
    folder: Path, encoder: keras.Model, projection: HeadOptions | None, layers: int
) -> list[np.ndarray]:
    """What fine-tuning starts from: weights of what `network` builds.

    Args:
        folder: written by `pretrain`.
        encoder: as `load_encoder` gives it.
        projection: the options that its projection head must have, where there are `layers`.
        layers: how many hidden layers of the head come with it.

    Raises:
        UserError: the head is missing, damaged or another one.
    """
    weights: list[np.ndarray] = encoder.get_weights()
    if projection is None or not layers:
        return weights
    folder = Path(folder)
    pretrained = read_record(folder, Result).params.get("method", {}).get("projection")
    if pretrained != (wanted := to_jsonable_python(projection)):
        raise UserError(
            f"{folder / 'result.json'}: params.method.projection = {pretrained}: another projection head than "
            f"method.projection = {wanted}; run the pretrain step again"
        )
    head = _load(folder / PROJECTION_HEAD)
    for layer in head.layers[: projection.layers_up_to(layers)]:
        weights += layer.get_weights()
    return weights


def load_encoder(folder: Path, data: Dataset, network: EncoderOptions | None = None) -> keras.Model:
    """The encoder that `pretrain` wrote, from uint8 images to features.

    Args:
        folder: written by `pretrain`.
        data: the dataset it must have been trained on.
        network: the network it must be; None takes any.

    Raises:
        UserError: the folder is not finished, the file is damaged, or the encoder belongs to another dataset or is
            another network.
    """
    folder = Path(folder)
    record = read_record(folder, Result)
    if record.dataset_digest != data.manifest.digest:
        raise UserError(
            f"{folder / 'result.json'}: dataset_digest = {record.dataset_digest[:12]}…: trained on another dataset "
            f"than {data.folder} ({data.manifest.digest[:12]}…); run the pretrain step again"
        )
    pretrained = record.params.get("encoder")
    if network is not None and pretrained != (wanted := to_jsonable_python(network)):
        raise UserError(
            f"{folder / 'result.json'}: params.encoder = {pretrained}: another network than encoder = "
            f"{wanted}; run the pretrain step again"
        )
    return _load(folder / "encoder.keras")


def _load(path: Path) -> keras.Model:
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # the archive, its JSON and its HDF5 each have their own exceptions
        raise UserError(
            f"{path}: can't be loaded ({first_line(error, 100)}); run the pretrain step again"
        ) from None
