"""Splits and label budgets: by content, so that they stay as a dataset grows, and as documented."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from components.shared.artifacts import SPLITS
from components.shared.errors import UserError
from components.shared.params.schema import DataParams
from components.shared.sources.splitting import check_labels, plan_train

NAMES = ["a", "b", "c"]


def data(seed=0, budget=None, validation=0.2, test=0.2):
    split = {"validation": validation, "test": test}
    return DataParams(
        name="x", source="folder", path="x", image_size=8, labels_per_class=budget, seed=seed, split=split
    )


def labels(train=(50, 30, 20), validation=(), test=(), unlabelled=0):
    """Labels of a source with so many images of each class in each split, shuffled."""
    made = {"unlabelled": np.full(unlabelled, -1)}
    for split, counts in {"train": train, "validation": validation, "test": test}.items():
        made[split] = np.random.default_rng(5).permutation(np.repeat(np.arange(len(counts)), counts))
    return made


def digests(count, first=0):
    """Digests of so many different images."""
    return [hashlib.sha256(str(number).encode()).hexdigest() for number in range(first, first + count)]


def plan(source, parameters, images=None, groups=None):
    """Name of the split where each image of the source's train split goes."""
    images = digests(len(source["train"])) if images is None else images
    found = plan_train(source, images, groups or [None] * len(images), NAMES, parameters)
    return np.array(SPLITS)[found]


def per_class(source, where, split):
    """Number of images of each class of the source's train split that go to a split."""
    return [int(np.sum((where == split) & (source["train"] == label))) for label in range(3)]


def labelled(where):
    return set(np.flatnonzero((where == "train") | (where == "validation")).tolist())


def test_the_fractions_are_met_on_average():
    source = labels(train=(3000, 2000, 1000))
    where = plan(source, data(validation=0.25, test=0.1))
    assert np.mean(where == "test") == pytest.approx(0.1, abs=0.015)
    assert np.mean(where == "validation") == pytest.approx(0.9 * 0.25, abs=0.02)
    assert not np.any(where == "unlabelled")


def test_with_splits_of_its_own_a_source_keeps_its_training_images():
    source = labels(validation=(3, 3, 3), test=(4, 4, 4), unlabelled=7)
    assert set(plan(source, data())) == {"train"}
    where = plan(source, data(budget=20))
    assert per_class(source, where, "train") == [20, 20, 20]
    assert per_class(source, where, "unlabelled") == [30, 10, 0]


def test_the_budget_covers_training_and_cut_validation():
    source = labels(test=(4, 4, 4))
    where = plan(source, data(budget=10))
    found = {split: per_class(source, where, split) for split in SPLITS}
    assert found == {"train": [8, 8, 8], "validation": [2, 2, 2], "unlabelled": [40, 20, 10], "test": [0, 0, 0]}


def test_training_images_without_label_become_unlabelled():
    source = labels(train=(60, 60, 60))
    source["train"][:5] = -1
    where = plan(source, data())
    assert set(where[:5]) == {"unlabelled"}
    assert set(where[5:]) == {"train", "validation", "test"}


def test_another_seed_is_another_plan():
    source = labels(train=(60, 60, 60))
    first, other = (plan(source, data(seed, budget=10)) for seed in (0, 1))
    for split in SPLITS:
        assert set(np.flatnonzero(first == split)) != set(np.flatnonzero(other == split))


def test_test_validation_and_budget_choose_independently():
    source = labels(train=(2000, 2000, 2000), test=())
    where = plan(source, data(validation=0.5, test=0.5))
    assert np.mean(where == "test") == pytest.approx(0.5, abs=0.03)
    # were the same hash used twice, all that test leaves would stay in train
    assert np.mean(where == "validation") == pytest.approx(0.25, abs=0.03)
    few = plan(source, data(budget=200, validation=0.5, test=0.5))
    assert (few == "test").tolist() == (where == "test").tolist()


MANY = (60, 50, 40)
GROWN = st.tuples(st.integers(0, 300), st.none() | st.integers(2, 15), st.integers(0, 2**31))


def grown(more):
    """A source, and the same with `more` images of random classes added in front of them, between and behind."""
    small = labels(train=MANY)
    images = digests(sum(MANY))
    rng = np.random.default_rng(more)
    order = rng.permutation(sum(MANY) + more)
    large = {**small, "train": np.concatenate([small["train"], rng.integers(0, 3, more)])[order]}
    return small, images, large, np.array([*images, *digests(more, sum(MANY))])[order].tolist()


def placed(source, images, parameters):
    """Digest → split; None where a class has too few images for a split or the budget, which is refused."""
    try:
        return dict(zip(images, plan(source, parameters, images).tolist(), strict=True))
    except UserError as error:
        assert "make sure of both sides" in str(error) or "; choose at most" in str(error)
        return None


@settings(max_examples=150, deadline=None)
@given(GROWN)
def test_images_that_are_added_or_shuffled_never_move_old_ones_in_or_out_of_test(case):
    more, budget, seed = case
    small, images, large, all_images = grown(more)
    before, after = placed(small, images, data(seed, budget)), placed(large, all_images, data(seed, budget))
    assume(before and after)
    for image, split in before.items():
        assert (after[image] == "test") == (split == "test")
        if budget is None:
            assert after[image] == split


