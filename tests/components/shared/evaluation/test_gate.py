"""The gate's checks, on arrays."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from pydantic import ValidationError

from components.shared.errors import UserError
from components.shared.evaluation.gate import (
    CHECKS,
    SCHEMA_VERSION,
    Blessing,
    choose_winner,
    decide,
    judge,
    read_blessing,
    score,
)
from components.shared.evaluation.looks import Look, MemoryLedger, look_key
from components.shared.evaluation.policy import directions, weaker
from components.shared.evaluation.predictions import Candidate
from components.shared.evaluation.rules import rules
from components.shared.evaluation.statistics import look_alpha
from components.shared.params.composing import compose_params
from components.shared.params.schema import GateParams
from tests.helpers.gate import (
    CLASSES,
    GATE,
    SOUND,
    decided,
    make_candidate,
    make_search,
    make_three,
    make_truth,
    the,
)
from tests.helpers.trained import simulate

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


@pytest.mark.parametrize(
    ("probe", "finetune", "images", "winner"),
    [
        (26, 27, 30, "probe"),
        (27, 27, 30, "probe"),
        (20, 27, 30, "finetune"),
        (27, 20, 30, "probe"),
        (0, 1, 1, "probe"),
    ],
)
def test_fine_tuning_wins_where_held_out_images_tell_it_from_the_probe(probe, finetune, images, winner):
    # what the search's one training answered; the first images are right
    validated = {
        name: np.arange(images)[None] < right for name, right in (("probe", probe), ("finetune", finetune))
    }
    assert choose_winner(validated) == winner


def test_of_replicates_their_spread_counts_too():
    rng = np.random.default_rng(3)
    validated = {"probe": rng.random((3, 500)) < 0.8}
    steady, shaky = np.full((3, 1), 0.83), np.array([[0.93], [0.83], [0.73]])
    assert choose_winner({**validated, "finetune": rng.random((3, 500)) < steady}) == "finetune"
    assert choose_winner({**validated, "finetune": rng.random((3, 500)) < shaky}) == "probe"


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


def fewer_replicates_on_validation(candidate, truth):
    candidate.probabilities["validation"] = candidate.probabilities["validation"][:-1]


def whole_numbers(candidate, truth):
    candidate.probabilities["test"] = candidate.probabilities["test"].round().astype(int)


def fewer_replicates(candidate, truth):
    candidate.probabilities.update({split: p[:-1] for split, p in candidate.probabilities.items()})
    candidate.result.details["replicates"] = [0, 1]


def a_replicate_that_was_not_gathered(candidate, truth):
    candidate.result.details["replicates"] = [0, 1, 2, 3]


def a_replicate_twice(candidate, truth):
    candidate.result.details["replicates"] = [0, 1, 1]


def other_held_out_images(candidate, truth):
    candidate.result.details["held_out"] = "test"


FAULTS = {
    nan_in_one_row: "NaN",
    rows_that_miss_one: "not probabilities",
    negative_probability: "not probabilities",
    other_labels: "labels differ",
    fewer_rows: "shape",
    fewer_replicates_on_validation: "2 replicates on validation but 3 on test",
    whole_numbers: "not floating point",
    fewer_replicates: "different replicates",
    a_replicate_that_was_not_gathered: "replicates = [0, 1, 2, 3]; expected 3",
    a_replicate_twice: "replicates = [0, 1, 1]",
    other_held_out_images: "held_out = 'test'",
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
    assert (blessing.judged, blessing.verdict, blessing.look) == (False, "not blessed", None)


def with_record(candidate, **update):
    result = candidate.result.model_copy(update=update)
    return Candidate(candidate.name, result, candidate.probabilities, candidate.labels)


@pytest.mark.parametrize(
    ("name", "update", "words"),
    [
        ("finetune", {"dataset_digest": "e" * 64}, "another dataset"),
        ("baseline", {"details": {**SOUND, "optimisation_steps": 99}}, "99 optimisation steps"),
        ("baseline", {"details": {**SOUND, "optimisation_steps": None}}, "optimisation_steps = None"),
        ("finetune", {"details": {**SOUND, "optimisation_steps": float("nan")}}, "= nan"),
        ("finetune", {"details": {**SOUND, "exported_seed": 3}}, "exported_seed = 3"),
        ("probe", {"details": {**SOUND, "exported_seed": None}}, "exported_seed = None"),
        ("probe", {"step": "baseline"}, "written by the step 'baseline'"),
        ("probe", {"inputs": {"encoder": "f" * 64}}, "different encoders"),
        ("finetune", {"params": {"encoder": {"name": "resnet18"}}}, "different parameters of `encoder`"),
        ("baseline", {"params": {"supervised": {"epochs": 1}}}, "different parameters of `supervised`"),
        (
            "baseline",
            {"details": {**SOUND, "epochs": 5}},
            "baseline/: trained with epochs = 5 where",
        ),
        ("finetune", {"details": {**SOUND, "learning_rate": None}}, "trained with learning_rate = None where"),
        ("baseline", {"details": {**SOUND, "held_out": "train+validation"}}, "expected (replicates, 400, 4)"),
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
    candidates["baseline"] = with_record(candidates["baseline"], details={**SOUND, "optimisation_steps": 500})
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


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda details: details["trials"]["baseline"].pop(), "(3 and 4 trials)"),
        (
            lambda details: details["trials"]["finetune"][0].update(learning_rate=0.5),
            "not tried at the same points",
        ),
        (lambda details: details["trials"].pop("baseline"), "trials.baseline: no list of trials"),
        (lambda details: details.update(trials=[]), "no list of trials"),
        (lambda details: details["chosen"].pop("baseline"), "chosen.baseline: says nothing"),
        (lambda details: details.update(chosen=None), "chosen.finetune: says nothing"),
        (lambda details: details["trials"]["finetune"][0].pop("epochs"), "trials.finetune: no list of trials"),
    ],
)
def test_an_unequal_search_is_refused(change, words):
    truth = make_truth(200)
    search = make_search(truth)
    details = copy.deepcopy(search.details)
    change(details)
    blessing = decided(make_three(truth), truth, search=search.model_copy(update={"details": details}))
    assert not blessing.blessed
    assert words in the(blessing, "inputs").why


def test_a_search_on_other_data_is_refused():
    truth = make_truth(200)
    search = make_search(truth).model_copy(update={"dataset_digest": "f" * 64})
    assert (
        "search/: made from another dataset" in the(decided(make_three(truth), truth, search=search), "inputs").why
    )


def test_without_a_record_of_the_search_nothing_is_judged():
    truth, ledger = make_truth(200), MemoryLedger()
    blessing = decide(make_three(truth), [], None, truth, GATE, ledger)
    assert "no record that both sides were searched alike" in the(blessing, "inputs").why
    assert (blessing.judged, ledger.seen) == (False, {})


def test_fewer_replicates_than_asked_for_are_never_blessed():
    truth = make_truth()
    for replicates, passed in ((2, False), (3, True)):
        blessing = decided(make_three(truth, replicates=replicates), truth)
        assert (blessing.blessed, blessing.judged) == (passed, passed)
    strict = decided(make_three(truth), truth, min_replicates=5)
    assert "3 replicates, where gate.min_replicates = 5" in the(strict, "inputs").why


def test_a_search_that_cross_validated_is_judged_by_its_held_out_predictions():
    truth = make_truth()
    candidates = make_three(truth)
    both = truth.held_out("train+validation")
    for name, level in (("baseline", 0.7), ("probe", 0.9), ("finetune", 0.8)):
        rows = simulate(both, CLASSES, level, 1, np.random.default_rng(5))
        candidates[name].probabilities["validation"], candidates[name].labels["validation"] = rows, both
        candidates[name].result.details["held_out"] = "train+validation"
    blessing = decided(candidates, truth)
    assert (blessing.winner, blessing.judged) == ("probe", True)


# --- looks


def test_nothing_is_judged_unless_asked_for():
    truth, ledger = make_truth(), MemoryLedger()
    blessing = decided(make_three(truth), truth, ledger=ledger, open_test=False)
    assert (blessing.blessed, blessing.judged, blessing.verdict) == (False, False, "not judged")
    assert (blessing.winner, blessing.gain, blessing.interval, blessing.artefact) == ("finetune", None, None, None)
    assert [check.passed for check in blessing.checks] == [True] + [False] * (len(CHECKS) - 1)
    assert blessing.reasons() == [f"the test set stayed closed: {blessing.closed}"]
    assert "gate.open_test=false" in blessing.closed
    assert ledger.seen == {}


def test_a_winner_without_a_gain_on_held_out_images_is_not_judged():
    truth, ledger = make_truth(), MemoryLedger()
    candidates = make_three(truth, probe=0.5)
    candidates["baseline"] = make_candidate("baseline", truth, 0.7, validation_level=0.9)
    blessing = decided(candidates, truth, ledger=ledger)
    assert blessing.verdict == "not judged"
    assert "on held-out images the winner gains -" in blessing.closed
    assert ledger.seen == {}


def test_the_closed_test_set_is_not_touched():
    truth = make_truth()

    def tested(name):
        raise AssertionError(f"{name} on test")

    right = {
        name: np.arange(100)[None] < count for name, count in (("baseline", 80), ("probe", 70), ("finetune", 80))
    }
    exported = {"probe": 0, "finetune": 0}
    blessing = judge(right, tested, exported, truth, GATE, MemoryLedger(), tested)
    assert blessing.closed.startswith("on held-out images the winner gains +0.0")


def test_a_look_spends_less_the_later_it_is():
    truth, ledger = make_truth(), MemoryLedger()
    first = decided(make_three(truth, replicates=5), truth, ledger=ledger)
    again = decided(make_three(truth, replicates=5), truth, ledger=ledger)
    second = decided(make_three(truth, replicates=5, rng_seed=2), truth, ledger=ledger)
    assert (first.look, again.look, second.look) == (1, 1, 2)
    assert first == again
    assert first.alpha == pytest.approx(look_alpha(1)) and second.alpha == pytest.approx(look_alpha(2))
    assert second.confidence == pytest.approx(1 - 2 * second.alpha)
    assert (first.replicates, first.policy["alpha"], first.options_changed) == (5, 0.05, False)


def test_options_changed_after_the_test_was_seen_are_told_and_cost_nothing():
    truth, ledger = make_truth(), MemoryLedger()
    refused = decided(make_three(truth), truth, ledger=ledger, min_gain=0.5)
    blessed = decided(make_three(truth), truth, ledger=ledger)
    assert (refused.blessed, blessed.blessed) == (False, True)
    assert (blessed.look, blessed.look_key, blessed.options_changed) == (1, refused.look_key, True)


def test_a_look_that_could_prove_next_to_nothing_is_not_taken():
    truth, ledger = make_truth(), MemoryLedger()
    assert decided(make_three(truth), truth, ledger=ledger).judged
    second = decided(make_three(truth, rng_seed=2), truth, ledger=ledger)
    assert second.verdict == "not judged"
    assert "look 2 at these test images" in second.closed
    assert "3 replicates; more replicates (runtime.replicates) or fresh test images are due" in second.closed
    assert len(ledger.seen) == 1
    assert decided(make_three(truth, rng_seed=2, replicates=5), truth, ledger=ledger).judged


def test_a_place_that_was_taken_meanwhile_closes_the_test_set_again():
    class Overtaken(MemoryLedger):
        def claim(self, key, images, options):
            return Look(2)

    truth = make_truth()
    blessing = decided(make_three(truth), truth, ledger=Overtaken())
    assert (blessing.verdict, blessing.look, blessing.gain) == ("not judged", 2, None)
    assert "look 2" in blessing.closed


def test_a_ledger_that_does_not_answer_keeps_the_test_set_closed():
    class Away(MemoryLedger):
        def expected(self, key, images):
            raise UserError("http://127.0.0.1:9 does not answer")

    truth = make_truth()
    blessing = decided(make_three(truth), truth, ledger=Away())
    assert (blessing.blessed, blessing.verdict) == (False, "not judged")
    assert "the ledger of looks can't be asked: http://127.0.0.1:9 does not answer" in blessing.closed


def test_the_key_of_a_look_is_the_answers_and_the_images_in_whatever_order():
    rng = np.random.default_rng(0)
    ours, theirs = rng.random((2, 3, 50)) < 0.7
    images = rng.integers(0, 2**64, 50, dtype=np.uint64)
    order = rng.permutation(50)
    key = look_key(ours, theirs, images)
    assert look_key(ours[:, order], theirs[:, order], images[order]) == key
    flipped = ours.copy()
    flipped[1, 7] ^= True
    others = {
        look_key(flipped, theirs, images),
        look_key(theirs, ours, images),
        look_key(ours[:2], theirs, images),
        look_key(ours, theirs, images + np.uint64(1)),
    }
    assert len(others | {key}) == 5


# --- policy


def test_a_gate_that_asks_less_than_the_default_is_told_in_words():
    truth = make_truth()
    assert decided(make_three(truth), truth).weaker == []
    gate = dict(min_gain=0.0, alpha=0.1, min_replicates=2, skip_champions=(3,), max_slice_drop=0.05)
    blessing = decided(make_three(truth), truth, **gate)
    assert sorted(blessing.weaker) == [
        "alpha = 0.1 instead of 0.05",
        "min_gain = 0.0 instead of 0.02",
        "min_replicates = 2 instead of 3",
        "skip_champions = [3] instead of []",
    ]
    assert blessing.policy["skip_champions"] == [3]


def test_each_option_says_which_way_it_asks_less():
    assert set(directions()) == set(GateParams.model_fields) - {"open_test"}
    assert weaker(compose_params(["gate=strict"])[0].gate) == []


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
    known = ["inputs", "gain", "certainty", "artefact", "floor", "slices", "champion"]
    assert [name for name in CHECKS if name in known] == known
    for name, rule in rules().items():
        assert rule.__doc__.strip().endswith("?"), name
        assert set(rule.Options.model_fields) <= set(GateParams.model_fields), name
