"""The search: one space and one budget for both sides, whatever is best; and each held-out image is unseen."""

from __future__ import annotations

from dataclasses import astuple
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.shared.artifacts import Dataset
from components.shared.errors import UserError
from components.shared.params.composing import compose_params
from components.shared.training.search import (
    BOTH,
    SIDES,
    HeldOut,
    Point,
    Search,
    Trial,
    next_beyond,
    stratified_folds,
)
from tests.helpers.datasets import make_dataset

SPACE = (
    "supervised.search.widen=1",
    "supervised.search.learning_rates=[0.001,0.004]", "supervised.search.weight_decays=[0.0001,0.05]",
    "supervised.search.epochs=[20,60]",
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return Dataset(make_dataset(tmp_path_factory.mktemp("data") / "dataset", validation=13, image_size=16))


@cache
def composed(*overrides):
    return compose_params(overrides)[0]


def search(data, surface, *overrides, more_epochs=0, final=None):
    """A finished search whose trials take their log-loss from a function of point and side.

    `final` makes those with more folds.
    """
    trained = []

    class Simulated(Search):
        def trial(self, point, side, folds):
            if folds > self.held_out.count:
                return final(point, side)
            trained.append((point, side))
            loss = surface(point, side)
            return Trial(loss, 0.5, np.full((3, 2), 0.5) if np.isfinite(loss) else None)

    found = Simulated(data, composed(*SPACE, *overrides), 0, [], more_epochs)
    found.run()
    found.trained = trained
    return found


def bowl(best):
    """Best at a point, the worse the farther away from it on a logarithmic scale."""

    def surface(point, side):
        wanted = best[side]
        far = np.log([point.learning_rate, point.weight_decay, point.epochs]) - np.log(astuple(wanted)[1:])
        return float(np.abs(far).sum()) + (point.augmentation != wanted.augmentation)

    return surface


POINTS = st.builds(
    Point,
    augmentation=st.sampled_from(["weak", "views"]),
    learning_rate=st.floats(1e-5, 1.0),
    weight_decay=st.floats(1e-6, 10.0),
    epochs=st.sampled_from([5, 20, 60, 300]),
)


@settings(max_examples=60, deadline=None)
@given(POINTS, POINTS)
def test_both_sides_have_the_same_space_and_the_same_budget(data, one, two):
    found = search(data, bowl(dict(zip(SIDES, (one, two), strict=True))))
    tried = {side: [point for point, where in found.trained if where == side] for side in SIDES}
    assert tried["baseline"] == tried["finetune"]
    # none twice, and the records say what was done
    assert len(set(tried["baseline"])) == len(tried["baseline"])
    tables = [
        [astuple(Point(**{k: row[k] for k in Point.__annotations__})) for row in found.table(s)] for s in SIDES
    ]
    assert tables[0] == tables[1] == [astuple(point) for point in tried["baseline"]]
    # every augmentation with every rate of the grid, for both
    assert {(p.augmentation, p.learning_rate) for p in tried["baseline"]} >= {
        (augmentation, rate) for augmentation in ("weak", "views") for rate in (0.001, 0.004)
    }
    # in each direction a grid of two grows by two values at most
    assert min(p.learning_rate for p in tried["finetune"]) >= 0.001 / 4**2 * 0.999
    assert max(p.learning_rate for p in tried["finetune"]) <= 0.004 * 4**2 * 1.001
    assert min(p.weight_decay for p in tried["finetune"]) >= 1e-6 * 0.999
    assert max(p.weight_decay for p in tried["finetune"]) <= 5.0 * 1.001


@settings(max_examples=60, deadline=None)
@given(POINTS, POINTS)
def test_the_chosen_point_is_the_best_and_the_rival_is_never_trained_shorter(data, one, two):
    surface = bowl(dict(zip(SIDES, (one, two), strict=True)))
    found = search(data, surface)
    chosen = {side: found.chosen(side) for side in SIDES}
    assert chosen["baseline"].epochs >= chosen["finetune"].epochs
    for side, least in (("finetune", 0), ("baseline", chosen["finetune"].epochs)):
        known = {p: surface(p, side) for p in found.trials if p.epochs >= least}
        assert known[chosen[side]] == min(known.values())
        assert found.capped(side) == (chosen[side].epochs == 60)


@pytest.fixture(scope="module")
def enough(tmp_path_factory):
    """As many labels as calibrating takes."""
    return Dataset(
        make_dataset(tmp_path_factory.mktemp("enough") / "dataset", train=190, validation=10, image_size=8)
    )


def test_the_chosen_trainings_answer_enough_images_again_in_more_folds(enough, data):
    best = {"baseline": Point("weak", 0.001, 0.0001, 60), "finetune": Point("views", 0.004, 0.05, 20)}
    asked = []

    def final(point, side):
        asked.append((side, point))
        return Trial(0.1, 0.9, np.full((3, 2), 0.25), None)

    found = search(enough, bowl(best), "supervised.search.widen=0", final=final)
    assert asked == [(side, found.chosen(side)) for side in SIDES]
    assert {found.final(side).accuracy for side in SIDES} == {0.9}
    # which point is chosen stays the trials' affair
    assert all(found.trials[found.chosen(side)][side].accuracy == 0.5 for side in SIDES)
    # no more folds are asked for; and too few images to calibrate by
    for few, options in ((enough, ["supervised.search.final_folds=2"]), (data, [])):
        found = search(few, bowl(best), *options)
        assert {found.final(side).accuracy for side in SIDES} == {0.5}


def test_a_final_training_that_diverges_leaves_the_trials_answers(enough):
    best = dict.fromkeys(SIDES, Point("weak", 0.001, 0.0001, 60))
    found = search(enough, bowl(best), final=lambda point, side: Trial(float("inf"), 0.0, None, None, "NaN"))
    assert {found.final(side).accuracy for side in SIDES} == {0.5}


def test_more_folds_leave_each_training_more_images(enough):
    for folds in (2, 5):
        held_out = HeldOut(enough, composed(), 0, folds)
        assert held_out.count == folds
        assert {len(learned) for learned, _ in held_out.folds()} == {200 - 200 // folds}
        assert sorted(row for _, to in held_out.folds() for row in to) == list(range(200))


class LongIsSure:
    """A trainer: eight of ten answers are right and all are sure after 60 epochs, six and hardly any after 20."""

    def __init__(self, data):
        self.labels = {image.tobytes(): label for image, label in zip(*data, strict=True)}
        self.heads = []

    def fit(self, recipe, *_, head_start, **__):
        self.heads.append(head_start)
        self.right, self.sure = (8, 0.999) if recipe.epochs == 60 else (6, 0.55)

    def probabilities(self, images):
        answers = np.full((len(images), 3), (1 - self.sure) / 2, np.float32)
        labels = np.array([self.labels[image.tobytes()] for image in images])
        taken_for = np.where(np.arange(len(images)) % 10 < self.right, labels, (labels + 1) % 3)
        answers[np.arange(len(images)), taken_for] = self.sure
        return answers


def test_a_training_that_is_righter_and_too_sure_wins(enough, data, monkeypatch):
    for images in (enough, data):
        held_out = HeldOut(images, composed(), 0)
        monkeypatch.setattr(
            "components.shared.training.search.supervised_trainer",
            lambda *_, known=(held_out.images, held_out.labels): LongIsSure(known),
        )
        found = Search(images, composed(*SPACE, "supervised.search.widen=0"), 0, [])
        found.run()
        assert {found.chosen(side).epochs for side in SIDES} == {60}


@pytest.mark.parametrize("head", ["probe", "random"])
def test_trials_start_with_the_head_that_the_replicates_start_with(data, monkeypatch, head):
    held_out = HeldOut(data, composed(), 0)
    trainer = LongIsSure((held_out.images, held_out.labels))
    monkeypatch.setattr("components.shared.training.search.supervised_trainer", lambda *_: trainer)
    Search(data, composed(*SPACE, f"supervised.head_start={head}"), 0, []).run()
    assert set(trainer.heads) == {head}


def test_the_baseline_alone_trains_longer_where_total_epochs_are_equal(data):
    best = {side: Point("weak", 0.001, 0.0001, 60) for side in SIDES}
    found = search(data, bowl(best), more_epochs=25)
    # tried at the same points all the same
    assert found.table("baseline") == found.table("finetune")
    assert {side: found.chosen(side).epochs for side in SIDES} == {"baseline": 60, "finetune": 60}
    assert {side: found.recipe(side, found.chosen(side)).epochs for side in SIDES} == {
        "baseline": 85,
        "finetune": 60,
    }
    assert found.training("baseline", best["baseline"]).epochs == 85


def test_a_best_beyond_the_grid_is_found_by_widening_for_both(data):
    best = Point("views", 0.016, 0.5, 60)
    found = search(data, bowl({"baseline": Point("weak", 0.001, 0.0001, 20), "finetune": best}))
    assert astuple(found.chosen("finetune")) == pytest.approx(astuple(best))
    assert [found.trials[point]["baseline"].log_loss for point in found.trials]  # the rival tried them too
    # where nothing may be widened, the edge is all there is
    narrow = search(data, bowl(dict.fromkeys(SIDES, best)), "supervised.search.widen=0")
    assert astuple(narrow.chosen("finetune")) == ("views", 0.004, 0.05, 60)
    assert len(narrow.trials) == 2 * 2 + 1 + 1


def test_a_space_of_one_value_is_not_widened(data):
    single = ("supervised.search.learning_rates=[0.001]", "supervised.search.weight_decays=[0.0001]",
              "supervised.search.epochs=[20]")  # fmt: skip
    found = search(data, bowl(dict.fromkeys(SIDES, Point("views", 0.1, 0.1, 60))), *single)
    assert [astuple(point) for point in found.trials] == [("weak", 0.001, 0.0001, 20), ("views", 0.001, 0.0001, 20)]
    assert not any(found.capped(side) for side in SIDES)


def test_a_point_that_diverges_is_never_chosen_and_a_side_that_always_does_is_told(data):
    def surface(point, side):
        return float("inf") if point.learning_rate > 0.002 else 1.0 + (point.epochs == 20)

    found = search(data, surface)
    assert {found.chosen(side).learning_rate for side in SIDES} <= {0.001, 0.001 / 4, 0.001 / 16}
    message = r"learning_rates = \[0.001, 0.004\]: the loss of finetune became NaN with each; add smaller"
    with pytest.raises(UserError, match=message):
        search(data, lambda point, side: float("inf") if side == "finetune" else 1.0)


@pytest.mark.parametrize(
    ("tried", "best", "expected"),
    [
        ([0.001, 0.004], 0.004, 0.016), ([0.001, 0.004], 0.001, 0.00025), ([0.001, 0.002, 0.004], 0.002, None),
        ([0.0001, 0.05], 0.05, 0.5), ([0.0001, 0.05], 0.0001, 0.00001), ([0.0, 0.05], 0.05, 0.5),
        ([0.0, 0.05], 0.0, None),
    ],
)  # fmt: skip
def test_the_next_value_goes_on_in_proportion(tried, best, expected):
    found = next_beyond(tried, best)
    assert found == (None if expected is None else pytest.approx(expected))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=80), st.integers(2, 5))
