"""The losses of pairs without negatives: closed forms, what must not change them, and what must."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.losses import barlow_twins, byol, negative_cosine, vicreg
from tests.helpers.loss_checks import SEED, few, normal, rotation, scales, two_views, value

VIEWS = SEED.map(lambda seed: two_views(6, 4, seed))
ORDER = st.permutations(range(6))


def close(expected, tolerance=1e-4):
    return pytest.approx(expected, rel=tolerance, abs=tolerance)


def whitened(n, width, seed):
    """Embeddings whose dimensions have mean 0, variance 1 and no correlation."""
    z = np.random.default_rng(seed).standard_normal((n, width))
    return np.linalg.qr(z - z.mean(0))[0] * math.sqrt(n)


# SimSiam and BYOL


def test_the_cosine_of_known_angles():
    p = np.array([[1, 0], [1, 0], [2, 0]], "float32")
    z = np.array([[3, 0], [0, 5], [1, math.sqrt(3)]], "float32")
    for row, expected in enumerate((1, 0, 0.5)):
        pair = p[row : row + 1], z[row : row + 1]
        assert value(negative_cosine, *pair) == pytest.approx(-expected, abs=1e-6)
        assert value(byol, *pair) == pytest.approx(2 - 2 * expected, abs=1e-6)
    assert value(negative_cosine, p, z) == pytest.approx(-0.5, abs=1e-6)
    assert value(byol, p, z) == pytest.approx(1, abs=1e-6)


@few
@given(VIEWS, SEED, ORDER)
def test_only_the_angle_between_prediction_and_target_matters(views, seed, order):
    p, z = views
    turn = rotation(4, seed)
    for loss, lowest, highest in ((negative_cosine, -1, 1), (byol, 0, 4)):
        expected = close(value(loss, p, z), 1e-5)
        assert value(loss, p * scales(6, seed), z * scales(6, seed + 1)) == expected
        assert value(loss, p @ turn, z @ turn) == expected
        assert value(loss, p[order], z[order]) == expected
        assert value(loss, z, p) == expected
        assert value(loss, p, p) == pytest.approx(lowest, abs=1e-5)
        assert value(loss, p, -p) == pytest.approx(highest, abs=1e-5)
        assert lowest - 1e-5 <= value(loss, p, z) <= highest + 1e-5


# Barlow Twins


@pytest.mark.parametrize("off_diagonal", [0.005, 1.0])
@pytest.mark.parametrize(("n", "width"), [(8, 3), (64, 16)])
def test_identical_whitened_views_cost_nothing(n, width, off_diagonal):
    z = whitened(n, width, 0).astype("float32")
    assert value(barlow_twins, z, 3 * z + 1, off_diagonal=off_diagonal) == pytest.approx(0, abs=1e-4)


def test_opposite_whitened_views_cost_4_a_dimension():
    z = whitened(32, 5, 0).astype("float32")
    assert value(barlow_twins, z, -z, off_diagonal=1.0) == pytest.approx(20, rel=1e-5)


def test_views_without_correlation_cost_1_a_dimension():
    z = whitened(64, 16, 0).astype("float32")
    assert value(barlow_twins, z[:, :8], z[:, 8:], off_diagonal=1.0) == pytest.approx(8, rel=1e-4)
    # independent ones are so nearly
    rng = np.random.default_rng(0)
    assert value(barlow_twins, normal(rng, 2000, 8), normal(rng, 2000, 8), off_diagonal=0.005) == pytest.approx(
        8, rel=0.05
    )


def test_one_dimension_repeated_costs_its_redundancy():
    z = np.tile(normal(np.random.default_rng(0), 10, 1), (1, 4))
    assert value(barlow_twins, z, z, off_diagonal=0.5) == pytest.approx(0.5 * 12, rel=1e-4)


@pytest.mark.parametrize("level", [0.0, 1.0, -3e5, 1e-6, 0.1])
def test_a_collapsed_embedding_costs_1_a_dimension(level):
    z = np.full((7, 5), level, "float32")
    assert value(barlow_twins, z, z, off_diagonal=0.005) == pytest.approx(5, rel=1e-5)


@few
@given(VIEWS, SEED, ORDER, st.permutations(range(4)))
def test_what_does_not_matter_to_barlow_twins(views, seed, order, dimensions):
    z1, z2 = views
    expected = close(value(barlow_twins, z1, z2, off_diagonal=0.5))
    factors = [scales(4, seed + i).T for i in range(2)]
    shifts = [normal(np.random.default_rng(seed + i), 1, 4) for i in range(2)]
    for variant in (
        [z * factor for z, factor in zip(views, factors, strict=True)],
        [z + shift for z, shift in zip(views, shifts, strict=True)],
        (z1[order], z2[order]),
        (z2, z1),
        (z1[:, dimensions], z2[:, dimensions]),
    ):
        assert value(barlow_twins, *variant, off_diagonal=0.5) == expected


def test_a_rotation_of_the_space_matters_to_barlow_twins():
    # its dimensions are to be uncorrelated, not its directions
    z1, z2 = two_views(6, 4, 0)
    turned = value(barlow_twins, z1 @ rotation(4, 1), z2 @ rotation(4, 1), off_diagonal=0.5)
    assert abs(turned - value(barlow_twins, z1, z2, off_diagonal=0.5)) > 0.01


# VICReg


@pytest.mark.parametrize("level", [0.0, 1.0, -20.0])
def test_vicreg_of_constant_embeddings_is_the_missing_spread(level):
    # the root of ε = 0.0001 is all the spread there is
    z = np.full((5, 3), level, "float32")
    assert value(vicreg, z, z) == pytest.approx(25 * 0.99, rel=1e-5)
    assert value(vicreg, z, z, variance=2.0) == pytest.approx(2 * 0.99, rel=1e-5)


def test_vicreg_of_views_a_fixed_distance_apart():
    z = whitened(16, 4, 0).astype("float32") * 2
    # spread and correlation are as they should be: what is left is the mean squared distance
    assert value(vicreg, z, z) == pytest.approx(0, abs=1e-4)
    assert value(vicreg, z, z + 3) == pytest.approx(25 * 9, rel=1e-5)
    assert value(vicreg, z, z + np.array([3, 0, 0, 0], "float32")) == pytest.approx(25 * 9 / 4, rel=1e-5)


def test_vicreg_s_spread_is_that_of_the_unbiased_variance():
    # ± 0.6 in two rows: variance 0.72, not 0.36
    z = np.array([[0.6], [-0.6]], "float32")
    expected = 1 - math.sqrt(0.72 + 0.0001)
    assert value(vicreg, z, z, 0.0, 1.0, 0.0) == pytest.approx(expected, rel=1e-5)


def test_vicreg_s_covariance_of_a_repeated_dimension():
    z = np.tile(whitened(10, 1, 0), (1, 4)).astype("float32")
    # 12 entries off the diagonal, each 10/9, squared, over 4 dimensions, for both views
    assert value(vicreg, z, z, 0.0, 0.0, 1.0) == pytest.approx(2 * 12 / 4 * (10 / 9) ** 2, rel=1e-5)
    assert value(vicreg, z, np.zeros_like(z), 0.0, 0.0, 1.0) == pytest.approx(12 / 4 * (10 / 9) ** 2, rel=1e-5)


@few
@given(VIEWS, SEED, ORDER, st.permutations(range(4)))
def test_what_does_not_matter_to_vicreg(views, seed, order, dimensions):
    z1, z2 = views
    expected = close(value(vicreg, z1, z2))
    shift = normal(np.random.default_rng(seed), 1, 4)
    signs = np.sign(normal(np.random.default_rng(seed), 1, 4))
    for variant in (
        (z1[order], z2[order]),
        (z2, z1),
        (z1 + shift, z2 + shift),
        (z1[:, dimensions], z2[:, dimensions]),
        (z1 * signs, z2 * signs),
    ):
        assert value(vicreg, *variant) == expected


@few
@given(VIEWS, st.floats(2, 100))
def test_the_scale_matters_to_vicreg(views, factor):
    z1, z2 = (z * np.float32(factor) for z in views)
    # invariance and covariance are the squares and fourth powers of it; only the spread has had enough
    assert value(vicreg, z1, z2, 1.0, 0.0, 0.0) == close(factor**2 * value(vicreg, *views, 1.0, 0.0, 0.0))
    assert value(vicreg, z1, z2, 0.0, 0.0, 1.0) == close(factor**4 * value(vicreg, *views, 0.0, 0.0, 1.0))
    assert value(vicreg, z1, z2, 0.0, 1.0, 0.0) <= value(vicreg, *views, 0.0, 1.0, 0.0)
    assert value(vicreg, z1, z2) > value(vicreg, *views)


def test_a_rotation_and_a_shift_of_one_view_matter_to_vicreg():
    z1, z2 = two_views(6, 4, 0)
    usual = value(vicreg, z1, z2)
    assert abs(value(vicreg, z1 @ rotation(4, 1), z2 @ rotation(4, 1)) - usual) > 0.01
    assert value(vicreg, z1, z2 + 10) > usual + 100
