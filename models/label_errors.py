"""Labels that an image's neighbours in feature space speak against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.knn import knn_probabilities

# labelled images of a class without which its neighbours say nothing
FEWEST = 10
# images that may be neighbours: the time grows with their number times that of all
MOST = 50_000
# share of the votes by which a class must lead. With an encoder that tells classes well it hardly matters; with one
# that does not, most labels that are outvoted by less are right (see benchmarks/label_errors.py)
MARGIN = 0.5


@dataclass(frozen=True)
class Suspects:
    """Images whose labels may be wrong, the surest first; arrays of shape (S,).

    Attributes:
        rows: their numbers, int64.
        suggested: the label that the neighbours give, int64.
        share: of the neighbours' votes for that label, float32 in [0, 1].
        own_share: likewise for the label that the image has.
    """

    rows: np.ndarray
    suggested: np.ndarray
    share: np.ndarray
    own_share: np.ndarray


def find_suspects(
    features: np.ndarray, labels: np.ndarray, classes: int, neighbours: int, temperature: float, seed: int = 0
) -> Suspects:
    """Find labels that are probably wrong, by confident learning on the votes of nearest neighbours.

    No image votes on itself. One is suspected if another class leads its own by `MARGIN` of the votes, and gets as
    many as the images of that class get for it on average: of a class that is hard to tell, fewer are enough.
    Classes with fewer than `FEWEST` images neither accuse nor are accused.

    Args:
        features: of labelled images, shape (N, D).
        labels: int64, shape (N,), in [0, classes).
        classes: number of classes.
        neighbours: how many vote; of small classes fewer, so that one can outvote the others.
        temperature: of the votes, see `knn_probabilities`.
        seed: of more than `MOST` images so many vote, drawn at random.

    Returns:
        The suspects; none where fewer than two classes have enough images.

    Sources: Northcutt, Jiang, Chuang 2021, arXiv:1911.00068, section 3.1 (thresholds and the confident joint);
    Bahri, Jiang, Gupta 2020, arXiv:2004.12289 (nearest neighbours in learned features for mislabelled images).
    """
    sizes = np.bincount(labels, minlength=classes)
    known = np.flatnonzero(sizes >= FEWEST)
    rows = np.flatnonzero(np.isin(labels, known))
    if len(known) < 2:
        nobody = np.zeros(0, np.int64)
        return Suspects(nobody, nobody, np.zeros(0, np.float32), np.zeros(0, np.float32))
    bank = rows
    if len(rows) > MOST:
        bank = np.sort(np.random.default_rng(seed).choice(rows, MOST, replace=False))
    place = np.full(len(labels), -1, np.int64)
    place[bank] = np.arange(len(bank))
    # without itself a class of n images has n − 1 votes, and must be able to win
    most = min(neighbours, int(sizes[known].min()) - 1)
    votes = knn_probabilities(
        features[bank], labels[bank], features[rows], classes, most, temperature, itself=place[rows]
    )
    given, index = labels[rows], np.arange(len(rows))
    own = votes[index, given]
    expected = np.full(classes, np.inf)
    for label in known:
        expected[label] = own[given == label].mean()
    confident = np.where(votes >= expected, votes, 0)
    suggested = confident.argmax(axis=1)
    share = votes[index, suggested]
    found = np.flatnonzero((suggested != given) & (confident.max(axis=1) >= own + MARGIN))
    found = found[np.argsort(own[found] - share[found], kind="stable")]
    return Suspects(rows[found], suggested[found], share[found], own[found])