def test_folds_are_stratified_and_equally_large(labels, folds):
    labels = np.array(labels)
    found = stratified_folds(labels, folds, 0)
    for rows in (slice(None), *(labels == label for label in np.unique(labels))):
        counts = np.bincount(found[rows], minlength=folds)
        assert counts.max() - counts.min() <= 1
    np.testing.assert_array_equal(found, stratified_folds(labels, folds, 0))


def test_few_validation_images_are_cross_validated_with_those_of_train(data):
    held_out = HeldOut(data, composed(), 0)
    train, validation = data.labels("train"), data.labels("validation")
    assert held_out.name == BOTH
    np.testing.assert_array_equal(held_out.labels, np.concatenate([train, validation]))
    np.testing.assert_array_equal(
        held_out.images, np.concatenate([data.images("train"), data.images("validation")])
    )
    answered = []
    for learned, to in held_out.folds():
        assert not set(learned) & set(to)
        assert len(learned) + len(to) == len(held_out.labels)
        images, labels = held_out.train(learned)
        np.testing.assert_array_equal(images, held_out.images[learned])
        np.testing.assert_array_equal(labels, held_out.labels[learned])
        answered += list(to)
    assert sorted(answered) == list(range(len(held_out.labels)))


@pytest.mark.parametrize("options", [["method=supcon"], ["supervised.search.cross_validate_below=13"]])
def test_enough_validation_images_or_a_pretraining_on_labels_choose_on_validation(data, options):
    """Where the encoder has seen the labels of train, only validation is unseen."""
    held_out = HeldOut(data, composed(*options), 0)
    ((learned, answered),) = held_out.folds()
    assert held_out.name == "validation"
    np.testing.assert_array_equal(held_out.labels[answered], data.labels("validation"))
    np.testing.assert_array_equal(held_out.train(learned)[1], data.labels("train"))
