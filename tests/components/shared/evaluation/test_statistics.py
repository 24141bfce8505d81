"""Accuracy, recall and the bootstrap interval: by hand, transcribed slowly, and on simulated experiments."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest

from components.shared.evaluation.statistics import (
    accuracy,
    accuracy_interval,
    confusion,
    correct,
    gain_interval,
    mean_gain,
    recall,
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


def slow_interval(model, rival, confidence, resamples, seed):
    """The bootstrap as its definition reads, one resample at a time."""
    rng = np.random.default_rng(seed)
    gains = []
    for _ in range(resamples):
        images = rng.integers(0, model.shape[1], model.shape[1])
        gain = 0.0
        for right, sign in ((model, 1), (rival, -1)):
            drawn = [right[rng.integers(0, len(right))][images].mean() for _ in range(len(right))]
            gain += sign * sum(drawn) / len(drawn)
        gains.append(gain)
    tail = (1 - confidence) / 2
    return np.quantile(gains, [tail, 1 - tail])


@pytest.mark.parametrize(("seeds", "rivals"), [(3, 3), (1, 1), (2, 4)])
def test_interval_equals_a_slow_transcription(seeds, rivals):
    rng = np.random.default_rng(3)
    hardness = rng.random(300)
    model = hardness + 0.2 * rng.standard_normal((seeds, 300)) < rng.uniform(0.70, 0.78, (seeds, 1))
    rival = hardness + 0.2 * rng.standard_normal((rivals, 300)) < rng.uniform(0.60, 0.68, (rivals, 1))
    fast = gain_interval(model, rival, 0.95, 20_000, 0)
    slow = slow_interval(model, rival, 0.95, 6_000, 1)
    # an end of the interval wanders by about 0.0015 between two runs of 6,000 resamples
    np.testing.assert_allclose(fast, slow, atol=0.005)


def test_interval_of_one_model_and_one_seed_is_the_binomial_one():
    right = np.arange(1000)[None] < 800
    low, high = accuracy_interval(right, 0.95, 20_000, 0)
    half = 1.96 * np.sqrt(0.8 * 0.2 / 1000)
    assert low == pytest.approx(0.8 - half, abs=0.002)
    assert high == pytest.approx(0.8 + half, abs=0.002)


@pytest.mark.parametrize(
    ("images", "seed_spread", "at_least", "too_high_at_most"),
    # the gate leans on the lower end; with many images and few, unlike seeds it promises too much more often
    [(400, 0.0, 0.97, 0.02), (400, 0.01, 0.94, 0.03), (2000, 0.01, 0.88, 0.06), (10_000, 0.01, 0.79, 0.11)],
)
def test_interval_covers_the_true_gain_as_often_as_its_docstring_says(
    images, seed_spread, at_least, too_high_at_most
):
    """Simulated experiments with hard and easy images and three unlike seeds; the truth is known."""
    rng = np.random.default_rng(7)
    experiments, seeds, levels = 300, 3, (0.75, 0.70)
    covered, too_high = 0, 0
    for _ in range(experiments):
        hardness = rng.random(images)
        sides = []
        for level in levels:
            seed_levels = level + seed_spread * rng.standard_normal((seeds, 1))
            sides.append(hardness < seed_levels + 0.1 * rng.uniform(-1, 1, (seeds, images)))
        low, high = gain_interval(sides[0], sides[1], 0.95, 400, 0)
        covered += low <= levels[0] - levels[1] <= high
        too_high += low > levels[0] - levels[1]
    assert covered / experiments > at_least
    assert too_high / experiments < too_high_at_most


def test_interval_is_quick_and_small_at_ten_thousand_images():
    rng = np.random.default_rng(0)
    model, rival = rng.random((3, 10_000)) < 0.85, rng.random((3, 10_000)) < 0.75
    tracemalloc.start()
    start = time.perf_counter()
    low, high = gain_interval(model, rival, 0.95, 2000, 0)
    seconds, peak = time.perf_counter() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert low < 0.1 < high
    assert seconds < 5
    assert peak < 64 * 2**20


def test_interval_is_the_same_for_the_same_seed_and_turns_over_when_models_swap():
    rng = np.random.default_rng(0)
    model, rival = rng.random((3, 500)) < 0.8, rng.random((3, 500)) < 0.7
    first = gain_interval(model, rival, 0.95, 2000, 5)
    assert first == gain_interval(model, rival, 0.95, 2000, 5)
    assert first != gain_interval(model, rival, 0.95, 2000, 6)
    low, high = gain_interval(rival, model, 0.95, 2000, 5)
    np.testing.assert_allclose((-high, -low), first, atol=0.006)
    assert mean_gain(rival, model) == -mean_gain(model, rival)
