"""The losses that predict an assignment or a distribution: closed forms, what must not change them, what must."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

from models.losses import dino, sinkhorn, swav
from tests.helpers import slow_losses
from tests.helpers.loss_checks import SEED, as_numpy, few, gradients, normal, value

ORDER = st.permutations(range(6))


def close(expected, tolerance=1e-4):
    return pytest.approx(expected, rel=tolerance, abs=tolerance)


# SwAV


@pytest.mark.parametrize(("epsilon", "iterations"), [(0.05, 3), (0.5, 1), (1.0, 20), (0.02, 3)])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (3, 5), (12, 4), (2, 30)])
@pytest.mark.parametrize("seed", [0, 1])
def test_assignments_equal_the_equation(n, k, epsilon, iterations, seed):
    scores = np.random.default_rng(seed).uniform(-1, 1, (n, k)).astype("float32")
    found = as_numpy(sinkhorn(ops.convert_to_tensor(scores), epsilon, iterations))
    expected = slow_losses.sinkhorn(scores.astype(float), epsilon, iterations)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)


@few
@given(SEED, st.integers(1, 8), st.integers(1, 8))
def test_many_iterations_make_the_assignments_doubly_stochastic(seed, n, k):
    scores = np.random.default_rng(seed).uniform(-1, 1, (n, k)).astype("float32")
    found = as_numpy(sinkhorn(ops.convert_to_tensor(scores), 0.5, 100))
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(found.sum(axis=0), n / k, rtol=1e-3)
    assert found.min() > 0


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_of_assignments_sum_to_1_whatever_the_scores(scale, dtype):
    scores = ops.cast(normal(np.random.default_rng(0), 6, 4) * np.float32(scale), dtype)
    found = as_numpy(sinkhorn(scores, 0.05, 3))
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)


def test_equal_scores_are_assigned_equally():
    found = as_numpy(sinkhorn(ops.full((3, 4), 0.7), 0.05, 3))
    np.testing.assert_allclose(found, 0.25, rtol=1e-5)


def test_a_prototype_that_all_images_prefer_is_shared_out():
    # the first prototype scores highest everywhere, but only two of four images may have it
    scores = np.array([[0.9, 0.0], [0.8, 0.0], [0.6, 0.0], [0.5, 0.0]], "float32")
    found = as_numpy(sinkhorn(ops.convert_to_tensor(scores), 0.01, 50))
    np.testing.assert_array_equal(found.argmax(axis=1), [0, 0, 1, 1])


@few
@given(SEED, st.permutations(range(6)), st.permutations(range(4)), st.floats(-5, 5))
def test_assignments_follow_their_images_and_prototypes(seed, order, prototypes, shift):
    scores = np.random.default_rng(seed).uniform(-1, 1, (6, 4)).astype("float32")
    expected = as_numpy(sinkhorn(ops.convert_to_tensor(scores), 0.2, 3))
    found = as_numpy(sinkhorn(ops.convert_to_tensor(scores[order][:, prototypes] + np.float32(shift)), 0.2, 3))
    np.testing.assert_allclose(found, expected[order][:, prototypes], rtol=1e-3, atol=1e-5)


def test_no_gradient_flows_through_assignments():
    scores = np.random.default_rng(0).uniform(-1, 1, (4, 3)).astype("float32")
    weights = ops.convert_to_tensor(normal(np.random.default_rng(1), 4, 3))
    loss, slopes = gradients(lambda s: ops.sum(weights * sinkhorn(s, 0.2, 3)), scores)
    assert loss != 0
    np.testing.assert_array_equal(slopes[0], 0)


@pytest.mark.parametrize("k", [2, 7, 300])
@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0])
def test_swav_of_equal_scores_is_the_logarithm_of_the_prototypes(k, temperature):
    scores = np.full((5, k), 0.3, "float32")
    assert value(swav, scores, scores, temperature=temperature) == pytest.approx(math.log(k), rel=1e-5)


def test_swav_of_certain_and_equal_views_costs_nothing():
    scores = np.eye(4, dtype="float32")
    assert value(swav, scores, scores, temperature=0.02) == pytest.approx(0, abs=1e-5)
    # of certain views that disagree, the difference of the scores over the temperature
    other = np.roll(scores, 1, axis=1)
    assert value(swav, scores, other, temperature=0.05, epsilon=0.02) == pytest.approx(1 / 0.05, rel=1e-5)


@few
@given(SEED, ORDER, st.permutations(range(4)), st.floats(0.05, 2))
def test_what_does_not_matter_to_swav(seed, order, prototypes, temperature):
    scores = np.random.default_rng(seed).uniform(-1, 1, (2, 6, 4)).astype("float32")
    expected = close(value(swav, *scores, temperature=temperature))
    assert value(swav, *scores[::-1], temperature=temperature) == expected
    assert value(swav, *scores[:, order], temperature=temperature) == expected
    assert value(swav, *scores[:, :, prototypes], temperature=temperature) == expected
    assert value(swav, *(scores + np.float32(0.5)), temperature=temperature) == expected


def test_each_view_of_swav_learns_from_the_other_s_assignment():
    # the first view is undecided: only it can gain, for its own assignment says nothing
    decided, undecided = np.eye(4, dtype="float32"), np.zeros((4, 4), "float32")
    _, (slope, _) = gradients(swav, undecided, decided, temperature=0.1)
    np.testing.assert_array_equal(slope.argmin(axis=1), range(4))
    assert np.abs(slope).max() > 0.1


# DINO


def outputs(seed, n=6, k=4):
    rng = np.random.default_rng(seed)
    return normal(rng, n, k), normal(rng, n, k), normal(rng, k)


USUAL = {"student_temperature": 0.1, "teacher_temperature": 0.04}


@pytest.mark.parametrize("k", [2, 7, 300])
@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0])
def test_dino_of_equal_logits_is_the_logarithm_of_their_number(k, temperature):
    equal = np.full((5, k), 0.3, "float32")
    options = {"student_temperature": temperature, "teacher_temperature": temperature}
    assert value(dino, equal, equal, np.zeros(k, "float32"), **options) == pytest.approx(math.log(k), rel=1e-5)
    # a student that is undecided, whatever the teacher says
    teacher, centre = outputs(0, 5, k)[1:]
    assert value(dino, equal, teacher, centre, **options) == pytest.approx(math.log(k), rel=1e-4)


def test_dino_of_a_certain_teacher_is_the_student_s_surprise():
    teacher = 100 * np.eye(3, dtype="float32")
    student = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]], "float32"))
    found = value(dino, student, teacher, np.zeros(3, "float32"), student_temperature=1.0, teacher_temperature=0.1)
    assert found == pytest.approx(-np.mean(np.log([0.5, 0.8, 0.4])), rel=1e-5)


def test_the_centre_is_taken_from_the_teacher_alone():
    student, teacher, centre = outputs(0)
    expected = value(dino, student, teacher - centre, np.zeros(4, "float32"), **USUAL)
    assert value(dino, student, teacher, centre, **USUAL) == pytest.approx(expected, rel=1e-5)
    assert abs(value(dino, student, teacher, np.zeros(4, "float32"), **USUAL) - expected) > 0.1


def test_a_student_equal_to_the_teacher_pays_the_teacher_s_entropy():
    logits = outputs(0)[0]
    p = np.exp(logits.astype(float) / 0.5)
    p /= p.sum(axis=1, keepdims=True)
    options = {"student_temperature": 0.5, "teacher_temperature": 0.5}
    found, slopes = gradients(dino, logits, logits, np.zeros(4, "float32"), **options)
    assert found == pytest.approx(-(p * np.log(p)).sum(axis=1).mean(), rel=1e-5)
    np.testing.assert_allclose(slopes[0], 0, atol=1e-6)


def test_the_teacher_of_dino_is_not_taught():
    _, slopes = gradients(dino, *outputs(0), **USUAL)
    assert np.abs(slopes[0]).max() > 0.01
    np.testing.assert_array_equal(slopes[1], 0)


@few
@given(SEED, ORDER, st.permutations(range(4)), st.floats(-5, 5))
def test_what_does_not_matter_to_dino(seed, order, places, shift):
    student, teacher, centre = outputs(seed)
    expected = close(value(dino, student, teacher, centre, **USUAL))
    for variant in (
        (student[order], teacher[order], centre),
        (student[:, places], teacher[:, places], centre[places]),
        (student + np.float32(shift), teacher, centre),
        (student, teacher + np.float32(shift), centre),
    ):
        assert value(dino, *variant, **USUAL) == pytest.approx(expected.expected, rel=1e-3, abs=1e-3)


@few
@given(SEED)
def test_student_and_teacher_are_no_equals(seed):
    student, teacher, centre = outputs(seed)
    assert value(dino, student, teacher, centre, **USUAL) != close(value(dino, teacher, student, centre, **USUAL))
