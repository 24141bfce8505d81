"""NT-Xent against a literal transcription of its equation, closed forms, invariances and extremes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from models.losses import l2_normalize, nt_xent


def slow_nt_xent(z1, z2, temperature):
    """Equation 1 and algorithm 1 of arXiv:2002.05709 in loops and float64: views 2k − 1 and 2k belong together."""
    n = len(z1)
    z = np.empty((2 * n, z1.shape[1]))
    z[0::2], z[1::2] = z1, z2

    def s(i, j):
        return sum(z[i] * z[j]) / (math.sqrt(sum(z[i] ** 2)) * math.sqrt(sum(z[j] ** 2))) / temperature

    def loss(i, j):
        others = [s(i, k) for k in range(2 * n) if k != i]
        # the largest is taken out of the sum: exp(100) would leave the floats' precision
        largest = max(others)
        return largest + math.log(sum(math.exp(other - largest) for other in others)) - s(i, j)

    return sum(loss(2 * k, 2 * k + 1) + loss(2 * k + 1, 2 * k) for k in range(n)) / (2 * n)


def value(z1, z2, temperature):
    return float(nt_xent(ops.convert_to_tensor(z1), ops.convert_to_tensor(z2), temperature))


def gradients(z1, z2, temperature, dtype="float32"):
    """Loss and its gradients with respect to both views."""
    views = [tf.cast(tf.constant(z), dtype) for z in (z1, z2)]
    with tf.GradientTape() as tape:
        tape.watch(views)
        loss = nt_xent(*views, temperature)
    return float(loss), [np.asarray(tf.cast(g, "float32")) for g in tape.gradient(loss, views)]


def two_views(n, width, seed, noise=0.5):
    rng = np.random.default_rng(seed)
    z1 = rng.standard_normal((n, width))
    return z1.astype("float32"), (z1 + noise * rng.standard_normal((n, width))).astype("float32")


@pytest.mark.parametrize("temperature", [0.05, 0.1, 0.5, 2.0])
@pytest.mark.parametrize(("n", "width"), [(2, 2), (3, 7), (16, 8), (5, 64)])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_equation(n, width, temperature, seed):
    z1, z2 = two_views(n, width, seed)
    expected = slow_nt_xent(z1.astype(float), z2.astype(float), temperature)
    assert value(z1, z2, temperature) == pytest.approx(expected, rel=1e-5, abs=2e-5)


@pytest.mark.parametrize("n", [1, 2, 8, 33])
@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0])
def test_equal_embeddings_give_the_logarithm_of_the_number_of_candidates(n, temperature):
    same = np.tile(np.array([[0.3, -2.0, 1.0]], "float32"), (n, 1))
    assert value(same, same, temperature) == pytest.approx(math.log(2 * n - 1), abs=2e-4)


def test_equal_views_of_orthogonal_images_have_a_closed_form():
    eye = np.eye(6, dtype="float32")
    # the other view at similarity 1, ten others at 0
    expected = math.log(math.exp(1 / 0.5) + 10) - 1 / 0.5
    assert value(eye, eye, 0.5) == pytest.approx(expected, rel=1e-5)
    assert value(eye, eye, 0.02) == pytest.approx(0, abs=1e-5)


def test_opposite_views_have_a_closed_form():
    z = np.array([[1.0, 0.0]], "float32").repeat(2, axis=0)
    # of three candidates one is alike, and the two of the other view are opposite; one of these is meant
    expected = math.log(math.exp(1 / 0.5) + 2 * math.exp(-1 / 0.5)) + 1 / 0.5
    assert value(z, -z, 0.5) == pytest.approx(expected, rel=1e-5)


VIEWS = st.integers(0, 2**32 - 1).map(lambda seed: two_views(6, 4, seed))
TEMPERATURE = st.floats(0.05, 5)
few = settings(max_examples=25, deadline=None)


@few
@given(VIEWS, TEMPERATURE, st.integers(0, 2**32 - 1))
def test_the_scale_of_an_embedding_does_not_matter(views, temperature, seed):
    scales = 10 ** np.random.default_rng(seed).uniform(-6, 6, (2, 6, 1)).astype("float32")
    found = value(views[0] * scales[0], views[1] * scales[1], temperature)
    assert found == pytest.approx(value(*views, temperature), rel=1e-4, abs=1e-4)


@few
@given(VIEWS, TEMPERATURE, st.integers(0, 2**32 - 1))
def test_a_rotation_of_the_space_does_not_matter(views, temperature, seed):
    rotation = np.linalg.qr(np.random.default_rng(seed).standard_normal((4, 4)))[0].astype("float32")
    found = value(views[0] @ rotation, views[1] @ rotation, temperature)
    assert found == pytest.approx(value(*views, temperature), rel=1e-4, abs=1e-4)


@few
@given(VIEWS, TEMPERATURE, st.permutations(range(6)))
def test_neither_the_order_of_the_batch_nor_of_the_views_matters(views, temperature, order):
    z1, z2 = views
    expected = pytest.approx(value(z1, z2, temperature), rel=1e-5, abs=1e-5)
    assert value(z1[order], z2[order], temperature) == expected
    assert value(z2, z1, temperature) == expected
    swapped = np.arange(6)[:, None] % 2 == 0
    assert value(np.where(swapped, z1, z2), np.where(swapped, z2, z1), temperature) == expected


@few
@given(VIEWS, TEMPERATURE)
def test_the_loss_lies_between_0_and_its_worst_case(views, temperature):
    assert 0 <= value(*views, temperature) + 1e-5 <= 2 / temperature + math.log(11) + 1e-4


@pytest.mark.parametrize(("n", "temperature", "seed"), [(2, 0.1, 0), (4, 0.5, 1), (3, 0.05, 2)])
def test_the_gradient_equals_finite_differences(n, temperature, seed):
    z1, z2 = two_views(n, 3, seed)
    _, found = gradients(z1, z2, temperature)
    stacked = np.stack([z1, z2]).astype(float)
    step = 1e-5
    expected = np.zeros_like(stacked)
    for index in np.ndindex(stacked.shape):
        above, below = stacked.copy(), stacked.copy()
        above[index] += step
        below[index] -= step
        expected[index] = (slow_nt_xent(*above, temperature) - slow_nt_xent(*below, temperature)) / (2 * step)
    np.testing.assert_allclose(np.stack(found), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("n", [1, 2, 16])
@pytest.mark.parametrize("temperature", [0.01, 0.1])
@pytest.mark.parametrize("norm", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loss_and_gradient_are_finite_at_the_extremes(n, temperature, norm, dtype):
    for z1, z2 in (two_views(n, 4, 0), (np.ones((n, 4), "float32"),) * 2):
        z1, z2 = z1 * np.float32(norm), z2 * np.float32(norm)
        loss, found = gradients(z1, z2, temperature, dtype)
        rounded = [np.asarray(tf.cast(tf.cast(z, dtype), "float32"), float) for z in (z1, z2)]
        # bfloat16 costs its rounding of the input, and nothing more; at 0.01 the similarities reach 100
        assert loss == pytest.approx(slow_nt_xent(*rounded, temperature), rel=1e-4, abs=1e-4)
        assert all(np.isfinite(g).all() for g in found)
        # only the direction counts, so that the gradient grows as the embedding shrinks
        assert all(np.abs(g).max() <= 10 / temperature / norm for g in found)


def test_a_loss_of_half_precision_embeddings_is_in_full_precision():
    z1, z2 = (ops.cast(z, "bfloat16") for z in two_views(4, 3, 0))
    assert nt_xent(z1, z2, 0.1).dtype == "float32"


def test_an_embedding_of_zeros_has_a_finite_loss_and_gradient():
    z1, z2 = two_views(3, 4, 0)
    z1[1] = 0
    loss, found = gradients(z1, z2, 0.1)
    assert math.isfinite(loss)
    assert all(np.isfinite(g).all() for g in found)
    nothing, found = gradients(np.zeros((3, 4), "float32"), np.zeros((3, 4), "float32"), 0.1)
    assert nothing == pytest.approx(math.log(5), rel=1e-5)
    assert all(np.isfinite(g).all() for g in found)


def test_no_number_in_no_number_out():
    z1, z2 = two_views(3, 4, 0)
    z1[0, 0] = np.nan
    assert math.isnan(value(z1, z2, 0.1))


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e6, 1e30])
def test_rows_get_unit_length_whatever_their_scale(scale):
    z = np.array([[3.0, 4.0], [-1.0, 0.0]], "float32") * np.float32(scale)
    found = np.asarray(l2_normalize(ops.convert_to_tensor(z)))
    np.testing.assert_allclose(found, [[0.6, 0.8], [-1, 0]], rtol=1e-5)


def test_a_row_of_zeros_stays_zero():
    np.testing.assert_array_equal(np.asarray(l2_normalize(np.zeros((2, 3), "float32"))), np.zeros((2, 3)))


@pytest.mark.parametrize("temperature", [0, 0.0, -0.1, float("nan")])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(ValueError, match=f"temperature must be > 0, not {temperature}"):
        nt_xent(*two_views(2, 3, 0), temperature)


@pytest.mark.parametrize(
    "shapes", [((2, 3), (2, 4)), ((2, 3), (3, 3)), ((3,), (3,)), ((2, 2, 3), (2, 2, 3)), ((4, 3), (2, 3))]
)
def test_views_of_different_or_wrong_shapes_are_refused(shapes):
    z1, z2 = (np.ones(shape, "float32") for shape in shapes)
    with pytest.raises(ValueError, match=r"same shape \(N, D\)"):
        nt_xent(z1, z2, 0.1)
