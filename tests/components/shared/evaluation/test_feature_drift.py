"""The distance between features, against a slow sum over pairs and against what chance gives."""

from __future__ import annotations

import numpy as np
import pytest

from components.shared.evaluation.feature_drift import FEWEST, MOST, chosen, discrepancy, measure_drift


def normal(n, shift=0.0, seed=0, width=6):
    return (np.random.default_rng(seed).standard_normal((n, width)) + shift).astype("float32")


def slow(first, second):
    """Equation 3 of Gretton et al. 2012, pair by pair."""
    both = [*first.astype(float), *second.astype(float)]
    width = np.median([((a - b) ** 2).sum() for i, a in enumerate(both) for b in both[i + 1 :]])

    def kernel(a, b):
        return np.exp(-((a.astype(float) - b.astype(float)) ** 2).sum() / width)

    def within(part):
        return np.mean([kernel(a, b) for i, a in enumerate(part) for j, b in enumerate(part) if i != j])

    return within(first) + within(second) - 2 * np.mean([kernel(a, b) for a in first for b in second])


def test_the_distance_is_the_unbiased_estimate():
    first, second = normal(9), normal(14, 0.5, seed=1)
    assert discrepancy(first, second)[0] == pytest.approx(slow(first, second))


def test_chance_is_what_divisions_of_one_kind_give():
    found = [discrepancy(normal(60, seed=seed), normal(90, seed=seed + 100)) for seed in range(60)]
    beyond = np.mean([distance > spread for distance, spread in found])
    assert beyond <= 0.1
    assert abs(np.mean([distance / spread for distance, spread in found])) < 0.2


def test_other_images_are_told_and_the_same_ones_are_not():
    before = {"test": normal(200), "unlabelled": normal(200)}
    now = {"test": normal(200, 1.0, seed=1), "unlabelled": before["unlabelled"], "train": normal(200)}
    same, other = measure_drift(before, now)
    assert (same.split, same.times, same.warns) == ("unlabelled", 0, False)
    assert other.split == "test" and other.warns
    assert "warning: these are other images than before (version 3's" in other.in_words("3")
    assert not measure_drift({"test": normal(FEWEST - 1)}, now)


def test_features_that_are_all_alike_have_a_distance():
    distance, spread = discrepancy(np.ones((60, 3), "float32"), np.ones((60, 3), "float32"))
    assert distance == pytest.approx(0) and spread > 0


def test_the_same_rows_of_as_many_images_are_compared():
    rows = chosen(5000)
    assert len(rows) == MOST and (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(rows, chosen(5000))
    assert chosen(3).tolist() == [0, 1, 2]
