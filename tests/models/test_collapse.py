"""Collapse: two numbers with closed forms on embeddings that one can imagine."""

from __future__ import annotations

import numpy as np
import pytest

from models.collapse import effective_rank, spread

BOTH = pytest.mark.parametrize("measure", [spread, effective_rank])


def gaussian(n=4000, d=16, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


@BOTH
@pytest.mark.parametrize("row", [[1.0, 2.0, -3.0], [0.1, 0.2, 0.3], [0.0, 0.0, 0.0], [1e-30, 0, 0]])
@pytest.mark.parametrize("n", [1, 2, 100])
def test_equal_embeddings_have_none(measure, row, n):
    rows = np.tile(np.array(row, "float32"), (n, 1))
    assert measure(rows) == pytest.approx(0, abs=1e-6)


def test_one_direction_at_many_lengths_has_no_spread_and_one_dimension():
    rows = np.outer(np.linspace(0.1, 5, 50), [1.0, -2.0, 0.5])
    assert spread(rows) == pytest.approx(0, abs=1e-6)
    assert effective_rank(rows) == pytest.approx(1, abs=1e-6)


def test_two_opposite_directions():
    rows = np.array([[1.0, 0, 0, 0], [-1.0, 0, 0, 0]] * 8)
    # one of four dimensions has the standard deviation 1
    assert spread(rows) == pytest.approx(np.sqrt(4) / 4)
    assert effective_rank(rows) == pytest.approx(1)


@pytest.mark.parametrize("d", [2, 16, 64])
def test_directions_evenly_spread_in_all_dimensions(d):
    rows = gaussian(8000, d)
    assert spread(rows) == pytest.approx(1, abs=0.02)
    assert effective_rank(rows) == pytest.approx(d, rel=0.02)


@pytest.mark.parametrize("k", [2, 3, 8])
def test_clusters_at_right_angles(k):
    rows = np.repeat(np.eye(k, 10), 20, axis=0)
    # the k corners lie in k − 1 dimensions, equally wide in each
    assert effective_rank(rows) == pytest.approx(k - 1)
    # k dimensions, each with the variance of a coin that falls on one side once in k
    assert spread(rows) == pytest.approx(k * np.sqrt((1 / k) * (1 - 1 / k)) / 10 * np.sqrt(10))


def test_the_rank_of_given_singular_values():
    values = np.array([4.0, 2.0, 1.0, 1.0])
    left = np.linalg.qr(gaussian(30, 4) - gaussian(30, 4).mean(axis=0))[0]
    shares = values / 8
    expected = np.exp(-(shares * np.log(shares)).sum())
    assert effective_rank(left * values) == pytest.approx(expected, rel=1e-6)


def test_a_common_direction_does_not_count_as_a_dimension():
    rows = gaussian(500, 6)
    assert effective_rank(rows + 100 * np.ones(6)) == pytest.approx(effective_rank(rows), rel=1e-6)
    assert spread(rows + 100 * np.ones(6)) < 0.05


@BOTH
@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1e3, 1e9])
def test_the_scale_does_not_matter(measure, scale):
    rows = gaussian(200, 8)
    assert measure(rows * scale) == pytest.approx(measure(rows), rel=1e-6)


@BOTH
def test_neither_the_order_of_the_images_nor_the_order_and_sign_of_the_dimensions_matters(measure):
    rows = gaussian(300, 8)
    expected = measure(rows)
    assert measure(rows[::-1]) == pytest.approx(expected)
    assert measure(rows[:, ::-1] * -1) == pytest.approx(expected)


def test_the_rank_grows_with_the_dimensions_that_are_used():
    rows = gaussian(1000, 16)
    ranks = [effective_rank(rows * (np.arange(16) < k)) for k in range(1, 17)]
    np.testing.assert_allclose(ranks, np.arange(1, 17), rtol=0.02)


@BOTH
@pytest.mark.parametrize("shape", [(1, 5), (2, 1), (3, 5), (50, 1)])
def test_few_images_or_dimensions_give_a_number(measure, shape):
    found = measure(gaussian(*shape))
    assert np.isfinite(found)
    assert 0 <= found <= max(shape)


@BOTH
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_no_number_has_no_measure(measure, wrong):
    rows = gaussian(10, 3)
    rows[3, 1] = wrong
    assert np.isnan(measure(rows))
