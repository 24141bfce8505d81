"""What a source holds twice: near-copies of test images, which leave, and the same image under two labels.

A test image that was learned from measures memory. So of each pair of which one is in test and the other is not,
the other is left out (`data.near_copies=drop`), or the dataset is refused (`fail`), or both stay and are listed
(`keep`). Test itself never changes. Where test or validation is cut from the labelled images, near-copies are cut
together, as exact copies are (see `components.shared.sources.splitting`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import IO

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from components.shared.artifacts import SPLITS, UNLABELLED
from components.shared.checks.near_copies import Images, near_copies
from components.shared.errors import UserError
from components.shared.params.schema import DataParams
from components.shared.sources.splitting import LEFT_OUT, plan_train

PAIR = ("image", "twin")
# near-copies that hang together: no single picture is there so often, and in so large a share of all images
_OFTEN, _SHARE = 50, 0.05


class StoredImages:
    """Images in a file that is still being written, read a few at a time; unlike a memory map's they don't stay.

    Args:
        file: open for reading, its content flushed.
        start: where the first image begins, in bytes.
        shape: of each image.
        count: number of images.
    """

    def __init__(self, file: IO[bytes], start: int, shape: tuple[int, int, int], count: int):
        self._file, self._start, self._shape, self._count = file, start, shape, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """The images uint8 (N, height, width, channels) with these numbers."""
        wanted = np.arange(self._count)[rows]
        found = np.empty((len(wanted), *self._shape), np.uint8)
        length = int(np.prod(self._shape))
        # runs of neighbors in one go
        for run in np.split(np.arange(len(wanted)), np.flatnonzero(np.diff(wanted) != 1) + 1):
            if len(run):
                content = os.pread(
                    self._file.fileno(), len(run) * length, self._start + int(wanted[run[0]]) * length
                )
                found[run] = np.frombuffer(content, np.uint8).reshape(len(run), *self._shape)
        return found


def plan(
    images: Mapping[str, Images],
    labels: Mapping[str, np.ndarray],
    about: pd.DataFrame,
    class_names: Sequence[str],
    data: DataParams,
) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    """Decide where each image of a source goes.

    Args:
        images: of each split of the source, as resized.
        labels: likewise, as checked by `check_labels`.
        about: of each image, those of all splits in the order of `SPLITS`: path, digest and group.
        class_names: in the order of the labels.
        data: `near_copies`, and what `plan_train` uses.

    Returns:
        For each split of the source the numbers in `SPLITS` where its images go, or `LEFT_OUT`; and the pairs that
        `find_overlap` found.

    Raises:
        UserError: as `plan_train`, or there are near-copies of test images and `data.near_copies` is fail.
    """
    labelled = (labels["train"] != UNLABELLED).any()
    cuts = bool(labelled and not (len(labels["test"]) and len(labels["validation"])) and data.near_copies != "keep")
    overlap = find_overlap(images, labels, about["digest"].to_numpy(object), cuts)
    begin = np.cumsum([0, *(len(labels[split]) for split in SPLITS)])
    goes = np.repeat(np.arange(len(SPLITS)), np.diff(begin))
    train = goes == SPLITS.index("train")
    pairs = overlap[list(PAIR)].to_numpy()
    joined = pairs[train[pairs].all(axis=1)] - begin[SPLITS.index("train")] if cuts else None
    names = about["path"].tolist()
    leave = left_out(overlap, goes, data.near_copies, names)
    own = about[train]
    groups = [None if pd.isna(group) else group for group in own["group"]]
    goes[train] = plan_train(labels, own["digest"].tolist(), groups, class_names, data, joined, leave[train])
    # now there is a test split, where the source had none
    goes[left_out(overlap, goes, data.near_copies, names)] = LEFT_OUT
    return dict(zip(SPLITS, np.split(goes, begin[1:-1]), strict=True)), overlap


def find_overlap(
    images: Mapping[str, Images], labels: Mapping[str, np.ndarray], digests: np.ndarray, within_train: bool
) -> pd.DataFrame:
    """Find what a source holds twice.

    Args:
        images: of each split of the source, as resized.
        labels: likewise.
        digests: of the content of each image, text, shape (N,): those of all splits in the order of `SPLITS`.
        within_train: look for near-copies among the images of train too, which takes the square of their number.

    Returns:
        A row for each pair: image and twin (their numbers in the order of `digests`; one of test is the twin),
        kind ("copy", "near-copy", "mirrored" or "upside down"), similarity (see `near_copies`). Pairs of test and
        another split, within train, and of train and another split where there is no test; everywhere the copies of
        one image that have different labels.
    """
    first = dict(zip(SPLITS, np.cumsum([0, *(len(labels[split]) for split in SPLITS)]), strict=False))
    judged = "test" if len(labels["test"]) else "train"
    # without any label there will be no test split
    others = SPLITS if len(labels["test"]) or (labels["train"] != UNLABELLED).any() else ()
    found = [_labelled_twice(np.concatenate([labels[split] for split in SPLITS]), digests)]
    for split in others:
        if split != judged:
            found.append(_numbered(near_copies(images[split], images[judged]), first[split], first[judged]))
    if within_train:
        found.append(_numbered(near_copies(images["train"]), first["train"], first["train"]))
    table = pd.concat(found, ignore_index=True)
    # test comes last, so that its image is the twin
    table[list(PAIR)] = np.sort(table[list(PAIR)].to_numpy(), axis=1)
    table.loc[digests[table["image"]] == digests[table["twin"]], "kind"] = "copy"
    return table.drop_duplicates(list(PAIR)).reset_index(drop=True)


def _numbered(pairs: pd.DataFrame, first_image: int, first_twin: int) -> pd.DataFrame:
    """What `near_copies` found, with the numbers of the whole source."""
    kind = pairs["change"].replace("", "near-copy")
    image, twin = pairs["image"] + first_image, pairs["other"] + first_twin
    return pd.DataFrame({"image": image, "twin": twin, "kind": kind, "similarity": pairs["similarity"]})


def _labelled_twice(labels: np.ndarray, digests: np.ndarray) -> pd.DataFrame:
    """Of images that are there several times each that has another label than the first."""
    known = np.flatnonzero(labels != UNLABELLED)
    table = pd.DataFrame({"image": known, "digest": digests[known], "label": labels[known]})
    groups = table.groupby("digest", sort=False)
    table["twin"], other = groups["image"].transform("first"), groups["label"].transform("first")
    table = table[table["label"] != other]
    return table.assign(kind="copy", similarity=1.0)[[*PAIR, "kind", "similarity"]]


def left_out(pairs: pd.DataFrame, goes: np.ndarray, what: str, names: Sequence[str]) -> np.ndarray:
    """Which images must leave, since test holds a near-copy of them.

    Args:
        pairs: as `find_overlap` found them.
        goes: where each image goes, a number in `SPLITS`.
        what: `data.near_copies`.
        names: of the images, for the message.

    Returns:
        Bool, one for each image.

    Raises:
        UserError: there are some, and `data.near_copies` is fail.
    """
    leave = np.zeros(len(goes), bool)
    pairs = pairs[_leaks(pairs, goes)]
    if what == "fail" and len(pairs):
        image, twin, kind, similarity = next(pairs.itertuples(index=False, name=None))
        image, twin = (twin, image) if SPLITS[goes[image]] == "test" else (image, twin)
        more = f"; so have {len(pairs) - 1} more pairs" if len(pairs) > 1 else ""
        raise UserError(
            f"data.near_copies = fail: {names[image]} ({SPLITS[goes[image]]}) and {names[twin]} (test) show the "
            f"same picture ({kind}, similarity {similarity:.3f}){more}; remove one, or set data.near_copies=drop"
        )
    if what == "drop":
        for column in PAIR:
            leave[pairs[column]] = True
        leave &= goes != SPLITS.index("test")
    return leave


def _leaks(pairs: pd.DataFrame, goes: np.ndarray) -> np.ndarray:
    """Pairs of which one is in test and the other is not."""
    in_test = [goes[pairs[column]] == SPLITS.index("test") for column in PAIR]
    return in_test[0] != in_test[1]


def overlap_table(
    pairs: pd.DataFrame, goes: np.ndarray, about: pd.DataFrame, labels: np.ndarray, what: str
) -> pd.DataFrame:
    """What `near_copies.parquet` tells of each pair.

    Args:
        pairs: as `find_overlap` found them.
        goes: where each image went: a number in `SPLITS`, or `LEFT_OUT`.
        about: of each image split, row and path.
        labels: that the source gives each image, −1 = none.
        what: `data.near_copies`.

    Returns:
        A row for each pair, those of test first: split, row, path and label of the one image, twin_split, twin_row,
        twin_path and twin_label of the other; kind and similarity; labels_differ; action: "removed" (the first
        one of the pair; its split is then "removed", its row −1), "kept" (in different splits) or "kept together"
        (in one); conflict: two labels across splits, so that one of these is wrong, in a source that is not to be
        kept as it is.
    """
    pairs = pairs.sort_values(list(PAIR), ignore_index=True)
    image, twin = (pairs[column].to_numpy() for column in PAIR)
    swap = (goes[image] == SPLITS.index("test")) & (goes[twin] != SPLITS.index("test")) | (goes[twin] == LEFT_OUT)
    image, twin = np.where(swap, twin, image), np.where(swap, image, twin)
    sides = [
        about.iloc[rows][["split", "row", "path"]].reset_index(drop=True).assign(label=labels[rows])
        for rows in (image, twin)
    ]
    table = pd.concat([sides[0], sides[1].add_prefix("twin_"), pairs[["kind", "similarity"]]], axis=1)
    table["labels_differ"] = (table["label"] != table["twin_label"]) & (labels[image] >= 0) & (labels[twin] >= 0)
    together = np.where(goes[image] == goes[twin], "kept together", "kept")
    table["action"] = np.where(goes[image] == LEFT_OUT, "removed", together)
    table["conflict"] = table["labels_differ"] & (table["action"] != "kept together") & (what != "keep")
    # of different splits, but test, only what has two labels says anything
    told = table["labels_differ"] | (table["action"] != "kept") | (table["twin_split"] == "test")
    return table[told].sort_values(
        "twin_split", kind="stable", key=lambda split: split != "test", ignore_index=True
    )


def look_alikes(table: pd.DataFrame, count: int) -> int:
    """How many images are near-copies of each other, directly or through others, in the largest such group.

    Photographs of one kind of thing under one light, such as the cells of solar modules, can't be told from copies.

    Args:
        table: as from `overlap_table`.
        count: of all images.

    Returns:
        Their number where it is too large for one picture that is there several times, else 0.
    """
    numbers, names = pd.factorize(table[["path", "twin_path"]].to_numpy().ravel())
    if not len(names):
        return 0
    image, twin = numbers.reshape(-1, 2).T
    links = coo_array((np.ones(len(image)), (image, twin)), shape=(len(names), len(names)))
    largest = int(np.bincount(connected_components(links, directed=False)[1]).max())
    return largest if largest > max(_OFTEN, _SHARE * count) else 0


def remove_images(file: IO[bytes], start: int, length: int, leave: np.ndarray) -> None:
    """Take images out of a file of images; the rest moves up.

    Args:
        file: open for reading and writing; stands behind the last image afterwards.
        start: where the first image begins, in bytes.
        length: of an image in bytes.
        leave: bool (N,).
    """
    stay = np.flatnonzero(~leave)
    for place, row in enumerate(stay):
        if place != row:
            file.seek(start + int(row) * length)
            content = file.read(length)
            file.seek(start + place * length)
            file.write(content)
    file.seek(start + len(stay) * length)
    file.truncate()
