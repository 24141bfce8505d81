"""A gain that is more than luck."""

from __future__ import annotations

import numpy as np
import pytest

from components.shared.evaluation.gate import choose_winner, is_contested
from components.shared.evaluation.predictions import Candidate
from components.shared.evaluation.statistics import correct, gain_bound, look_alpha, mean_gain
from tests.helpers.gate import decided, make_candidate, make_three, make_truth, the


def test_identical_models_gain_nothing_and_are_refused_for_want_of_certainty():
    truth = make_truth()
    candidates = make_three(truth, probe=0.3)
    rival = make_candidate("baseline", truth, 0.85, validation_level=0.5)
    probabilities = {**rival.probabilities, "test": candidates["finetune"].probabilities["test"]}
    candidates["baseline"] = Candidate("baseline", rival.result, probabilities, rival.labels)
    blessing = decided(candidates, truth, min_gain=0.0)
    assert blessing.gain == 0
    assert the(blessing, "gain").passed
    assert not the(blessing, "certainty").passed
    assert not the(blessing, "artefact").passed
    assert not blessing.blessed


def test_the_bound_is_that_of_the_statistics_at_what_the_look_may_spend():
    truth = make_truth()
    candidates = make_three(truth)
    blessing = decided(candidates, truth)
    right = {name: correct(found.probabilities["test"], truth.labels["test"]) for name, found in candidates.items()}
    bound = gain_bound(right["finetune"], right["baseline"], blessing.alpha)
    assert the(blessing, "certainty").value == blessing.interval[0] == bound.low
    assert blessing.interval[1] - bound.gain == pytest.approx(bound.gain - bound.low)
    assert (blessing.standard_error, blessing.df) == (bound.standard_error, bound.df)


def test_a_winner_that_may_have_been_chosen_by_luck_spends_a_third():
    truth = make_truth()
    clear, close = make_three(truth, probe=0.5), make_three(truth, probe=0.835)
    certain = decided(clear, truth)
    assert certain.alpha == look_alpha(1)
    assert "a third" not in the(certain, "certainty").why
    cut = decided(close, truth)
    assert cut.winner == "finetune"
    assert cut.alpha == look_alpha(1) / 3
    assert cut.confidence == 1 - 2 * cut.alpha
    assert "a third of this look's error" in the(cut, "certainty").why
    right = {name: correct(found.probabilities["test"], truth.labels["test"]) for name, found in close.items()}
    assert cut.interval[0] == gain_bound(right[cut.winner], right["baseline"], cut.alpha).low


def test_a_probe_that_wins_a_draw_spends_a_third_too():
    truth = make_truth()
    blessing = decided(make_three(truth, probe=0.85), truth)
    assert (blessing.winner, blessing.alpha) == ("probe", look_alpha(1) / 3)
    blessing = decided(make_three(truth, probe=0.85, finetune=0.6), truth)
    assert (blessing.winner, blessing.alpha) == ("probe", look_alpha(1))


def null_night(rng, replicates=8, images=2000, seed_spread=0.02):
    """Right answers of three models without any true difference, to held-out and to test images."""
    levels = {name: 0.7 + rng.normal(0, seed_spread, (replicates, 1)) for name in ("baseline", "probe", "finetune")}
    return [{name: rng.random((replicates, images)) < level for name, level in levels.items()} for _ in range(2)]


def test_choosing_the_luckier_of_two_without_a_gain_would_have_a_price():
    rng = np.random.default_rng(77)
    free, ours, looks, ours_looks, nights = 0, 0, 0, 0, 800
    for _ in range(nights):
        validated, tested = null_night(rng, images=1000)
        better = max(("probe", "finetune"), key=lambda name: validated[name].mean())
        # else the test set stays closed
        if mean_gain(validated[better], validated["baseline"]) > 0:
            looks += 1
            free += gain_bound(tested[better], tested["baseline"], 0.05).low > 0
        winner = choose_winner(validated)
        if mean_gain(validated[winner], validated["baseline"]) > 0:
            ours_looks += 1
            alpha = 0.05 / (3 if is_contested(winner, validated) else 1)
            ours += gain_bound(tested[winner], tested["baseline"], alpha).low > 0
    assert free / looks > 0.08
    assert ours / ours_looks <= 0.05 + 2 * (0.05 * 0.95 / ours_looks) ** 0.5
