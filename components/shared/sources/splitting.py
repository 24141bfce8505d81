"""Which images stay labelled, which are set aside for validation and test: stratified, and fixed by one seed.

In this order, each step on what the one before left:

1. test: the source's own, else the fraction `data.split.test` of each class, cut from its labelled images;
2. labels: `data.labels_per_class` images of each class stay labelled, the others become unlabelled;
3. validation: the source's own, else the fraction `data.split.validation` of each class, cut from what stayed.

So the budget of labels covers training and a cut validation split together; a validation split that the source
brings comes on top. A test split never depends on the budget, and a larger budget holds every smaller one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from components.shared.artifacts import SPLITS, UNLABELLED
from components.shared.errors import UserError
from components.shared.params.schema import DataParams

LABELLED = ("train", "validation", "test")


def check_labels(labels: Mapping[str, np.ndarray], class_names: Sequence[str], location: str) -> None:
    """Check that the labels of a source fit its class names.

    Args:
        labels: of each split, int64, shape (N,); empty for a split that the source does not have.
        class_names: in the order of the labels.
        location: of the source, for the error message.

    Raises:
        UserError: there are fewer than two classes, a name is there twice, a label is out of range, or a labelled
            split lacks a class.
    """
    if len(class_names) < 2:
        raise UserError(
            f"{location}: has {len(class_names)} class ({', '.join(class_names)}); at least 2 are needed"
        )
    twins = [name for name in class_names if list(class_names).count(name) > 1]
    if twins:
        raise UserError(f"{location}: the class name {twins[0]!r} is there twice; names must differ")
    for split in LABELLED:
        lowest = UNLABELLED if split == "train" else 0
        wrong = np.flatnonzero((labels[split] < lowest) | (labels[split] >= len(class_names)))
        if wrong.size:
            raise UserError(
                f"{location}: {split}: row {wrong[0]}: label {labels[split][wrong[0]]} is not within "
                f"{lowest} … {len(class_names) - 1}; correct it"
            )
        missing = np.setdiff1d(np.arange(len(class_names)), labels[split])
        if missing.size and (labels[split].size or split == "train"):
            raise UserError(
                f"{location}: {split}: no labelled images of class {class_names[missing[0]]!r}; add some, "
                "or leave the class or the split out"
            )


def plan_splits(
    labels: Mapping[str, np.ndarray], class_names: Sequence[str], data: DataParams
) -> dict[str, np.ndarray]:
    """Decide to which split of the dataset each image of a source goes.

    Args:
        labels: of each split of the source, as checked by `check_labels`.
        class_names: in the order of the labels.
        data: `labels_per_class`, `split` and `seed` are used.

    Returns:
        Split of the source → for each of its images the index in `SPLITS` where it goes, int64, shape (N,).

    Raises:
        UserError: a class is too small for the budget or for the splits to be cut.
    """
    plan = {split: np.full(len(labels[split]), SPLITS.index(split)) for split in SPLITS}
    train = plan["train"]
    train[labels["train"] == UNLABELLED] = SPLITS.index("unlabelled")
    cuts_validation = not labels["validation"].size
    if not labels["test"].size:
        members = _shuffled_classes(labels["train"], train, data.seed, "test")
        for name, rows in zip(class_names, members, strict=True):
            count = _cut("data.split.test", data.split.test, name, len(rows), 1 + cuts_validation)
            train[rows[:count]] = SPLITS.index("test")
    if data.labels_per_class is not None:
        members = _shuffled_classes(labels["train"], train, data.seed, "labels")
        _check_budget(data.labels_per_class, class_names, members, cuts_validation)
        for rows in members:
            train[rows[data.labels_per_class :]] = SPLITS.index("unlabelled")
    if cuts_validation:
        members = _shuffled_classes(labels["train"], train, data.seed, "validation")
        for name, rows in zip(class_names, members, strict=True):
            count = _cut("data.split.validation", data.split.validation, name, len(rows), 1)
            train[rows[:count]] = SPLITS.index("validation")
    return plan


def _shuffled_classes(labels: np.ndarray, destinations: np.ndarray, seed: int, purpose: str) -> list[np.ndarray]:
    """Rows of each class that are still in train, in an order that depends on seed and purpose only."""
    rng = np.random.default_rng([seed, *purpose.encode()])
    here = destinations == SPLITS.index("train")
    return [rng.permutation(np.flatnonzero(here & (labels == label))) for label in range(labels.max() + 1)]


def _cut(field: str, fraction: float, name: str, size: int, keep: int) -> int:
    """How many of a class's images to set aside: the nearest number that leaves some on both sides."""
    if size < keep + 1:
        raise UserError(
            f"{field} = {fraction}: class {name!r} has {size} labelled images to cut from; "
            f"at least {keep + 1} are needed"
        )
    return min(max(round(fraction * size), 1), size - keep)


def _check_budget(
    budget: int, class_names: Sequence[str], members: Sequence[np.ndarray], cuts_validation: bool
) -> None:
    name, rows = min(zip(class_names, members, strict=True), key=lambda item: len(item[1]))
    if budget > len(rows):
        raise UserError(
            f"data.labels_per_class = {budget}: class {name!r} has only {len(rows)} labelled training images; "
            f"choose at most {len(rows)}, or null for all"
        )
    if budget == 1 and cuts_validation:
        raise UserError(
            "data.labels_per_class = 1: one label per class can't serve training and validation both; "
            "choose at least 2, or add a validation split to the source"
        )
