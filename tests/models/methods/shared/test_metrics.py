"""Ranks and correlations of two views, against slow loops; a collapsed encoder must not look good."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from models.methods.shared.metrics import contrastive_ranks, correlation_accuracy, view_ranks


def ranks(z1, z2):
    return ops.convert_to_numpy(contrastive_ranks(z1, z2))


def slow_ranks(z1, z2):
    """For each embedding, how many of the other batch's embeddings are more alike than its own other view."""

    def cosine(a, b):
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    found = []
    for left, right in ((z1, z2), (z2, z1)):
        for i in range(len(left)):
            own = cosine(left[i], right[i])
            found.append(sum(cosine(left[i], right[j]) > own for j in range(len(right)) if j != i))
    return found


def all_ranks(z1, z2):
    return ops.convert_to_numpy(view_ranks(z1, z2))


def slow_view_ranks(z1, z2):
    """Sort all views but the anchor by their cosine, and look up the other view's place, from 1."""
    z = np.concatenate([z1, z2])
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    found = []
    for anchor in range(len(z)):
        other = (anchor + len(z1)) % len(z)
        order = sorted((view for view in range(len(z)) if view != anchor), key=lambda view: -(z[anchor] @ z[view]))
        found.append(order.index(other) + 1)
    return found


@pytest.mark.parametrize(("found", "slow"), [(ranks, slow_ranks), (all_ranks, slow_view_ranks)])
@pytest.mark.parametrize(("n", "width", "noise"), [(2, 3, 0.1), (9, 4, 1.0), (32, 8, 5.0)])
def test_ranks_equal_a_slow_search(found, slow, n, width, noise):
    rng = np.random.default_rng(n)
    z1 = rng.standard_normal((n, width)).astype("float32")
    z2 = (z1 + noise * rng.standard_normal((n, width))).astype("float32") * 7
    np.testing.assert_array_equal(found(z1, z2), slow(z1.astype(float), z2.astype(float)))


def test_equal_views_of_different_images_are_all_found():
    z = np.random.default_rng(0).standard_normal((16, 5)).astype("float32")
    np.testing.assert_array_equal(ranks(z, 3 * z), np.zeros(32))


def test_unrelated_views_have_the_ranks_of_chance():
    rng = np.random.default_rng(0)
    found = ranks(*rng.standard_normal((2, 400, 8)).astype("float32"))
    assert found.min() >= 0
    assert found.max() <= 399
    # the mean of 800 nearly uniform ranks on 0 … 399 has a standard error of about 4
    assert abs(found.mean() - 199.5) < 16


def test_a_collapsed_encoder_finds_nothing():
    same = np.ones((8, 4), "float32")
    np.testing.assert_array_equal(ranks(same, same), np.full(16, 7))
    np.testing.assert_array_equal(ranks(np.zeros((8, 4), "float32"), np.zeros((8, 4), "float32")), np.full(16, 7))


def test_no_number_counts_as_not_found():
    z = np.random.default_rng(0).standard_normal((4, 3)).astype("float32")
    broken = np.full_like(z, np.nan)
    np.testing.assert_array_equal(ranks(broken, z), np.full(8, 3))


def test_one_pair_is_always_found():
    np.testing.assert_array_equal(ranks(np.ones((1, 3), "float32"), np.ones((1, 3), "float32")), [0, 0])


def test_among_all_views_those_of_its_own_batch_count_too():
    # a first view that is close to another first view, and farther from its other one
    z1 = np.array([[1, 0, 0], [1, 0.1, 0]], "float32")
    z2 = np.array([[1, 1, 0], [0, 0, 1]], "float32")
    np.testing.assert_array_equal(ranks(z1, z2)[:1], [0])
    np.testing.assert_array_equal(all_ranks(z1, z2)[:1], [2])


def test_ranks_among_all_views_start_at_one_and_end_where_all_views_are_alike():
    z = np.random.default_rng(0).standard_normal((16, 5)).astype("float32")
    np.testing.assert_array_equal(all_ranks(z, 3 * z), np.ones(32))
    for same in (np.ones((8, 4), "float32"), np.zeros((8, 4), "float32"), np.full((8, 4), np.nan, "float32")):
        np.testing.assert_array_equal(all_ranks(same, same), np.full(16, 15))


def slow_correlation_accuracy(z1, z2):
    table = np.array([[np.corrcoef(a, b)[0, 1] for b in z2.T] for a in z1.T])
    own = np.arange(len(table))
    return ((table.argmax(axis=1) == own).mean() + (table.argmax(axis=0) == own).mean()) / 2


@pytest.mark.parametrize("noise", [0.1, 2.0, 20.0])
def test_correlation_accuracy_equals_a_slow_table(noise):
    rng = np.random.default_rng(3)
    z1 = rng.standard_normal((50, 6)) * [1, 5, 0.1, 100, 1, 1] + 3
    z2 = z1 + noise * rng.standard_normal((50, 6))
    found = float(correlation_accuracy(z1.astype("float32"), z2.astype("float32")))
    assert found == pytest.approx(slow_correlation_accuracy(z1, z2))


def test_redundant_or_dead_dimensions_lower_the_correlation_accuracy():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((64, 4)).astype("float32")
    assert float(correlation_accuracy(z, z)) == 1.0
    constant = np.ones((64, 4), "float32")
    assert float(correlation_accuracy(constant, constant)) <= 0.25
