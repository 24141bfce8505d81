"""A model that is of use at all."""

from __future__ import annotations

from tests.helpers.gate import decided, make_three, make_truth, the


def test_floor():
    truth = make_truth()
    candidates = make_three(truth)
    assert not the(decided(candidates, truth, min_accuracy=0.9), "floor").passed
    assert the(decided(candidates, truth, min_accuracy=0.8), "floor").passed
