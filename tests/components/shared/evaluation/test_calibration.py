"""Calibration: by hand, transcribed slowly, and on answers whose true temperature is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import softmax

from components.shared.evaluation.calibration import (
    brier,
    coverage,
    expected_calibration_error,
    fit_temperature,
    log_loss,
    reliability,
    rescale,
)


def drawn(n=20_000, classes=5, temperature=1.0, seed=0):
    """Answers whose logits are `temperature` times too large, and labels drawn from what they should be."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal((n, classes))
    true = softmax(logits, axis=1)
    labels = (true.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return softmax(logits * temperature, axis=1).astype(np.float32), labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0, 12.0])
def test_the_temperature_is_found_again_and_calibrates(temperature):
    probabilities, labels = drawn(temperature=temperature)
    found = fit_temperature(probabilities, labels)
    # float32 probabilities of far too sure answers have lost some of their logits
    assert found == pytest.approx(temperature, rel=0.05)
    calibrated = rescale(probabilities, found)
    assert expected_calibration_error(calibrated, labels) < 0.02
    if temperature != 1:
        assert log_loss(calibrated, labels) < log_loss(probabilities, labels)
        assert expected_calibration_error(probabilities, labels) > 0.05


def test_no_other_temperature_has_a_smaller_log_loss():
    probabilities, labels = drawn(n=300, temperature=2.0)
    found = fit_temperature(probabilities, labels)
    best = log_loss(rescale(probabilities, found), labels)
    for other in np.geomspace(0.25, 20, 200):
        assert best <= log_loss(rescale(probabilities, other), labels) + 1e-7


def test_temperatures_stay_in_range_and_flat_answers_keep_theirs():
    surely = np.full((50, 2), [0.6, 0.4])
    assert fit_temperature(surely, np.zeros(50, int)) == 0.25
    assert fit_temperature(surely, np.ones(50, int)) == 20
    assert fit_temperature(np.full((50, 4), 0.25), np.arange(50) % 4) == 1
    # right as often as it says
    assert fit_temperature(np.full((5, 2), [0.6, 0.4]), np.array([0, 0, 0, 1, 1])) == pytest.approx(1)


def test_zeros_are_survived():
    probabilities = np.eye(3)[[0, 1, 2, 0, 1, 2]]
    labels = np.array([0, 1, 2, 0, 1, 0])
    assert 1 < fit_temperature(probabilities, labels) <= 20
    assert math.isfinite(log_loss(probabilities, labels))
    assert np.isfinite(rescale(probabilities, 5)).all()


def test_rescaling_divides_the_logits():
    logits = np.random.default_rng(0).standard_normal((2, 7, 4))
    found = rescale(softmax(logits, axis=-1), 2.5)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, softmax(logits / 2.5, axis=-1), rtol=1e-5)
    np.testing.assert_array_equal(rescale(found, 1), found)
    for bad in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match="temperature must be a positive number"):
            rescale(found, bad)


def test_scores_worked_out_by_hand():
    probabilities = np.array([[0.8, 0.2], [0.4, 0.6], [0.9, 0.1], [0.5, 0.5]])
    labels = np.array([0, 1, 1, 0])
    assert log_loss(probabilities, labels) == pytest.approx(-math.log(0.8 * 0.6 * 0.1 * 0.5) / 4)
    assert brier(probabilities, labels) == pytest.approx((2 * 0.04 + 2 * 0.16 + 2 * 0.81 + 2 * 0.25) / 4)
    found = reliability(probabilities, labels, bins=2)
    # 0.5 is the upper end of its bin
    assert found.images.tolist() == [1, 3]
    np.testing.assert_allclose(found.confidence, [0.5, (0.8 + 0.6 + 0.9) / 3])
    np.testing.assert_allclose(found.accuracy, [1, 2 / 3])
    gaps = 0.25 * 0.5 + 0.75 * abs(2 / 3 - 2.3 / 3)
    assert expected_calibration_error(probabilities, labels, bins=2) == pytest.approx(gaps)


