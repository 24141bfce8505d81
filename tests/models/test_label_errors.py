"""Labels that neighbours speak against: flipped ones are found, rare classes are left alone."""

from __future__ import annotations

import numpy as np

from models import label_errors
from models.knn import knn_probabilities
from models.label_errors import FEWEST, find_suspects


def clusters(sizes, width=8, spread=0.4, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    centers = rng.standard_normal((len(sizes), width))
    features = centers[labels] + spread * rng.standard_normal((len(labels), width))
    return features.astype("float32"), labels


def test_no_image_votes_on_itself():
    features, labels = clusters([15, 15])
    labels[3] = 1
    itself = np.arange(30)
    found = knn_probabilities(features, labels, features, 2, 1, chunk=7, itself=itself)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    alike = unit @ unit.T
    np.fill_diagonal(alike, -np.inf)
    np.testing.assert_array_equal(found.argmax(axis=1), labels[alike.argmax(axis=1)])


def test_flipped_labels_are_found_with_the_label_they_had():
    features, true = clusters([60, 60, 60])
    labels, flipped = true.copy(), np.array([5, 70, 75, 130, 170])
    labels[flipped] = (true[flipped] + 1) % 3
    found = find_suspects(features, labels, 3, neighbours=20, temperature=0.1)
    assert set(found.rows) == set(flipped)
    np.testing.assert_array_equal(found.suggested, true[found.rows])
    assert (found.share > found.own_share).all()
    # the surest first
    assert (np.diff(found.own_share - found.share) >= 0).all()


def test_labels_that_neighbours_agree_with_are_not_suspected():
    features, labels = clusters([60, 60, 60])
    assert not len(find_suspects(features, labels, 3, 20, 0.1).rows)


def test_rare_classes_neither_accuse_nor_are_accused():
    features, labels = clusters([40, 40, FEWEST - 1])
    labels[:2] = 2
    rows = np.flatnonzero(labels == 2)[: FEWEST - 1]
    labels[rows[2:]] = 0
    few = np.bincount(labels, minlength=3)[2]
    assert few < FEWEST
    found = find_suspects(features, labels, 3, 20, 0.1)
    assert 2 not in found.suggested
    assert not set(found.rows) & set(np.flatnonzero(labels == 2))
    assert not len(find_suspects(features[:45], labels[:45], 3, 20, 0.1).rows)


def test_of_very_many_images_some_vote(monkeypatch):
    monkeypatch.setattr(label_errors, "MOST", 90)
    features, true = clusters([60, 60, 60])
    labels = true.copy()
    labels[[5, 130]] = 1
    found = find_suspects(features, labels, 3, 20, 0.1)
    assert set(found.rows) == {5, 130}
