"""The gate's checks, on arrays."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from components.shared.artifacts import Result
from components.shared.digests import value_digest
from components.shared.evaluation.champion import Champion
from components.shared.evaluation.gate import CHECKS, Blessing, judge, read_blessing, score
from components.shared.evaluation.predictions import Candidate, Truth
from components.shared.params.schema import GateParams
from tests.helpers.trained import simulate

GATE = GateParams(min_gain=0.02, min_accuracy=0.5, max_class_drop=0.1, champion_tolerance=0.01)
CLASSES = 4
NO_CHAMPION = Champion(model="pets")
NAMES = ["ant", "bee", "cat", "dog"]


def make_truth(n: int = 800, seed: int = 0) -> Truth:
    rng = np.random.default_rng(seed)
    labels = {split: rng.permutation(np.arange(n) % CLASSES) for split in ("validation", "test")}
    return Truth("d" * 64, "t" * 64, NAMES, labels)


def make_candidate(name, truth, level, *, seeds=3, rng_seed=1, validation_level=None, **details) -> Candidate:
    rng = np.random.default_rng([rng_seed, len(name)])
    levels = {"validation": level if validation_level is None else validation_level, "test": level}
    probabilities = {
        split: simulate(labels, CLASSES, levels[split], seeds, rng) for split, labels in truth.labels.items()
    }
    result = Result(
        step=name,
        params={},
        params_digest=value_digest({}),
        inputs={},
        seconds=1.0,
        mlflow_run_id="0" * 32,
        dataset_digest=truth.dataset_digest,
        metrics={},
        details={"optimisation_steps": 100, "exported_seed": 0, **details},
    )
    return Candidate(name, result, probabilities, dict(truth.labels))


def make_three(truth, baseline=0.7, probe=0.75, finetune=0.85, **more):
    levels = {"baseline": baseline, "probe": probe, "finetune": finetune}
    return {name: make_candidate(name, truth, level, **more) for name, level in levels.items()}


def champion(**values):
    return Champion(model="pets", **values)


def judged(candidates, truth, best=NO_CHAMPION, unreadable=(), **gate) -> Blessing:
    return judge(candidates, list(unreadable), truth, GATE.model_copy(update=gate), best)


def the(blessing: Blessing, name: str):
    return next(check for check in blessing.checks if check.name == name)


# --- verdicts


def test_a_clear_gain_is_blessed_and_every_check_says_why():
    truth = make_truth()
    blessing = judged(make_three(truth), truth)
    assert blessing.blessed
    assert blessing.winner == "finetune"
    assert [check.name for check in blessing.checks] == list(CHECKS)
    assert all(check.passed and check.why for check in blessing.checks)
    assert blessing.gain == pytest.approx(0.15, abs=0.03)
    assert blessing.interval[0] < blessing.gain < blessing.interval[1]
    assert (blessing.dataset_digest, blessing.test_digest) == (truth.dataset_digest, truth.test_digest)


def test_identical_models_gain_nothing_and_are_refused_for_want_of_certainty():
    truth = make_truth()
    candidates = make_three(truth, probe=0.3)
    candidates["baseline"] = Candidate(
        "baseline",
        candidates["baseline"].result,
        candidates["finetune"].probabilities,
        candidates["finetune"].labels,
    )
    blessing = judged(candidates, truth, min_gain=0.0)
    assert blessing.gain == 0
    assert the(blessing, "gain").passed
    assert not the(blessing, "certainty").passed
    assert not blessing.blessed


def test_a_single_seed_of_identical_models_is_refused_too():
    truth = make_truth()
    candidates = make_three(truth, probe=0.3, seeds=1)
    candidates["baseline"].probabilities.update(candidates["finetune"].probabilities)
    blessing = judged(candidates, truth, min_gain=-1)
    assert blessing.interval == (0, 0)
    assert not the(blessing, "certainty").passed


def test_swapping_winner_and_baseline_turns_the_gain_over():
    truth = make_truth()
    one = judged(make_three(truth, baseline=0.7, probe=0.1, finetune=0.85), truth)
    candidates = make_three(truth, baseline=0.7, probe=0.1, finetune=0.85)
    worse, better = candidates["baseline"].probabilities, candidates["finetune"].probabilities
    candidates["baseline"] = Candidate("baseline", candidates["baseline"].result, better, dict(truth.labels))
    candidates["finetune"] = Candidate("finetune", candidates["finetune"].result, worse, dict(truth.labels))
    other = judged(candidates, truth)
    assert other.gain == pytest.approx(-one.gain)
    assert not other.blessed


def test_a_gain_of_exactly_the_threshold_passes_and_one_image_less_does_not():
    truth = make_truth(1000)
    candidates = make_three(truth, probe=0.1, seeds=1)
    answers = {"baseline": 700, "finetune": 720}

    def right_first(count):
        predicted = np.where(np.arange(1000) < count, truth.labels["test"], (truth.labels["test"] + 1) % CLASSES)
        return np.eye(CLASSES, dtype=np.float32)[predicted][None]

    for name, count in answers.items():
        candidates[name].probabilities["test"] = right_first(count)
    assert the(judged(candidates, truth), "gain").passed
    candidates["finetune"].probabilities["test"] = right_first(719)
    assert not the(judged(candidates, truth), "gain").passed


def test_the_winner_is_chosen_on_validation_never_on_test():
    truth = make_truth()
    candidates = make_three(truth)
    candidates["probe"] = make_candidate("probe", truth, 0.95, validation_level=0.6)
    candidates["finetune"] = make_candidate("finetune", truth, 0.85, validation_level=0.8)
    assert judged(candidates, truth).winner == "finetune"
    candidates["probe"] = make_candidate("probe", truth, 0.75, validation_level=0.9)
    assert judged(candidates, truth).winner == "probe"


def test_floor():
    truth = make_truth()
    candidates = make_three(truth)
    assert not the(judged(candidates, truth, min_accuracy=0.9), "floor").passed
    assert the(judged(candidates, truth, min_accuracy=0.8), "floor").passed


def test_a_class_that_pays_for_the_others_is_named():
    truth = make_truth()
    candidates = make_three(truth, probe=0.1)
    cats = truth.labels["test"] == NAMES.index("cat")
    probabilities = candidates["finetune"].probabilities["test"]
    probabilities[:, cats] = 0
    probabilities[:, cats, 0] = 1
    blessing = judged(candidates, truth, min_gain=-1, min_accuracy=0)
    check = the(blessing, "slices")
    assert not check.passed
    assert "cat" in check.why
    assert check.value == pytest.approx(0.7, abs=0.06)
    assert not blessing.blessed


def test_a_class_without_test_images_is_refused_by_name():
    truth = make_truth()
    labels = truth.labels["test"]
    labels[labels == 3] = 0
    blessing = judged(make_three(truth), truth)
    assert not the(blessing, "slices").passed
    assert "dog" in the(blessing, "slices").why
    assert not blessing.blessed


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
    blessing = judged(make_three(truth), truth, best)
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
        assert the(judged(candidates, truth, best), "champion").passed is passed


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
    assert the(judged(candidates, truth), "inputs").passed
    break_it(candidates[name], truth)
    blessing = judged(candidates, truth)
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
    blessing = judged(candidates, truth)
    assert not blessing.blessed
    assert words in the(blessing, "inputs").why


def test_a_baseline_with_more_steps_is_fair():
    truth = make_truth(200)
    candidates = make_three(truth)
    candidates["baseline"] = with_record(
        candidates["baseline"], details={"optimisation_steps": 500, "exported_seed": 0}
    )
    assert the(judged(candidates, truth), "inputs").passed


def test_what_could_not_be_read_is_told_and_the_rest_is_scored():
    truth = make_truth(200)
    candidates = make_three(truth)
    del candidates["baseline"]
    blessing = judged(candidates, truth, unreadable=["baseline/result.json: missing"])
    assert not blessing.blessed
    assert "baseline/result.json: missing" in the(blessing, "inputs").why
    assert set(score(candidates, truth)) == {"probe", "finetune"}


@pytest.mark.parametrize("label", [-1, CLASSES])
def test_test_images_without_a_class_are_refused(label):
    truth = make_truth(200)
    candidates = make_three(truth)
    truth.labels["test"][7] = label
    blessing = judged(candidates, truth)
    assert not blessing.blessed
    assert "1 of 200 test images without a class" in the(blessing, "inputs").why
    assert score(candidates, truth) == {}


def test_an_empty_split_is_refused():
    truth = make_truth(200)
    truth.labels["validation"] = np.zeros(0, np.int64)
    blessing = judged(make_three(make_truth(200)), truth)
    assert not blessing.blessed
    assert "0 of 0 validation images" in the(blessing, "inputs").why


# --- blessing.json


def test_a_blessing_that_contradicts_its_checks_is_not_read(tmp_path):
    truth = make_truth(200)
    refused = judged(make_three(truth, probe=0.6, finetune=0.6), truth)
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


def test_a_blessing_needs_every_check_and_a_winner():
    truth = make_truth(200)
    values = judged(make_three(truth), truth).model_dump()
    with pytest.raises(ValidationError, match="checks must be"):
        Blessing.model_validate({**values, "checks": values["checks"][1:]})
    with pytest.raises(ValidationError, match="winner"):
        Blessing.model_validate({**values, "winner": "baseline"})