def test_uniform_perfect_and_hopeless_answers():
    labels = np.arange(40) % 4
    uniform, perfect, hopeless = np.full((40, 4), 0.25), np.eye(4)[labels], np.eye(4)[(labels + 1) % 4]
    assert log_loss(uniform, labels) == pytest.approx(math.log(4))
    assert (log_loss(perfect, labels), log_loss(hopeless, labels) > 80) == (pytest.approx(0), True)
    assert (brier(perfect, labels), brier(hopeless, labels)) == (0, 2)
    assert [expected_calibration_error(answers, labels) for answers in (uniform, perfect, hopeless)] == [0, 0, 1]


def slow_reliability(probabilities, labels, bins):
    rows = []
    for k in range(bins):
        inside = [
            (max(p), list(p).index(max(p)) == label)
            for p, label in zip(probabilities, labels, strict=True)
            if k / bins < max(p) <= (k + 1) / bins
        ]
        count = len(inside)
        rows.append((count, *(sum(column) / count for column in zip(*inside, strict=True))) if count else (0,))
    return rows


def test_bins_equal_a_slow_transcription():
    probabilities, labels = drawn(n=400, temperature=2.0, seed=3)
    found = reliability(probabilities, labels)
    assert len(found.images) == 15
    for k, row in enumerate(slow_reliability(probabilities.astype(float), labels, 15)):
        assert found.images[k] == row[0]
        if row[0]:
            assert (found.confidence[k], found.accuracy[k]) == pytest.approx(row[1:])
        else:
            assert np.isnan(found.confidence[k]) and np.isnan(found.accuracy[k])


def test_coverage_worked_out_by_hand_answers_equal_confidences_together():
    confidences = np.array([0.9, 0.6, 0.8, 0.8, 0.7])
    right = np.array([True, False, True, False, True])
    probabilities = np.stack([confidences, 1 - confidences], axis=1)
    found = coverage(probabilities, (~right).astype(int), 0.75)
    np.testing.assert_allclose(found.coverage, [0.2, 0.6, 0.8, 1.0])
    np.testing.assert_allclose(found.accuracy, [1, 2 / 3, 3 / 4, 3 / 5])
    assert found.threshold == pytest.approx(0.7)
    assert coverage(probabilities, (~right).astype(int), 0.76).threshold == pytest.approx(0.9)
    assert coverage(probabilities, np.ones(5, int), 0.95).threshold is None
    everything = coverage(np.full((4, 2), [0.9, 0.1]), np.zeros(4, int), 1.0)
    assert (everything.coverage.tolist(), everything.threshold) == ([1.0], 0.9)


@pytest.mark.parametrize(
    ("probabilities", "labels", "says"),
    [
        (np.ones((3, 2)) / 2, np.zeros(4, int), "shape"),
        (np.ones((2, 3, 2)) / 2, np.zeros(2, int), "shape"),
        (np.ones((0, 2)), np.zeros(0, int), "shape"),
        (np.ones((3, 2)) / 2, np.array([0, 1, 2]), "labels 0 to 2"),
        (np.ones((3, 2)) / 2, np.array([0, 1, -1]), "labels -1 to 1"),
        (np.array([[np.nan, 0.5]]), np.array([0]), "not finite"),
        (np.array([[1.5, -0.5]]), np.array([0]), "negative"),
    ],
)
def test_what_is_no_answer_is_refused(probabilities, labels, says):
    for measure in (fit_temperature, log_loss, brier, expected_calibration_error, reliability):
        with pytest.raises(ValueError, match=says):
            measure(probabilities, labels)
    with pytest.raises(ValueError, match=says):
        coverage(probabilities, labels, 0.95)


@pytest.mark.parametrize("wanted", [0, 1.1])
def test_an_accuracy_that_can_not_be_wanted_is_refused(wanted):
    with pytest.raises(ValueError, match="wanted"):
        coverage(np.ones((1, 2)) / 2, np.zeros(1, int), wanted)
