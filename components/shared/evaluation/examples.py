"""Single test images that a reviewer looks at: what the baseline had otherwise, the surest mistakes, neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.shared.artifacts import FEATURES, Dataset
from components.shared.evaluation.predictions import TEST, read_arrays
from components.shared.plots.grids import in_page

SHOWN = 20
QUERIES, NEIGHBOURS = 10, 7
# pixels; larger images are made smaller, so that a page of a hundred stays small
_LARGEST = 64


@dataclass(frozen=True)
class Example:
    """One test image.

    Attributes:
        picture: a `data:` address.
        path: of its file.
        actual, predicted: names of classes.
        before: the class that the baseline answers.
        confidence: of the model that ships, from 0 to 1.
    """

    picture: str
    path: str
    actual: str
    predicted: str
    before: str
    confidence: float


@dataclass(frozen=True)
class Neighbours:
    """A test image and the nearest others; `right` says of each whether it is of the same class.

    `picture` and `pictures` are `data:` addresses, `names` the classes of the others.
    """

    name: str
    picture: str
    pictures: Sequence[str]
    names: Sequence[str]
    right: Sequence[bool]


@dataclass(frozen=True)
class Examples:
    """What is shown of single test images.

    Attributes:
        repaired: the baseline is wrong, the model that ships is right; `repaired_count` are all of them.
        broken: the other way.
        mistakes: wrong answers of the model that ships, the surest first; `mistakes_count` are all of them.
        neighbours: one image of each of the first classes.
        agreement: how often one of the nearest is of the same class, from 0 to 1; None without features.
        points: of the map, float, shape (M, 2).
        rows: which test images they are, int, shape (M,).
    """

    repaired: Sequence[Example] = ()
    broken: Sequence[Example] = ()
    mistakes: Sequence[Example] = ()
    repaired_count: int = 0
    broken_count: int = 0
    mistakes_count: int = 0
    neighbours: Sequence[Neighbours] = ()
    agreement: float | None = None
    points: np.ndarray | None = None
    rows: np.ndarray | None = None


def find_examples(data: Dataset, before: np.ndarray, after: np.ndarray, probe: Path) -> Examples:
    """Choose them.

    Args:
        data: the dataset; its test set is open.
        before: probabilities of the baseline that is exported, shape (N, classes).
        after: those of the model that ships, likewise.
        probe: folder of `probe`, whose first encoder's features of some test images are drawn; nothing is drawn
            where there are none to read.
    """
    labels, images, files = data.labels(TEST), data.images(TEST), data.files(TEST)
    names = data.manifest.class_names
    were, are, true = before.argmax(axis=1), after.argmax(axis=1), np.arange(len(labels))
    risen = after[true, labels] - before[true, labels]
    repaired = np.flatnonzero((were != labels) & (are == labels))
    broken = np.flatnonzero((were == labels) & (are != labels))
    mistakes = np.flatnonzero(are != labels)

    def shown(rows: np.ndarray) -> list[Example]:
        return [
            Example(
                in_page(images[row], _LARGEST), str(files["path"][row]), names[labels[row]], names[are[row]],
                names[were[row]], float(after[row].max()),
            )
            for row in rows[:SHOWN]
        ]  # fmt: skip

    neighbours, agreement, points, rows = _of_features(data, probe)
    return Examples(
        repaired=shown(_in_turn(repaired, labels, -risen)),
        broken=shown(_in_turn(broken, labels, risen)),
        mistakes=shown(mistakes[np.argsort(-after[mistakes].max(axis=1), kind="stable")]),
        repaired_count=len(repaired),
        broken_count=len(broken),
        mistakes_count=len(mistakes),
        neighbours=neighbours,
        agreement=agreement,
        points=points,
        rows=rows,
    )


def _in_turn(rows: np.ndarray, labels: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Rows by `order`, the least first, the classes taking turns: else one class would fill the page."""
    rows = rows[np.argsort(order[rows], kind="stable")]
    turn = np.zeros(len(rows), np.int64)
    for label in np.unique(labels[rows]):
        own = labels[rows] == label
        turn[own] = np.arange(own.sum())
    return rows[np.argsort(turn, kind="stable")]


def _of_features(
    data: Dataset, probe: Path
) -> tuple[list[Neighbours], float | None, np.ndarray | None, np.ndarray | None]:
    found = read_arrays(probe / FEATURES, ("rows", "features"))
    if found is None:
        return [], None, None, None
    rows, features = found[0], found[1].astype(np.float32)
    images, labels = data.images(TEST), data.labels(TEST)
    sound = features.ndim == 2 and len(rows) == len(features) and np.isfinite(features).all()
    if not sound or len(rows) <= NEIGHBOURS or rows.max() >= len(labels):
        return [], None, None, None
    own, names = labels[rows], data.manifest.class_names
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    similarities = unit @ unit.T
    np.fill_diagonal(similarities, -np.inf)
    nearest = np.argsort(-similarities, axis=1, kind="stable")[:, :NEIGHBOURS]
    # the first of each class, whatever it looks like
    queries = [int(np.flatnonzero(own == label)[0]) for label in np.unique(own)[:QUERIES]]
    neighbours = [
        Neighbours(
            names[own[query]],
            in_page(images[rows[query]], _LARGEST),
            [in_page(images[rows[other]], _LARGEST) for other in nearest[query]],
            [names[own[other]] for other in nearest[query]],
            (own[nearest[query]] == own[query]).tolist(),
        )
        for query in queries
    ]
    return neighbours, float((own[nearest] == own[:, None]).mean()), _map(unit), rows


def _map(unit: np.ndarray) -> np.ndarray:
    """Points in a plane, shape (M, 2), of which near ones are near in the features too.

    Source: van der Maaten and Hinton 2008, "Visualizing Data using t-SNE", JMLR 9.
    """
    # imported here: it takes a second, which a test set that stays closed need not wait for
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(30, (len(unit) - 1) // 3)
    # a thousand points: threads that wait for each other cost more than they save, and sum in another order
    with threadpool_limits(1):
        made = TSNE(perplexity=perplexity, init="pca", max_iter=500, random_state=0)
        points: np.ndarray = made.fit_transform(unit)
    return points
