"""Which unlabelled images to label next: those that stand for many others, and that the labels so far leave open.

The typical images, those with near neighbours, are clustered by an encoder's features, as many clusters as there
are labels and new images, each image weighing as much as the classifier of the labels so far is unsure of it; the
heaviest clusters without a label give the image nearest to their centre. Without labels all weigh the same.

Source: weighted k-means is Zhdanov 2019, "Diverse mini-batch active learning", arXiv:1901.05954; typical images,
and clusters without a label, are Hacohen, Dekel and Weinshall 2022, "Active learning on a budget: opposite
strategies suit high and low budgets" (TypiClust), arXiv:2202.02794, section 3.2.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
from sklearn.exceptions import ConvergenceWarning

from components.shared.artifacts import Dataset
from components.shared.errors import UserError
from components.shared.repository import in_repository
from pipelines.inference.model import load_ready
from pipelines.inference.table import check_table, write_table

SCHEMA = pa.schema({"path": pa.string(), "row": pa.int64(), "margin": pa.float32(), "stands_for": pa.int64()})
CLUSTERS = 500  # at most, as TypiClust has it: beyond, clusters are asked again
LARGE = 10**8  # images times clusters, beyond which k-means goes in mini-batches
TYPICAL = 0.6  # of the images; the others are odd ones, that say little about others
NEIGHBOURS, AMONG = 20, 20_000  # whose mean distance tells what is typical, and among how many images
PENALTY, STEPS = 1.0, 300  # of the classifier: strong, so that a few labels do not make it sure of everything


def label_next(count: int, dataset: Path, address: str | None, out: Path, seed: int) -> None:
    """Write the images to label next as a CSV table, the most useful first.

    Its columns: `path` of the image's file below the source; `row` in the split `unlabelled`; `margin`, how much
    likelier the likeliest class is than the next one by the labels so far (empty with fewer than two classes
    labelled); `stands_for`, the images in its cluster.

    Args:
        count: of images.
        dataset: folder of `ingest`.
        address: of the encoder, see `load_ready`; None is the one of the repository's last run.
        out: table to write, `.csv`.
        seed: of the clustering.

    Raises:
        UserError: the dataset has fewer unlabelled images, no such model, or the table can't be written.
    """
    check_table(out, (".csv",))
    data = Dataset(dataset)
    unlabelled = data.images("unlabelled")
    if count > len(unlabelled):
        raise UserError(f"{count}: {data.folder} has {len(unlabelled):,} unlabelled images; ask for fewer")
    model = load_ready(address or str(in_repository("encoder/encoder.keras"))).encoder()
    manifest = data.manifest
    if model.size != manifest.image_size:
        size = manifest.image_size
        raise UserError(f"{model.name}: was trained on {model.size}×{model.size} pixels, {data.folder} has {size}")
    if model.channels != manifest.channels:
        raise UserError(
            f"{model.name}: was trained with data.channels={model.channels}, {data.folder} has "
            f"{manifest.channels}; choose the encoder that was trained on it"
        )
    # only here: Keras has started
    from models.classifier import predict

    parts = [split for split in ("train", "validation") if len(data.labels(split))]
    known = np.concatenate([predict(model.network, data.images(split)) for split in parts])
    labels = np.concatenate([data.labels(split) for split in parts])
    chosen, margins, sizes = choose(predict(model.network, unlabelled), known, labels, count, seed)
    paths = data.files("unlabelled")["path"].to_numpy()[chosen]
    margin = pa.array(margins[chosen], pa.float32(), mask=np.isnan(margins[chosen]))
    write_table(out, SCHEMA, [pa.record_batch([pa.array(paths), chosen, margin, sizes], schema=SCHEMA)])
    print(f"{out}: {count:,} of {len(unlabelled):,} unlabelled images to label next, by {model.name}")


def choose(
    features: np.ndarray, known: np.ndarray, labels: np.ndarray, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Choose images by their features.

    Args:
        features: of the unlabelled images, float32, shape (N, D).
        known: of the labelled ones, shape (L, D); L may be 0.
        labels: theirs, whole numbers, shape (L,).
        count: of images to choose, at most N.
        seed: of the clustering.

    Returns:
        Rows of the chosen, int64, shape (count,), the most useful first; margin between the two likeliest classes
        of each unlabelled image, shape (N,), NaN where fewer than two classes are labelled; and the number of
        unlabelled images in the clusters of the chosen, shape (count,).
    """
    # only here: it takes a second
    from sklearn.cluster import KMeans, MiniBatchKMeans

    margins = _margins(features, known, labels)
    points = _unit(np.concatenate([features, known]))
    typical = _typical(points[: len(features)], max(count, round(TYPICAL * len(features))), seed)
    labelled = points[len(features) :]
    clusters = min(CLUSTERS, count + len(known), len(typical) + len(known))
    weights = np.where(np.isnan(margins), 1, 1 - margins)[typical] + 1e-3
    kind = KMeans if (len(typical) + len(known)) * clusters <= LARGE else MiniBatchKMeans
    found = kind(clusters, n_init=3, random_state=seed)
    with warnings.catch_warnings():
        # of copies there are fewer clusters
        warnings.simplefilter("ignore", ConvergenceWarning)
        found.fit(
            np.concatenate([points[typical], labelled]),
            sample_weight=np.concatenate([weights, np.full(len(known), weights.mean())]),
        )
    at = found.labels_[: len(typical)]
    distances = np.linalg.norm(points[typical] - found.cluster_centers_[at], axis=1)
    # of each cluster its images, the nearest to the centre first
    waiting = [typical[rows[np.argsort(distances[rows], kind="stable")]].tolist() for rows in _rows(at, clusters)]
    sizes = np.array([len(rows) for rows in waiting])
    mass = np.bincount(at, weights, clusters)
    covered = np.bincount(found.labels_[len(typical) :], minlength=clusters)
    chosen: list[int] = []
    stands_for: list[int] = []
    while len(chosen) < count:
        # those without a label, or with the fewest, and among them the heaviest
        best = next(cluster for cluster in np.lexsort((-mass, covered)) if waiting[cluster])
        covered[best] += 1
        chosen.append(waiting[best].pop(0))
        stands_for.append(sizes[best])
    return np.array(chosen), margins, np.array(stands_for)


def _unit(features: np.ndarray) -> np.ndarray:
    """Features of length 1, once each is brought to mean 0 and deviation 1: all images share a direction."""
    points = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)
    unit: np.ndarray = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-6)
    return unit


def _typical(points: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Rows of the points whose neighbours are nearest, ascending."""
    from sklearn.neighbors import NearestNeighbors

    some = np.random.default_rng(seed).permutation(len(points))[:AMONG]
    # one more: of those among them, each is its own nearest
    neighbours = NearestNeighbors(n_neighbors=min(NEIGHBOURS + 1, len(some))).fit(points[some])
    distances, _ = neighbours.kneighbors(points)
    return np.sort(np.argsort(distances.mean(axis=1), kind="stable")[:count])


def _rows(at: np.ndarray, clusters: int) -> list[np.ndarray]:
    return [np.flatnonzero(at == cluster) for cluster in range(clusters)]


def _margins(features: np.ndarray, known: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Between the two likeliest classes of each image, by a linear classifier on the labels so far."""
    classes, numbers = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        return np.full(len(features), np.nan)
    from models.probes import fit_linear_probe

    probe = fit_linear_probe(known, numbers, len(classes), PENALTY, STEPS, seed=0)
    highest = np.sort(probe.probabilities(features), axis=1)
    margins: np.ndarray = highest[:, -1] - highest[:, -2]
    return margins
