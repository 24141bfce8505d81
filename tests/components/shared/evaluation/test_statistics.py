"""Accuracies, slices and what a test set can prove: by hand, transcribed slowly, and on simulated experiments."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from components.shared.evaluation.statistics import (
    accuracy,
    accuracy_bound,
    confusion,
    correct,
    gain_bound,
    holm,
    mean_gain,
    paired_bound,
    recall,
    slice_p_values,
    smallest_gain,
    spread,
)


def test_scores_against_values_worked_out_by_hand():
    labels = np.array([0, 0, 1, 1, 1])
    answers = np.array([[0, 1, 1, 1, 0], [0, 0, 1, 0, 0]])
    right = correct(np.eye(2)[answers], labels)
    assert right.tolist() == [[True, False, True, True, False], [True, True, True, False, False]]
    np.testing.assert_allclose(accuracy(right), [0.6, 0.6])
    np.testing.assert_allclose(recall(right, labels, 2), [[0.5, 2 / 3], [1.0, 1 / 3]])
    assert confusion(answers[0], labels, 2).tolist() == [[1, 1], [1, 2]]
    assert np.isnan(recall(right, labels, 3)[:, 2]).all()


def test_mean_gain_has_no_rounding_at_whole_images():
    model, rival = np.arange(100)[None] < 58, np.arange(100)[None] < 56
    assert mean_gain(model, rival) == 0.02
    assert 0.58 - 0.56 < 0.02


def test_spread_is_the_sample_s():
    assert spread(np.array([0.5, 0.6, 0.7])) == pytest.approx(0.1)
    assert spread(np.array([0.5])) == 0


def test_accuracy_of_one_artefact_has_the_binomial_interval():
    right = np.arange(1000)[None] < 800
    found = accuracy_bound(right, 0.025)
    assert found.gain == 0.8
    assert found.low == pytest.approx(0.8 - stats.t.ppf(0.975, 999) * math.sqrt(0.8 * 0.2 / 999))


def test_accuracy_of_trainings_that_differ_has_their_spread():
    right = np.arange(1000) < np.array([[500], [600], [700]])
    found = accuracy_bound(right, 0.05)
    assert found.gain == pytest.approx(0.6)
    # between trainings alone: 0.1 / sqrt(3)
    assert found.standard_error > 0.1 / math.sqrt(3) > 0.05
    assert 2 <= found.df < 4


def test_two_artefacts_are_compared_as_by_the_paired_t_test():
    new, old = np.random.default_rng(0).random((2, 300)) < np.array([[0.7], [0.6]])
    found = paired_bound(new, old, 0.05)
    known = stats.ttest_rel(new.astype(float), old.astype(float), alternative="greater")
    assert found.gain / found.standard_error == pytest.approx(known.statistic)
    assert found.df == known.df
    assert found.low == pytest.approx(known.confidence_interval(0.95).low)
    assert paired_bound(new, new, 0.05).low == 0
    with pytest.raises(ValueError, match="share their images"):
        paired_bound(new, old[1:], 0.05)
    with pytest.raises(ValueError, match="one artefact"):
        paired_bound(new[None], old, 0.05)


def slow_holm(p_values, alpha):
    refused, left = set(), dict(enumerate(p_values))
    while left:
        worst = min(left, key=lambda index: left[index])
        if left[worst] > alpha / len(left):
            break
        refused.add(worst)
        del left[worst]
    return [index in refused for index in range(len(p_values))]


def test_holm_steps_down():
    assert holm([0.01, 0.04, 0.03, 0.005], 0.05).tolist() == [True, False, False, True]
    assert holm([0.02, 0.5], 0.05).tolist() == [True, False]
    assert holm([], 0.05).tolist() == []
    # exactly at the limit is refused; one that comes after a failure is not, however close
    assert holm([0.025, 0.05], 0.05).tolist() == [True, True]
    assert holm([0.026, 0.027], 0.05).tolist() == [False, False]
    rng = np.random.default_rng(0)
    for _ in range(200):
        p = rng.random(rng.integers(1, 12)) ** 4
        assert holm(p, 0.05).tolist() == slow_holm(p, 0.05)


def slow_slice_p_value(contender, baseline, slices, number, max_drop):
    """From the definitions, cell by cell: the two-way layout of each slice, and the trainings' mean excess."""
    between = []
    for side in (contender, baseline):
        excess = []
        for rows in slices:
            right = side[:, rows].astype(float)
            replicates, images = right.shape
            own = right - right.mean(axis=0) - right.mean(axis=1, keepdims=True) + right.mean()
            residual = (own**2).sum() / ((replicates - 1) * (images - 1))
            excess.append(np.var(right.mean(axis=1), ddof=1) - residual / images)
        between.append(max(np.mean(excess), 0) / len(side))
    rows = slices[number]
    difference = contender[:, rows].mean(axis=0) - baseline[:, rows].mean(axis=0)
    terms = [np.var(difference, ddof=1) / len(rows), *between]
    freedoms = [len(rows) - 1, len(contender) - 1, len(baseline) - 1]
    df = sum(terms) ** 2 / sum(term**2 / freedom for term, freedom in zip(terms, freedoms, strict=True))
    return stats.t.sf((-difference.mean() - max_drop) / math.sqrt(sum(terms)), df)


