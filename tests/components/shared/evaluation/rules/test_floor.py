"""A model that is of use at all."""

from __future__ import annotations

from tests.helpers.gate import decided, make_three, make_truth, the


def test_the_exported_model_must_reach_the_floor():
    truth = make_truth()
    candidates = make_three(truth)
    own = decided(candidates, truth).artefact.accuracy
    assert the(decided(candidates, truth, min_accuracy=own), "floor").passed
    assert not the(decided(candidates, truth, min_accuracy=own + 1 / 800), "floor").passed
