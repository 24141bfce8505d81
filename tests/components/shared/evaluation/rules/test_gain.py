"""A gain that is large enough."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.gate import CLASSES, decided, make_three, make_truth, the


def test_swapping_winner_and_baseline_turns_the_gain_over():
    truth = make_truth()
    one = decided(make_three(truth, baseline=0.7, probe=0.1, finetune=0.85), truth)
    candidates = make_three(truth, baseline=0.7, probe=0.1, finetune=0.85)
    worse, better = candidates["baseline"].probabilities, candidates["finetune"].probabilities
    # on test alone: held-out images decide who may be judged
    worse["test"], better["test"] = better["test"], worse["test"]
    other = decided(candidates, truth)
    assert other.gain == pytest.approx(-one.gain)
    assert not other.blessed


def test_a_gain_of_exactly_the_threshold_passes_and_one_image_less_does_not():
    truth = make_truth(1000)
    candidates = make_three(truth, probe=0.1)
    answers = {"baseline": 700, "finetune": 720}

    def right_first(count):
        predicted = np.where(np.arange(1000) < count, truth.labels["test"], (truth.labels["test"] + 1) % CLASSES)
        return np.eye(CLASSES, dtype=np.float32)[predicted][None].repeat(3, axis=0)

    for name, count in answers.items():
        candidates[name].probabilities["test"] = right_first(count)
    assert the(decided(candidates, truth), "gain").passed
    candidates["finetune"].probabilities["test"] = right_first(719)
    assert not the(decided(candidates, truth), "gain").passed
