"""The next model against the one in use."""

from __future__ import annotations

import pytest

from components.shared.evaluation.gate import score
from tests.helpers.gate import NO_CHAMPION, champion, decided, make_three, make_truth, the


@pytest.mark.parametrize(
    ("best", "passed", "words"),
    [
        (NO_CHAMPION, True, "no champion"),
        (champion(version="3", test_digest="t" * 64, test_accuracy=0.80), True, "version 3"),
        (champion(version="3", test_digest="t" * 64, test_accuracy=0.99), False, "99.0%"),
        (champion(version="3", test_digest="x" * 64, test_accuracy=0.99), True, "other test images"),
        (champion(version="3", test_accuracy=0.10), False, "test_digest"),
        (champion(version="3", test_digest="t" * 64), False, "test_accuracy"),
        (champion(unavailable="registry http://x: refused"), False, "could not be asked"),
    ],
)
def test_champion(best, passed, words):
    truth = make_truth()
    blessing = decided(make_three(truth), truth, best)
    check = the(blessing, "champion")
    assert check.passed is passed
    assert words in check.why
    assert blessing.blessed is passed


def test_champion_tolerance_is_kept_to_the_image():
    truth = make_truth()
    candidates = make_three(truth)
    reached = float(score(candidates, truth)["finetune"].accuracy.mean())
    for ahead, passed in ((0.01, True), (0.011, False)):
        best = champion(version="1", test_digest="t" * 64, test_accuracy=reached + ahead)
        assert the(decided(candidates, truth, best), "champion").passed is passed
