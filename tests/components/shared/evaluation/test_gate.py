"""The gate's checks, on arrays."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from pydantic import ValidationError

from components.shared.errors import UserError
from components.shared.evaluation.gate import CHECKS, SCHEMA_VERSION, Blessing, read_blessing, score
from components.shared.evaluation.predictions import Candidate
from components.shared.evaluation.rules import rules
from components.shared.params.schema import GateParams
from tests.helpers.gate import CLASSES, decided, make_candidate, make_three, make_truth, the

# --- verdicts


def test_a_clear_gain_is_blessed_and_every_check_says_why():
    truth = make_truth()
    blessing = decided(make_three(truth), truth)
    assert blessing.blessed
    assert blessing.winner == "finetune"
    assert [check.name for check in blessing.checks] == list(CHECKS)
    assert all(check.passed and check.why for check in blessing.checks)
    assert blessing.gain == pytest.approx(0.15, abs=0.03)
    assert blessing.interval[0] < blessing.gain < blessing.interval[1]
    assert (blessing.dataset_digest, blessing.test_digest) == (truth.dataset_digest, truth.test_digest)


def test_the_winner_is_chosen_on_validation_never_on_test():
    truth = make_truth()
    candidates = make_three(truth)
    candidates["probe"] = make_candidate("probe", truth, 0.95, validation_level=0.6)
    candidates["finetune"] = make_candidate("finetune", truth, 0.85, validation_level=0.8)
    assert decided(candidates, truth).winner == "finetune"
    candidates["probe"] = make_candidate("probe", truth, 0.75, validation_level=0.9)
    assert decided(candidates, truth).winner == "probe"


def nan_in_one_row(candidate, truth):
    candidate.probabilities["test"][1, 5, 0] = np.nan


def rows_that_miss_one(candidate, truth):
    candidate.probabilities["validation"][0, 3] *= 2


def negative_probability(candidate, truth):
    candidate.probabilities["test"][0, 0] = [1.5, -0.5, 0, 0]


def other_labels(candidate, truth):
    candidate.labels["test"] = np.roll(truth.labels["test"], 1)


def fewer_rows(candidate, truth):
    candidate.probabilities["test"] = candidate.probabilities["test"][:, :-1]


def fewer_seeds_on_validation(candidate, truth):
    candidate.probabilities["validation"] = candidate.probabilities["validation"][:-1]


def whole_numbers(candidate, truth):
    candidate.probabilities["test"] = candidate.probabilities["test"].round().astype(int)


def fewer_seeds(candidate, truth):
    candidate.probabilities.update({split: p[:-1] for split, p in candidate.probabilities.items()})


FAULTS = {
    nan_in_one_row: "NaN",
    rows_that_miss_one: "not probabilities",
    negative_probability: "not probabilities",
    other_labels: "labels differ",
    fewer_rows: "shape",
    fewer_seeds_on_validation: "seeds",
    whole_numbers: "not floating point",
    fewer_seeds: "numbers of seeds",
}


@pytest.mark.parametrize("name", ["baseline", "probe", "finetune"])
@pytest.mark.parametrize("break_it", FAULTS, ids=lambda fault: fault.__name__)
def test_faulty_predictions_are_refused_with_their_reason(break_it, name):
    truth = make_truth(200)
    candidates = make_three(truth)
    assert the(decided(candidates, truth), "inputs").passed
    break_it(candidates[name], truth)
    blessing = decided(candidates, truth)
    check = the(blessing, "inputs")
    assert not blessing.blessed
    assert not check.passed
    assert FAULTS[break_it] in check.why
    assert name in check.why
    assert blessing.winner is None
    assert not any(check.passed for check in blessing.checks)
    assert blessing.reasons() == [f"inputs: {check.why}"]


def with_record(candidate, **update):
    result = candidate.result.model_copy(update=update)
    return Candidate(candidate.name, result, candidate.probabilities, candidate.labels)


@pytest.mark.parametrize(
    ("name", "update", "words"),
    [
        ("finetune", {"dataset_digest": "e" * 64}, "another dataset"),
        ("baseline", {"details": {"optimisation_steps": 99, "exported_seed": 0}}, "99 optimisation steps"),
        ("baseline", {"details": {"exported_seed": 0}}, "optimisation_steps = None"),
        ("finetune", {"details": {"optimisation_steps": float("nan"), "exported_seed": 0}}, "= nan"),
        ("finetune", {"details": {"optimisation_steps": 100, "exported_seed": 3}}, "exported_seed = 3"),
        ("probe", {"details": {}}, "exported_seed = None"),
        ("probe", {"step": "baseline"}, "written by the step 'baseline'"),
        ("probe", {"inputs": {"encoder": "f" * 64}}, "different encoders"),
        ("finetune", {"params": {"encoder": {"name": "resnet18"}}}, "different parameters of `encoder`"),
        ("baseline", {"params": {"supervised": {"epochs": 1}}}, "different parameters of `supervised`"),
    ],
)
def test_unfair_comparisons_are_refused_with_their_reason(name, update, words):
    truth = make_truth(200)
    candidates = make_three(truth)
    candidates[name] = with_record(candidates[name], **update)
    blessing = decided(candidates, truth)
    assert not blessing.blessed
    assert words in the(blessing, "inputs").why


def test_a_baseline_with_more_steps_is_fair():
    truth = make_truth(200)
    candidates = make_three(truth)
    candidates["baseline"] = with_record(
        candidates["baseline"], details={"optimisation_steps": 500, "exported_seed": 0}
    )
    assert the(decided(candidates, truth), "inputs").passed


def test_what_could_not_be_read_is_told_and_the_rest_is_scored():
    truth = make_truth(200)
    candidates = make_three(truth)
    del candidates["baseline"]
    blessing = decided(candidates, truth, unreadable=["baseline/result.json: missing"])
    assert not blessing.blessed
    assert "baseline/result.json: missing" in the(blessing, "inputs").why
    assert set(score(candidates, truth)) == {"probe", "finetune"}


@pytest.mark.parametrize("label", [-1, CLASSES])
def test_test_images_without_a_class_are_refused(label):
    truth = make_truth(200)
    candidates = make_three(truth)
    truth.labels["test"][7] = label
    blessing = decided(candidates, truth)
    assert not blessing.blessed
    assert "1 of 200 test images without a class" in the(blessing, "inputs").why
    assert score(candidates, truth) == {}


def test_an_empty_split_is_refused():
    truth = make_truth(200)
    truth.labels["validation"] = np.zeros(0, np.int64)
    blessing = decided(make_three(make_truth(200)), truth)
    assert not blessing.blessed
    assert "0 of 0 validation images" in the(blessing, "inputs").why


# --- blessing.json


def test_a_blessing_that_contradicts_its_checks_is_not_read(tmp_path):
    truth = make_truth(200)
    refused = decided(make_three(truth, probe=0.6, finetune=0.6), truth)
    assert not refused.blessed
    path = tmp_path / "blessing.json"
    path.write_text(refused.model_dump_json())
    assert read_blessing(tmp_path) == refused
    path.write_text(refused.model_dump_json().replace('"blessed":false', '"blessed":true'))
    with pytest.raises(Exception, match="blessed must say") as caught:
        read_blessing(tmp_path)
    assert type(caught.value).__name__ == "UserError"


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"blessed": true}'])
def test_a_damaged_blessing_is_one_line(tmp_path, content):
    (tmp_path / "blessing.json").write_text(content)
    with pytest.raises(Exception, match=r"blessing\.json") as caught:
        read_blessing(tmp_path)
    assert type(caught.value).__name__ == "UserError"
    assert "\n" not in str(caught.value)


def test_a_blessing_needs_a_check_and_a_winner():
    truth = make_truth(200)
    values = decided(make_three(truth), truth).model_dump()
    with pytest.raises(ValidationError, match="checks"):
        Blessing.model_validate({**values, "checks": []})
    with pytest.raises(ValidationError, match="winner"):
        Blessing.model_validate({**values, "winner": "baseline"})


@pytest.fixture
def blessed(tmp_path):
    """A function that changes a blessing's file and reads it."""
    truth = make_truth(200)
    values = json.loads(decided(make_three(truth), truth).model_dump_json())

    def _blessed(change):
        changed = copy.deepcopy(values)
        change(changed)
        (tmp_path / "blessing.json").write_text(json.dumps(changed))
        return read_blessing(tmp_path)

    return _blessed


