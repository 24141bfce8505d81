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


def network(options: EncoderOptions, data: Dataset) -> Callable[[], keras.Model]:
    """What builds an encoder with fresh weights for the images of a dataset.

    The statistics, where the options ask for them, are those of all images that pretraining sees, so that the
    baseline and the fine-tuned network see the same input as the pretrained one.
    """
    statistics = None
    if options.normalization == "statistics":
        statistics = pixel_statistics([data.images(split) for split in ("unlabelled", "train")])
    return partial(encoders.build, options, data.manifest.image_size, statistics, channels=data.manifest.channels)


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
    path = folder / "encoder.keras"
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # the archive, its JSON and its HDF5 each have their own exceptions
        raise UserError(
            f"{path}: can't be loaded ({first_line(error, 100)}); run the pretrain step again"
        ) from None
