"""No slice that pays for the others."""

from __future__ import annotations

import numpy as np
import pytest

from components.shared.evaluation.evidence import Slice
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
    assert "class cat by" in check.why
    assert check.value == pytest.approx(0.7, abs=0.06)
    assert not blessing.blessed
    assert [found.name for found in blessing.slices if found.refused] == ["cat"]


def test_other_slices_than_classes_are_asked_too():
    truth = make_truth()
    candidates = make_three(truth, probe=0.1)
    dark = np.arange(0, 200)
    probabilities = candidates["finetune"].probabilities["test"]
    probabilities[:, dark] = np.roll(np.eye(4), 1, axis=1)[truth.labels["test"][dark]]
    slices = [Slice("brightness", "darkest quarter", dark), Slice("brightness", "the rest", np.arange(200, 800))]
    blessing = decided(candidates, truth, min_gain=-1, min_accuracy=0, slices=slices)
    assert "brightness darkest quarter" in the(blessing, "slices").why
    assert [found.refused for found in blessing.slices] == [True, False]


@pytest.mark.parametrize("images", [0, 29])
def test_a_slice_with_few_images_is_named_and_neither_refused_nor_known(images):
    truth = make_truth()
    slices = [Slice("class", "rare", np.arange(images)), Slice("class", "common", np.arange(30, 800))]
    blessing = decided(make_three(truth), truth, slices=slices)
    check = the(blessing, "slices")
    assert check.passed and blessing.blessed
    assert "not known, with fewer than 30 images: class rare" in check.why
    rare, common = blessing.slices
    assert (rare.images, rare.unknown, rare.refused, rare.p) == (images, True, False, None)
    assert (rare.drop is None) is (images == 0)
    assert (common.unknown, common.p is None) == (False, False)


def test_a_small_drop_on_few_images_is_no_proof():
    truth = make_truth(400)
    candidates = make_three(truth, probe=0.1)
    few = np.flatnonzero(truth.labels["test"] == 0)[:30]
    probabilities = candidates["finetune"].probabilities["test"]
    wrong = few[:12]
    probabilities[:, wrong] = np.roll(np.eye(4), 1, axis=1)[truth.labels["test"][wrong]]
    blessing = decided(candidates, truth, slices=[Slice("class", "few", few)])
    assert the(blessing, "slices").passed
    assert blessing.slices[0].p > 0.05