def test_slices_p_values_follow_their_definition():
    rng = np.random.default_rng(3)
    levels = rng.uniform(0.2, 0.8, (7, 1))
    right = rng.random((7, 200)) < levels
    contender, baseline = right[:3], right[3:]
    slices = [np.arange(0, 80), np.arange(80, 120), np.arange(100, 200)]
    drops, p = slice_p_values(contender, baseline, slices, 0.1)
    for number, rows in enumerate(slices):
        assert drops[number] == pytest.approx(baseline[:, rows].mean() - contender[:, rows].mean())
        assert p[number] == pytest.approx(slow_slice_p_value(contender, baseline, slices, number, 0.1))
        assert slice_p_values(contender, baseline, slices, drops[number])[1][number] == pytest.approx(0.5)


def test_of_fixed_artefacts_the_images_alone_count():
    rng = np.random.default_rng(4)
    new, old = rng.random(50) < 0.4, rng.random(50) < 0.7
    drops, p = slice_p_values(new[None], old[None], [np.arange(50)], 0.1)
    difference = old.astype(float) - new
    assert p[0] == pytest.approx(stats.ttest_1samp(difference, 0.1, alternative="greater").pvalue)
    assert drops[0] == pytest.approx(difference.mean())


def test_slices_without_any_variance():
    ones, zeros, whole = np.ones((3, 40), bool), np.zeros((3, 40), bool), [np.arange(40)]

    def found(contender, baseline, max_drop):
        drops, p = slice_p_values(contender, baseline, whole, max_drop)
        return float(drops[0]), float(p[0])

    assert found(zeros, ones, 0.1) == (1, 0)
    assert found(ones, ones, 0.1) == (0, 1)
    assert found(ones, ones, 0.0) == (0, 1)
    assert found(zeros, ones, 1.0) == (1, 1)
    assert [part.tolist() for part in slice_p_values(ones, ones, [], 0.1)] == [[], []]


def sides(rng, images, replicates, falls=0.0, level=0.7, seed_spread=0.02):
    """Right answers of two methods: images are easy or hard for everybody, the contender `falls`."""
    difficulty = 1.41 * rng.standard_normal(images)
    scale = math.sqrt(1 + 1.41**2)
    made = []
    for mean in (level - falls, level):
        shift = stats.norm.ppf(mean) * scale + rng.normal(0, 3 * seed_spread * scale, (replicates, 1))
        made.append(rng.standard_normal((replicates, images)) + difficulty < shift)
    return made


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("images", [20, 50, 200])
@pytest.mark.parametrize("max_drop", [0.0, 0.03])
def test_equal_models_are_refused_for_a_slice_in_at_most_five_of_a_hundred_cases(classes, images, max_drop):
    rng = np.random.default_rng(11)
    slices = np.split(np.arange(classes * images), classes)
    experiments, refused = 60 if classes == 10 else 25, 0
    for _ in range(experiments):
        right = sides(rng, classes * images, 3, seed_spread=0.01)
        refused += holm(slice_p_values(*right, slices, max_drop)[1], 0.05).any()
    assert refused / experiments <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / experiments)


@pytest.mark.parametrize("replicates", [3, 5])
@pytest.mark.parametrize(("classes", "experiments"), [(10, 200), (100, 50)])
def test_a_fall_of_three_times_the_limit_is_found_on_two_hundred_images(classes, experiments, replicates):
    rng = np.random.default_rng(12)
    slices = np.split(np.arange(classes * 200), classes)
    found = 0
    for _ in range(experiments):
        right, baseline = sides(rng, classes * 200, replicates, seed_spread=0.01)
        fallen, _ = sides(rng, classes * 200, replicates, falls=0.3, seed_spread=0.01)
        # the others do not fall: the first one stands alone against all of Holm's divisor
        right[:, :200] = fallen[:, :200]
        found += holm(slice_p_values(right, baseline, slices, 0.1)[1], 0.05)[0]
    assert found / experiments >= 0.8


@pytest.mark.parametrize(
    ("images", "replicates", "seed_spread"), [(200, 3, 0.01), (2000, 5, 0.01), (2000, 3, 0.02)]
)
@pytest.mark.parametrize("alpha", [0.05, 0.0304])
def test_the_smallest_gain_is_shown_about_eighty_times_in_a_hundred(images, replicates, seed_spread, alpha):
    rng = np.random.default_rng(13)
    gain = smallest_gain(images, replicates, alpha, spread=seed_spread)
    shown = 0
    for _ in range(300):
        baseline, contender = sides(
            rng, images, replicates, falls=gain, level=0.7 + gain / 2, seed_spread=seed_spread
        )
        shown += gain_bound(contender, baseline, alpha).low > 0
    assert 0.72 < shown / 300 < 0.88


def test_more_images_replicates_and_error_show_smaller_gains():
    known = smallest_gain(1000, 3, 0.05)
    assert smallest_gain(4000, 3, 0.05) < known
    assert smallest_gain(1000, 5, 0.05) < known
    assert smallest_gain(1000, 3, 0.01) > known
    assert smallest_gain(1000, 3, 0.05, power=0.5) < known
    assert smallest_gain(1000, 3, 0.05, spread=0.05) > known
    # without any spread and with many images: normal quantiles of the paired differences
    many = smallest_gain(10**6, 50, 0.05, spread=0.0)
    error = math.sqrt(2 * 0.21 * 0.53 / (50 * 10**6))
    assert many == pytest.approx((1.645 + 0.842) * error, rel=0.03)


@pytest.mark.parametrize(
    "arguments",
    [(1, 3, 0.05), (100, 1, 0.05), (100, 3, 0.0), (100, 3, 0.6), (100, 3, 0.05, 0.05), (100, 3, 0.05, 0.8, -0.1)],
)
def test_a_smallest_gain_of_nothing_is_refused(arguments):
    with pytest.raises(ValueError):
        smallest_gain(*arguments)
