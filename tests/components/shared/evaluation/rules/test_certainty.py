"""A gain that is more than luck."""

from __future__ import annotations

from components.shared.evaluation.predictions import Candidate
from tests.helpers.gate import decided, make_three, make_truth, the


def test_identical_models_gain_nothing_and_are_refused_for_want_of_certainty():
    truth = make_truth()
    candidates = make_three(truth, probe=0.3)
    candidates["baseline"] = Candidate(
        "baseline",
        candidates["baseline"].result,
        candidates["finetune"].probabilities,
        candidates["finetune"].labels,
    )
    blessing = decided(candidates, truth, min_gain=0.0)
    assert blessing.gain == 0
    assert the(blessing, "gain").passed
    assert not the(blessing, "certainty").passed
    assert not blessing.blessed


def test_a_single_seed_of_identical_models_is_refused_too():
    truth = make_truth()
    candidates = make_three(truth, probe=0.3, seeds=1)
    candidates["baseline"].probabilities.update(candidates["finetune"].probabilities)
    blessing = decided(candidates, truth, min_gain=-1)
    assert blessing.interval == (0, 0)
    assert not the(blessing, "certainty").passed
