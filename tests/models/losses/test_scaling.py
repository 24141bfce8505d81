"""Rows of unit length and columns of unit variance, at any scale of the input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from keras import ops

from models.losses.scaling import l2_normalize, standardize
from tests.helpers.loss_checks import as_numpy, gradients, normal, two_views


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e6, 1e30])
def test_rows_get_unit_length_whatever_their_scale(scale):
    z = np.array([[3.0, 4.0], [-1.0, 0.0]], "float32") * np.float32(scale)
    np.testing.assert_allclose(as_numpy(l2_normalize(ops.convert_to_tensor(z))), [[0.6, 0.8], [-1, 0]], rtol=1e-5)


def test_a_row_of_zeros_stays_zero():
    np.testing.assert_array_equal(as_numpy(l2_normalize(np.zeros((2, 3), "float32"))), np.zeros((2, 3)))


def test_rows_are_scaled_each_by_itself():
    z = np.array([[1e-20, 0.0], [1e20, 1e20], [0.0, 0.0]], "float32")
    expected = [[1, 0], [math.sqrt(0.5), math.sqrt(0.5)], [0, 0]]
    np.testing.assert_allclose(as_numpy(l2_normalize(ops.convert_to_tensor(z))), expected, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e6, 1e30])
@pytest.mark.parametrize(("n", "width"), [(2, 1), (7, 3), (50, 2)])
def test_columns_get_mean_0_and_variance_1_whatever_their_scale(n, width, scale):
    z = normal(np.random.default_rng(0), n, width) * np.float32(scale)
    found = as_numpy(standardize(ops.convert_to_tensor(z)))
    precise = z.astype(float)
    np.testing.assert_allclose(found, (precise - precise.mean(0)) / precise.std(0), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose((found**2).mean(axis=0), 1, rtol=1e-4)


@pytest.mark.parametrize("level", [0.0, 1e-30, 0.1, -3.0, 1e6, 1e30])
@pytest.mark.parametrize("n", [1, 3, 1000])
def test_a_column_that_never_changes_becomes_0(level, n):
    z = normal(np.random.default_rng(0), n, 2)
    z[:, 1] = level
    np.testing.assert_array_equal(as_numpy(standardize(ops.convert_to_tensor(z)))[:, 1], 0)


def test_a_column_that_changes_by_rounding_alone_is_not_blown_up():
    z = np.full((6, 1), 3.0, "float32")
    z[::2] = np.nextafter(z[::2], np.float32(4))
    assert np.abs(as_numpy(standardize(ops.convert_to_tensor(z)))).max() < 0.02


@pytest.mark.parametrize("helper", [l2_normalize, standardize])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_helpers_answer_in_full_precision(helper, dtype):
    z = ops.cast(two_views(4, 3, 0)[0], dtype)
    found = helper(z)
    assert ops.convert_to_numpy(found).dtype == "float32"
    np.testing.assert_allclose(as_numpy(found), as_numpy(helper(ops.cast(z, "float32"))), rtol=1e-6)


@pytest.mark.parametrize("helper", [l2_normalize, standardize])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_gradients_of_helpers_neither_vanish_nor_overflow(helper, scale):
    z = two_views(4, 3, 0)[0]
    weights = ops.convert_to_tensor(normal(np.random.default_rng(1), 4, 3))

    def weighted(x):
        return ops.sum(weights * helper(x))

    _, usual = gradients(weighted, z)
    _, found = gradients(weighted, z * np.float32(scale))
    np.testing.assert_allclose(found[0].astype(float) * scale, usual[0], rtol=1e-3, atol=1e-5)
