"""A gain that is more than luck."""

from __future__ import annotations

import pytest

from components.shared.evaluation.predictions import Candidate
from components.shared.evaluation.statistics import correct, gain_bound
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
