"""The lower bound of a gain: against a slow transcription, in closed cases, and on simulated experiments."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from components.shared.evaluation.statistics import gain_bound, look_alpha


def slow_bound(contender, baseline, alpha):
    """The definitions, in loops and exact fractions up to the t quantile."""

    def mean(values):
        values = list(values)
        return sum(values, Fraction(0)) / len(values)

    def variance(values):
        values = list(values)
        centre = mean(values)
        return sum(((value - centre) ** 2 for value in values), Fraction(0)) / (len(values) - 1)

    def parts(table):
        rows, images = len(table), len(table[0])
        if rows == 1:
            return Fraction(0), Fraction(0)
        row = [mean(line) for line in table]
        column = [mean(table[r][i] for r in range(rows)) for i in range(images)]
        grand = mean(row)
        squares = sum(
            ((table[r][i] - row[r] - column[i] + grand) ** 2 for r in range(rows) for i in range(images)),
            Fraction(0),
        )
        return variance(row) / rows, squares / ((rows - 1) * (images - 1)) / (images * rows)

    a, b = ([[Fraction(int(value)) for value in line] for line in table] for table in (contender, baseline))
    images = len(a[0])
    differences = [mean(line[i] for line in a) - mean(line[i] for line in b) for i in range(images)]
    by_images = variance(differences) / images
    (of_a, residual_a), (of_b, residual_b) = parts(a), parts(b)
    total = max(by_images + of_a + of_b - residual_a - residual_b, by_images)
    counted = [len(table) - 1 for table in (a, b) if len(table) > 1] or [images - 1]
    below = by_images**2 / (images - 1)
    below += sum(of**2 / (len(table) - 1) for of, table in ((of_a, a), (of_b, b)) if len(table) > 1)
    df = max(float(total**2 / below), min(counted)) if below else float(min(counted))
    gain = mean(mean(line) for line in a) - mean(mean(line) for line in b)
    return float(gain), math.sqrt(total), df, float(gain) - stats.t.ppf(1 - alpha, df) * math.sqrt(total)


tables = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(2, 9), st.integers(0, 2**32 - 1))


@given(tables, st.sampled_from([0.05, 0.01, 0.0007]))
@settings(max_examples=150, deadline=None)
def test_it_is_the_transcription(shape, alpha):
    contenders, baselines, images, seed = shape
    rng = np.random.default_rng(seed)
    contender = rng.random((contenders, images)) < 0.7
    baseline = rng.random((baselines, images)) < 0.5
    gain, error, df, low = slow_bound(contender, baseline, alpha)
    found = gain_bound(contender, baseline, alpha)
    assert found.gain == pytest.approx(gain, abs=1e-12)
    assert found.standard_error == pytest.approx(error, abs=1e-12)
    assert found.df == pytest.approx(df, rel=1e-9)
    assert found.low == pytest.approx(low, rel=1e-9, abs=1e-9)


def test_two_artefacts_are_compared_image_by_image():
    rng = np.random.default_rng(0)
    one, other = rng.random((2, 1, 500)) < 0.6
    found = gain_bound(one, other, 0.05)
    difference = one[0].astype(float) - other[0]
    assert found.df == 499
    assert found.standard_error == pytest.approx(difference.std(ddof=1) / math.sqrt(500))
    assert found.low == pytest.approx(difference.mean() - stats.t.ppf(0.95, 499) * found.standard_error)


def test_trainings_that_differ_widen_it_and_few_of_them_count_as_few():
    alike = np.tile(np.arange(1000) < 600, (3, 1))
    baseline = np.tile(np.arange(1000) < 500, (3, 1))
    apart = alike.copy()
    apart[0, 560:600], apart[2, 600:640] = False, True
    narrow, wide = gain_bound(alike, baseline, 0.05), gain_bound(apart, baseline, 0.05)
    assert wide.gain == narrow.gain == pytest.approx(0.1)
    assert wide.standard_error > 2 * narrow.standard_error
    assert 2 <= wide.df < 5 < narrow.df


def test_no_difference_at_all_has_no_error():
    right = np.ones((3, 10), bool)
    found = gain_bound(right, right, 0.05)
    assert (found.gain, found.low, found.standard_error, found.df) == (0, 0, 0, 2)


@pytest.mark.parametrize(
    ("contender", "baseline", "alpha", "says"),
    [
        (np.ones((3, 5), bool), np.ones((3, 6), bool), 0.05, "share their images"),
        (np.ones(5, bool), np.ones((3, 5), bool), 0.05, "share their images"),
        (np.ones((3, 1), bool), np.ones((3, 1), bool), 0.05, "1 images"),
        (np.ones((0, 5), bool), np.ones((3, 5), bool), 0.05, "0 and 3 replicates"),
        (np.ones((3, 5), bool), np.ones((3, 5), bool), 0.0, "alpha"),
        (np.ones((3, 5), bool), np.ones((3, 5), bool), 0.6, "alpha"),
    ],
)
def test_what_can_not_be_compared_is_refused(contender, baseline, alpha, says):
    with pytest.raises(ValueError, match=says):
        gain_bound(contender, baseline, alpha)


@pytest.mark.parametrize(("images", "seed_spread"), [(200, 0.02), (2000, 0.02), (10000, 0.005)])
def test_a_null_gain_lies_below_the_bound_in_at_most_about_five_of_a_hundred_experiments(images, seed_spread):
    rng = np.random.default_rng(1)
    passed, experiments = 0, 300
    for _ in range(experiments):
        # images are easy or hard for everybody; a training shifts the threshold
        difficulty = rng.normal(size=images)
        sides = []
        for _ in range(2):
            level = rng.normal(0, seed_spread * 3.5, (3, 1))
            sides.append(difficulty * 0.9 + rng.normal(0, 1, (3, images)) < 0.7 + level)
        passed += gain_bound(*sides, 0.05).low > 0
    # three standard errors of the simulation above 5 %
    assert passed / experiments <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / experiments)


def test_all_looks_together_spend_alpha():
    assert look_alpha(1) == pytest.approx(0.0304, abs=1e-4)
    assert look_alpha(2) == look_alpha(1) / 4
    spent = sum(look_alpha(k, 0.01) for k in range(1, 100_000))
    assert 0.00999 < spent < 0.01
    with pytest.raises(ValueError, match="k must be at least 1"):
        look_alpha(0)
