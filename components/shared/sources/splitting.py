"""Which images stay labelled, which are set aside for validation and test: by what each shows, so that it stays.

In this order, each step on what the one before left:

1. test: the source's own, else every labelled image whose hash, as a fraction, is below `data.split.test`;
2. labels: of each class the `data.labels_per_class` images of the lowest hashes stay labelled, the others become
   unlabelled;
3. validation: the source's own, else every labelled image whose hash is below `data.split.validation`; within a
   budget of labels, that fraction of each class, those of the lowest hashes.

A hash is of `data.seed`, the split, and the image's whole pixels, or its group's name where it has one (for
labels always the pixels). File names do not change it, nor do other images, but for near-copies. So in a dataset
that grows each image stays in test or out of it, and without a budget in its split. With one, a new image of a
lower hash takes the place of a labelled one of its class, which becomes unlabelled, and an image may change
between train and validation to keep the fraction. Groups and exact copies are in test together or not at all, and
never in train and validation both; copies of an image that stays labelled stay so too, beyond the budget if need
be. A larger budget holds every smaller one. It covers training and a cut validation split together; a validation
split that the source brings comes on top.

Near-copies go together too: the name of a group among them decides, or else the lowest digest. A new one of a lower
digest may take those that were there to another split.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from components.shared.artifacts import SPLITS, UNLABELLED
from components.shared.errors import UserError
from components.shared.params.schema import DataParams

LABELLED = ("train", "validation", "test")
# far above any set of images; more are a mistake in the labels
MOST_CLASSES = 100_000
# where an image goes that goes nowhere; beside the numbers of `SPLITS`
LEFT_OUT = len(SPLITS)
# that a class of so many images as are asked for has some on both sides of a cut
_SURE = 0.99


def check_labels(labels: Mapping[str, np.ndarray], class_names: Sequence[str], location: str) -> None:
    """Check that the labels of a source fit its class names; a source without any label has nothing to fit.

    Args:
        labels: of each split, int64, shape (N,); empty for a split that the source does not have.
        class_names: in the order of the labels.
        location: of the source, for the error message.

    Raises:
        UserError: there are fewer than two classes, a name is there twice, a label is out of range, or a labelled
            split lacks a class.
    """
    if is_unlabelled(labels):
        return
    if len(class_names) > MOST_CLASSES:
        raise UserError(f"{location}: has {len(class_names):,} classes, and at most {MOST_CLASSES:,} are possible")
    if len(class_names) < 2:
        raise UserError(
            f"{location}: has {len(class_names)} class ({', '.join(class_names)}); at least 2 are needed"
        )
    _check_names(class_names, location)
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


def _check_names(class_names: Sequence[str], location: str) -> None:
    """No name is empty, and none is there twice, be it with other white space."""
    seen: dict[str, str] = {}
    for name in class_names:
        visible = " ".join(name.split())
        if not visible:
            raise UserError(f"{location}: the class name {name!r} is empty; give it one")
        if visible in seen:
            twin = seen[visible]
            how = "is there twice" if twin == name else f"differs from {twin!r} in white space alone"
            raise UserError(f"{location}: the class name {name!r} {how}; names must differ")
        seen[visible] = name


def alike(class_names: Iterable[str]) -> list[list[str]]:
    """Class names that differ in upper and lower case alone, which may be one class or, as of letters, several."""
    found: dict[str, list[str]] = {}
    for name in class_names:
        found.setdefault(" ".join(name.split()).casefold(), []).append(name)
    return [names for names in found.values() if len(names) > 1]


def is_unlabelled(labels: Mapping[str, np.ndarray]) -> bool:
    """Whether a source has images, but only to pretrain on: none for validation or test, and no label in train."""
    labelled = labels["validation"].size or labels["test"].size or (labels["train"] != UNLABELLED).any()
    return not labelled and any(map(len, labels.values()))


def plan_train(
    labels: Mapping[str, np.ndarray],
    digests: Sequence[str],
    groups: Sequence[str | None],
    class_names: Sequence[str],
    data: DataParams,
    near_copies: np.ndarray | None = None,
    leave: np.ndarray | None = None,
) -> np.ndarray:
    """Decide to which split of the dataset each image of the source's train split goes; all others stay in theirs.

    Args:
        labels: of each split of the source, as checked by `check_labels`.
        digests: of the content of each image of train.
        groups: of each image of train the name of its group, or None.
        class_names: in the order of the labels.
        data: `labels_per_class`, `split` and `seed` are used.
        near_copies: pairs of images of train that are never divided, int64 (pairs, 2).
        leave: images that go nowhere, bool (N,); their labels don't count.

    Returns:
        For each image the index in `SPLITS` where it goes, `LEFT_OUT` for nowhere: int64, shape (N,).

    Raises:
        UserError: a class is too small for the budget, or would have no image in a split that is cut, or in train.
    """
    own = labels["train"]
    keys = np.array(
        [digest if group is None else f"group {group}" for digest, group in zip(digests, groups, strict=True)]
    )
    if near_copies is not None and len(near_copies):
        keys = _joined(keys, near_copies)
    plan = np.where(own == UNLABELLED, SPLITS.index("unlabelled"), SPLITS.index("train"))
    if leave is not None:
        plan[leave] = LEFT_OUT
    if is_unlabelled(labels):
        return plan
    cuts_validation = not labels["validation"].size

    def members() -> list[np.ndarray]:
        here = np.flatnonzero(plan == SPLITS.index("train"))
        by_class = here[np.argsort(own[here], kind="stable")]
        ends = np.searchsorted(own[by_class], np.arange(len(class_names) + 1))
        return [by_class[begin:end] for begin, end in pairwise(ends)]

    if not labels["test"].size:
        chosen = hashes(keys, data.seed, "test") < data.split.test
        _set_aside(plan, members(), keys, chosen, "test", class_names, data)
    if data.labels_per_class is not None:
        _check_budget(data.labels_per_class, class_names, members(), cuts_validation)
        order = hashes(digests, data.seed, "labels")
        for rows in members():
            plan[rows[~_lowest(order[rows], data.labels_per_class)]] = SPLITS.index("unlabelled")
    if cuts_validation:
        order = hashes(keys, data.seed, "validation")
        chosen = order < data.split.validation
        if data.labels_per_class is not None:
            lowest = [
                rows[_lowest(order[rows], max(round(data.split.validation * len(rows)), 1))] for rows in members()
            ]
            # a group, or copies under two names, may lie in several classes
            chosen = np.isin(keys, keys[np.concatenate(lowest)])
        _set_aside(plan, members(), keys, chosen, "validation", class_names, data)
    return plan


def _joined(keys: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """One key for all images that pairs connect: the first name of a group, else the first digest."""
    names, numbers = np.unique(keys, return_inverse=True)
    ends = numbers[pairs].T
    graph = coo_array((np.ones(len(pairs), bool), (ends[0], ends[1])), shape=(len(names), len(names)))
    _, sets = connected_components(graph, directed=False)
    # groups first
    order = np.lexsort((names, ~np.char.startswith(names, "group ")))
    chosen = np.empty(sets.max() + 1, np.int64)
    chosen[sets[order[::-1]]] = order[::-1]
    joined: np.ndarray = names[chosen[sets[numbers]]]
    return joined


def hashes(keys: Iterable[str], seed: int, purpose: str) -> np.ndarray:
    """A number in [0, 1) for each key that looks random and is always the same: float64, shape (N,)."""
    found = (hashlib.sha256(f"{seed} {purpose} {key}".encode()).digest()[:8] for key in keys)
    # 53 bits, which a float holds exactly
    return np.array([(int.from_bytes(digest, "big") >> 11) / 2**53 for digest in found], np.float64)


def _lowest(order: np.ndarray, count: int) -> np.ndarray:
    """Which have the lowest hashes: bool, shape (N,); more than `count` only where equal ones go together."""
    return order <= np.sort(order)[count - 1]


def _set_aside(
    plan: np.ndarray,
    members: Sequence[np.ndarray],
    keys: np.ndarray,
    chosen: np.ndarray,
    split: str,
    class_names: Sequence[str],
    data: DataParams,
) -> None:
    """Move the chosen images to a split; of each class some must go and some must stay."""
    fraction = getattr(data.split, split)
    for name, rows in zip(class_names, members, strict=True):
        if chosen[rows].any() and not chosen[rows].all():
            plan[rows[chosen[rows]]] = SPLITS.index(split)
            continue
        fall = "all" if len(rows) and chosen[rows].all() else "none"
        needed = max(math.ceil(math.log(1 - _SURE) / math.log1p(-min(fraction, 1 - fraction))), 2)
        # copies and groups are never divided
        sets = len(np.unique(keys[rows]))
        joined = f" that count as {sets}, since near-copies, copies and groups stay together" * (sets < len(rows))
        keep = ", set data.near_copies=keep where they only look alike" * (sets < len(rows))
        raise UserError(
            f"data.split.{split} = {fraction}: class {name!r} has {len(rows)} labelled images to cut from{joined}, "
            f"and {fall} of them fall into {split}; {needed} different ones make sure of both sides ({_SURE:.0%}): "
            f"add images, bring a {split} split, change data.seed{keep}"
        )


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