@settings(max_examples=60, deadline=None)
@given(GROWN)
def test_a_new_image_takes_at_most_one_place_in_the_budget(case):
    _, budget, seed = case
    small, images, large, all_images = grown(1)
    parameters = data(seed, budget or 7)
    before, after = placed(small, images, parameters), placed(large, all_images, parameters)
    assume(before and after)
    changed = [(before[image], after[image]) for image in images if before[image] != after[image]]
    assert sum(new == "unlabelled" for _, new in changed) <= 1
    assert len(changed) <= 2 and all(old != "unlabelled" for old, _ in changed)


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 14), st.integers(0, 12), st.integers(0, 2**31))
def test_a_larger_budget_holds_every_smaller_one_and_leaves_test_alone(budget, more, seed):
    source = labels(train=MANY)
    images = digests(sum(MANY))
    few, many = (placed(source, images, data(seed, number)) for number in (budget, budget + more))
    assume(few and many)
    few, many = np.array(list(few.values())), np.array(list(many.values()))
    assert labelled(few) <= labelled(many)
    assert ((few == "test") == (many == "test")).all()
    assert len(labelled(few)) == 3 * budget


@settings(max_examples=100, deadline=None)
@given(st.none() | st.integers(4, 20), st.integers(0, 2**31), st.booleans())
def test_copies_stay_together_whatever_their_labels(budget, seed, other_label):
    source = labels(train=MANY)
    images = digests(sum(MANY))
    source["train"] = np.concatenate([source["train"], (source["train"] + other_label) % 3])
    try:
        where = plan(source, data(seed, budget), images + images)
    except UserError:
        assume(False)
    first, second = np.split(where, 2)
    ways = {*zip(first.tolist(), second.tolist(), strict=True)}
    assert all(one == other or (other_label and "test" not in (one, other)) for one, other in ways)
    assert not ways & {("train", "validation"), ("validation", "train")}


@settings(max_examples=100, deadline=None)
@given(st.none() | st.integers(6, 20), st.integers(0, 2**31), st.integers(30, 60))
def test_a_group_is_never_divided_between_what_trains_and_what_judges(budget, seed, count):
    source = labels(train=(100, 100, 100))
    groups = [f"camera {number}" for number in np.random.default_rng(3).integers(0, count, 300)]
    try:
        where = plan(source, data(seed, budget), groups=groups)
    except UserError:
        assume(False)
    for group in set(groups):
        found = {split for split, name in zip(where.tolist(), groups, strict=True) if name == group}
        assert found == {"test"} or "test" not in found
        assert not {"train", "validation"} <= found
    # it is the name that decides: other images of the same groups go the same way
    if budget is None:
        again = plan(source, data(seed), digests(300, first=1000), groups)
        assert (again == where).all()


@pytest.mark.parametrize(
    ("source", "parameters", "expected"),
    [
        (
            labels(test=(4, 4, 4)),
            data(budget=21),
            "data.labels_per_class = 21: class 'c' has only 20 labelled training images; choose at most 20",
        ),
        (labels(), data(budget=1), "data.labels_per_class = 1: one label per class can't serve training and"),
        (
            labels(train=(90, 2, 90)),
            data(),
            "data.split.test = 0.2: class 'b' has 2 labelled images to cut from, and none of them fall into test; "
            "21 different ones make sure of both sides (99%)",
        ),
        (
            labels(train=(90, 2, 90), test=(1, 1, 1)),
            data(validation=0.9),
            "data.split.validation = 0.9: class 'b' has 2 labelled images to cut from, and all of them fall into "
            "validation; 44 different ones",
        ),
    ],
)
def test_what_can_not_be_split_is_refused_with_the_number_of_images_needed(source, parameters, expected):
    with pytest.raises(UserError) as caught:
        plan(source, parameters)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_images_that_stay_together_are_told_where_a_class_can_not_be_split():
    source = labels(train=(90, 34, 90))
    groups = [f"walk {row % 2}" if label == 1 else None for row, label in enumerate(source["train"])]
    found = []
    for seed in range(20):
        try:
            plan(source, data(seed), digests(214), groups)
        except UserError as error:
            found.append(str(error))
    together = (
        "34 labelled images to cut from that count as 2, since near-copies, copies and groups stay together, and"
    )
    assert any(together in message for message in found)
    assert all("set data.near_copies=keep where they only look alike" in message for message in found)


def test_the_number_of_images_needed_is_enough():
    source = labels(train=(21, 21, 21), validation=(1, 1, 1))
    refused = 0
    for seed in range(1000):
        try:
            plan(source, data(seed), digests(63))
        except UserError:
            refused += 1
    # 1 % for each of the three classes
    assert refused <= 45


def test_a_budget_of_one_is_enough_with_a_validation_split_of_its_own():
    source = labels(validation=(3, 3, 3), test=(4, 4, 4))
    assert per_class(source, plan(source, data(budget=1)), "train") == [1, 1, 1]


@pytest.mark.parametrize(
    ("source", "names", "expected"),
    [
        (labels(train=(5,)), ["a"], "here: has 1 class (a); at least 2 are needed"),
        (labels(), ["a", "b", "a"], "the class name 'a' is there twice"),
        (labels(train=(5, 5, 0)), NAMES, "here: train: no labelled images of class 'c'"),
        (labels(train=()), NAMES, "here: train: no labelled images of class 'a'"),
        (labels(test=(5, 0, 5)), NAMES, "here: test: no labelled images of class 'b'"),
        ({**labels(), "train": np.array([0, 1, 3, 2])}, NAMES, "train: row 2: label 3 is not within -1 … 2"),
        ({**labels(), "train": np.array([0, 1, -2, 2])}, NAMES, "train: row 2: label -2 is not within -1 … 2"),
        ({**labels(), "test": np.array([0, -1, 1, 2])}, NAMES, "test: row 1: label -1 is not within 0 … 2"),
    ],
)
def test_labels_that_do_not_fit_are_refused(source, names, expected):
    with pytest.raises(UserError) as caught:
        check_labels(source, names, "here")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_labels_that_fit_are_accepted():
    source = labels(test=(1, 1, 1), unlabelled=3)
    source["train"][0] = -1
    assert check_labels(source, NAMES, "here") is None
