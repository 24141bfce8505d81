"""Which images stay labelled, which are set aside for validation and test: by what they show, so that it stays.

In this order, each step on what the one before left:

1. test: the source's own, else every labelled image whose hash, as a fraction, is below `data.split.test`;
2. labels: of each class the `data.labels_per_class` images with the lowest hashes stay labelled, the others become
   unlabelled;
3. validation: the source's own, else those below `data.split.validation`; within a budget of labels, that fraction
   of each class by the order of hashes.

An image's hash is of `data.seed`, what it is for, and the image's whole pixels, or its group's name: neither other
images nor file names move it. So a dataset that grows keeps its test images, copies stay together, and a larger
budget holds every smaller one. Only where a budget is given can a new image take a labelled one's place, which then
is unlabelled. The budget covers training and a cut validation split together; a validation split that the source
brings comes on top.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np

from components.shared.artifacts import SPLITS, UNLABELLED
from components.shared.errors import UserError
from components.shared.params.schema import DataParams

LABELLED = ("train", "validation", "test")
# how sure "so many images are needed" is
_SURE = 0.99


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


def needs_plan(labels: Mapping[str, np.ndarray], data: DataParams) -> bool:
    """Whether any image of the source's train split may go elsewhere because of what it shows."""
    return data.labels_per_class is not None or not labels["validation"].size or not labels["test"].size


def plan_train(
    labels: Mapping[str, np.ndarray], keys: Sequence[str], class_names: Sequence[str], data: DataParams
) -> np.ndarray:
    """Decide to which split of the dataset each image of the source's train split goes.

    Args:
        labels: of each split of the source, as checked by `check_labels`.
        keys: of each image of train: its group's name, or its digest; equal ones go together.
        class_names: in the order of the labels.
        data: `labels_per_class`, `split` and `seed` are used.

    Returns:
        For each image the index in `SPLITS` where it goes, int64, shape (N,).

    Raises:
        UserError: a class is too small for the budget, or none of its images falls into a split that is cut.
    """
    own = labels["train"]
    plan = np.full(len(own), SPLITS.index("train"))
    plan[own == UNLABELLED] = SPLITS.index("unlabelled")
    cuts_validation = not labels["validation"].size

    def members() -> list[np.ndarray]:
        here = plan == SPLITS.index("train")
        return [np.flatnonzero(here & (own == label)) for label in range(len(class_names))]

    if not labels["test"].size:
        chosen = hashes(keys, data.seed, "test") < data.split.test
        for name, rows in zip(class_names, members(), strict=True):
            _set_aside(plan, rows, chosen[rows], "test", name, data.split.test)
    if data.labels_per_class is not None:
        order = hashes(keys, data.seed, "labels")
        _check_budget(data.labels_per_class, class_names, members(), cuts_validation)
        for rows in members():
            plan[rows[~_lowest(order[rows], data.labels_per_class)]] = SPLITS.index("unlabelled")
    if cuts_validation:
        order, fraction = hashes(keys, data.seed, "validation"), data.split.validation
        for name, rows in zip(class_names, members(), strict=True):
            if data.labels_per_class is None:
                chosen = order[rows] < fraction
            else:
                chosen = _lowest(order[rows], min(max(round(fraction * len(rows)), 1), len(rows) - 1))
            _set_aside(plan, rows, chosen, "validation", name, fraction)
    return plan


def hashes(keys: Sequence[str], seed: int, purpose: str) -> np.ndarray:
    """A number in [0, 1) for each key that looks random and is always the same: float64, shape (N,)."""
    found = (hashlib.sha256(f"{seed} {purpose} {key}".encode()).digest()[:8] for key in keys)
    # 53 bits, which a float holds exactly
    return np.array([(int.from_bytes(digest, "big") >> 11) / 2**53 for digest in found], np.float64)


def _lowest(order: np.ndarray, count: int) -> np.ndarray:
    """Which have the lowest hashes: bool, shape (N,); more than `count` only where equal ones go together."""
    return order <= np.sort(order)[count - 1] if count else np.zeros(len(order), bool)


def _set_aside(
    plan: np.ndarray, rows: np.ndarray, chosen: np.ndarray, split: str, name: str, fraction: float
) -> None:
    """Move the chosen rows of a class to a split; some must go and some must stay."""
    moved = int(chosen.sum())
    if not moved or moved == len(rows):
        rare = min(fraction, 1 - fraction)
        needed = math.ceil(math.log(1 - _SURE) / math.log(1 - rare)) if rare > 0 else 0
        where = split if not moved else "train"
        raise UserError(
            f"data.split.{split} = {fraction}: of the {len(rows)} labelled images of class {name!r} none falls "
            f"into {where}; about {max(needed, 2)} are needed to be sure that one does: add images, bring a {split} "
            "split of your own, or choose another data.seed"
        )
    plan[rows[chosen]] = SPLITS.index(split)


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
