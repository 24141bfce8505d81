"""The next model against those that reviewers approved, on tonight's images."""

from __future__ import annotations

import numpy as np
import pytest

from components.shared.evaluation.evidence import Rivals
from components.shared.evaluation.statistics import correct
from tests.helpers.gate import decided, make_three, make_truth, rival, the

N = 2000


@pytest.fixture(scope="module")
def made():
    """Truth, candidates, and the exported model's right answers."""
    truth = make_truth(N)
    candidates = make_three(truth)
    return truth, candidates, correct(candidates["finetune"].probabilities["test"], truth.labels["test"])[0]


def other(right, wins, losses):
    """Answers that are right on so many more images, and wrong on so many others."""
    changed = right.copy()
    changed[np.flatnonzero(~right)[:wins]] = True
    changed[np.flatnonzero(right)[:losses]] = False
    return changed


def test_without_a_champion_there_is_nothing_to_fall_behind(made):
    truth, candidates, _ = made
    check = the(decided(candidates, truth), "champion")
    assert check.passed and "no champion" in check.why


@pytest.mark.parametrize(
    ("wins", "losses", "passed"),
    [(0, 0, True), (20, 20, True), (0, 100, True), (200, 0, False), (120, 40, False)],
)
def test_a_worse_model_is_refused_and_an_equal_one_is_not(made, wins, losses, passed):
    truth, candidates, right = made
    blessing = decided(candidates, truth, Rivals([rival(truth, other(right, wins, losses), "3")]))
    check = the(blessing, "champion")
    assert check.passed is passed
    assert "version 3 answers" in check.why
    assert blessing.champion.difference == pytest.approx((losses - wins) / N)
    assert blessing.champion.images == N
    assert blessing.champion.tolerance == pytest.approx(-check.threshold)


def test_the_tolerance_is_at_least_what_the_images_can_show(made):
    truth, candidates, right = made
    champion = Rivals([rival(truth, other(right, 30, 30), "3")])
    blessing = decided(candidates, truth, champion, champion_tolerance=0.0)
    check = the(blessing, "champion")
    error = np.std(right.astype(int) - champion.found[0].right, ddof=1) / np.sqrt(N)
    assert blessing.champion.tolerance == pytest.approx((1.645 + 0.842) * error, rel=1e-3)
    assert check.passed and "as far as these images can show" in check.why
    generous = decided(candidates, truth, champion, champion_tolerance=0.2)
    assert generous.champion.tolerance == 0.2
    assert "can show" not in the(generous, "champion").why


def test_the_same_answers_pass_without_any_tolerance(made):
    truth, candidates, right = made
    assert the(decided(candidates, truth, Rivals([rival(truth, right)]), champion_tolerance=0.0), "champion").passed


def test_the_best_of_all_champions_is_the_reference(made):
    truth, candidates, right = made
    best = rival(truth, other(right, 200, 0), "2")
    for rivals in ([rival(truth, right, "7"), best], [best, rival(truth, right, "7")]):
        blessing = decided(candidates, truth, Rivals(rivals))
        assert not the(blessing, "champion").passed
        assert blessing.champion.version == "2"


def test_images_that_it_trained_on_are_left_out(made):
    truth, candidates, right = made
    better = other(right, 200, 0)
    seen = np.flatnonzero(better & ~right)
    assert not the(decided(candidates, truth, Rivals([rival(truth, better)])), "champion").passed
    blessing = decided(candidates, truth, Rivals([rival(truth, better, trained_on=seen)]))
    assert the(blessing, "champion").passed
    assert blessing.champion.images == N - 200


def test_too_few_images_left_are_no_comparison(made):
    truth, candidates, right = made
    blessing = decided(candidates, truth, Rivals([rival(truth, right, "5", trained_on=range(N - 29))]))
    assert "version 5 has trained on all but 29 of the test images" in the(blessing, "champion").why
    assert not blessing.blessed


def test_one_that_could_not_be_asked_refuses_with_its_reason(made):
    truth, candidates, right = made
    rivals = Rivals([rival(truth, right)], ["version 4 can't be loaded"], ["version 2 does not count"])
    blessing = decided(candidates, truth, rivals)
    assert the(blessing, "champion").why == "version 4 can't be loaded; version 2 does not count"
    assert (blessing.blessed, blessing.champion) == (False, None)
