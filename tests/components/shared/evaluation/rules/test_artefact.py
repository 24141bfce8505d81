"""The very model that ships."""

from __future__ import annotations

import numpy as np
import pytest

from components.shared.evaluation.statistics import correct
from tests.helpers.gate import decided, make_three, make_truth, the


def test_the_exported_replicate_is_judged_by_itself():
    truth = make_truth()
    candidates = make_three(truth)
    blessing = decided(candidates, truth)
    exported = correct(candidates["finetune"].probabilities["test"], truth.labels["test"])[0].mean()
    assert blessing.artefact.accuracy == pytest.approx(exported)
    assert blessing.artefact.low < exported < blessing.artefact.high
    assert the(blessing, "artefact").passed


def test_a_poor_exported_replicate_is_refused_whatever_the_mean_says():
    truth = make_truth()
    candidates = make_three(truth, probe=0.3, finetune=0.95, replicates=5)
    candidates["finetune"].result.details["exported_seed"] = 4
    labels = truth.labels["test"]
    answers = np.where(np.arange(len(labels)) < 0.7 * len(labels), labels, (labels + 1) % 4)
    candidates["finetune"].probabilities["test"][4] = np.eye(4, dtype=np.float32)[answers]
    blessing = decided(candidates, truth, max_slice_drop=1.0)
    assert the(blessing, "gain").passed
    assert not the(blessing, "artefact").passed
    assert "which does not lie above 0" in the(blessing, "artefact").why
    assert not blessing.blessed