def test_a_blessing_of_this_version_is_current(blessed):
    assert blessed(lambda values: None).require_current() is None


def test_one_from_before_a_rule_was_made_can_be_read_but_is_not_current(blessed):
    older = blessed(lambda values: values["checks"].pop(3))
    assert older.blessed and len(older.checks) == len(CHECKS) - 1
    with pytest.raises(UserError, match=rf"nobody asked for {CHECKS[3]}; run the evaluate step again"):
        older.require_current()


def test_one_of_a_later_version_can_be_read_but_is_not_current(blessed):
    def rename_and_add(values):
        values["schema_version"] = SCHEMA_VERSION + 1
        values["energy"] = 3
        values["checks"].append({**values["checks"][0], "name": "energy", "unit": "kWh"})

    later = blessed(rename_and_add)
    assert later.checks[-1].name == "energy"
    with pytest.raises(UserError, match=f"schema_version = {SCHEMA_VERSION + 1}: written by a later version"):
        later.require_current()


def test_one_more_rule_than_this_version_knows_does_no_harm(blessed):
    more = blessed(lambda values: values["checks"].append({**values["checks"][0], "name": "energy"}))
    assert more.require_current() is None


# --- rules


def test_the_rules_are_found_and_ordered_by_what_they_say():
    known = ["inputs", "gain", "certainty", "floor", "slices", "champion"]
    assert [name for name in CHECKS if name in known] == known
    for name, rule in rules().items():
        assert rule.__doc__.strip().endswith("?"), name
        assert set(rule.Options.model_fields) <= set(GateParams.model_fields), name
