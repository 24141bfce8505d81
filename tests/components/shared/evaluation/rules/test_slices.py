"""No class that pays for the others."""

from __future__ import annotations

import pytest

from tests.helpers.gate import NAMES, decided, make_three, make_truth, the


def test_a_class_that_pays_for_the_others_is_named():
    truth = make_truth()
    candidates = make_three(truth, probe=0.1)
    cats = truth.labels["test"] == NAMES.index("cat")
    probabilities = candidates["finetune"].probabilities["test"]
    probabilities[:, cats] = 0
    probabilities[:, cats, 0] = 1
    blessing = decided(candidates, truth, min_gain=-1, min_accuracy=0)
    check = the(blessing, "slices")
    assert not check.passed
    assert "cat" in check.why
    assert check.value == pytest.approx(0.7, abs=0.06)
    assert not blessing.blessed


def test_a_class_without_test_images_is_refused_by_name():
    truth = make_truth()
    labels = truth.labels["test"]
    labels[labels == 3] = 0
    blessing = decided(make_three(truth), truth)
    assert not the(blessing, "slices").passed
    assert "dog" in the(blessing, "slices").why
    assert not blessing.blessed
