"""Splits and label budgets: stratified, disjoint, seeded, and independent of each other as documented."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.shared.artifacts import SPLITS
from components.shared.errors import UserError
from components.shared.params.schema import DataParams
from components.shared.sources.splitting import check_labels, plan_splits

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


def per_class(source, plan):
    """Number of images of each class that go to each split, from all splits of the source."""
    where, what = np.concatenate([plan[s] for s in SPLITS]), np.concatenate([source[s] for s in SPLITS])
    return {
        split: [int(np.sum((where == index) & (what == label))) for label in range(3)]
        for index, split in enumerate(SPLITS)
    }


def rows(plan, split, origin="train"):
    return set(np.flatnonzero(plan[origin] == SPLITS.index(split)).tolist())


def test_test_and_validation_are_cut_by_class():
    source = labels()
    assert per_class(source, plan_splits(source, NAMES, data())) == {
        "test": [10, 6, 4],
        "validation": [8, 5, 3],
        "train": [32, 19, 13],
        "unlabelled": [0, 0, 0],
    }


def test_the_sources_own_splits_are_left_as_they_are():
    source = labels(validation=(3, 3, 3), test=(4, 4, 4), unlabelled=7)
    plan = plan_splits(source, NAMES, data(budget=20))
    for split in ("validation", "test", "unlabelled"):
        assert rows(plan, split, split) == set(range(len(source[split])))
    assert per_class(source, plan)["train"] == [20, 20, 20]
    assert len(rows(plan, "unlabelled")) == 40


def test_the_budget_covers_training_and_cut_validation():
    source = labels(test=(4, 4, 4))
    counts = per_class(source, plan_splits(source, NAMES, data(budget=10)))
    assert counts["train"] == [8, 8, 8]
    assert counts["validation"] == [2, 2, 2]
    assert counts["unlabelled"] == [40, 20, 10]
    assert counts["test"] == [4, 4, 4]


def test_a_budget_as_large_as_the_smallest_class_is_allowed():
    source = labels(test=(4, 4, 4))
    assert per_class(source, plan_splits(source, NAMES, data(budget=20)))["unlabelled"] == [30, 10, 0]


def test_training_images_without_label_become_unlabelled():
    source = labels(test=(4, 4, 4))
    source["train"][:5] = -1
    plan = plan_splits(source, NAMES, data())
    assert rows(plan, "unlabelled") == {0, 1, 2, 3, 4}


def test_same_seed_same_plan_other_seed_other_plan():
    source = labels()
    first, again, other = (plan_splits(source, NAMES, data(seed, budget=10))["train"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    for split in SPLITS:
        assert rows({"train": first}, split) != rows({"train": other}, split)


def test_the_cut_test_split_does_not_depend_on_budget_or_validation():
    source = labels()
    plans = [plan_splits(source, NAMES, data(budget=b, validation=v)) for b, v in [(None, 0.2), (5, 0.5), (9, 0.1)]]
    assert rows(plans[0], "test") == rows(plans[1], "test") == rows(plans[2], "test")


def test_a_larger_budget_holds_every_smaller_one():
    source = labels()
    kept = [
        rows(p, "train") | rows(p, "validation")
        for p in (plan_splits(source, NAMES, data(budget=b)) for b in (3, 9))
    ]
    assert kept[0] < kept[1]


@settings(max_examples=150, deadline=None)
@given(
    counts=st.lists(st.integers(3, 40), min_size=3, max_size=3),
    fractions=st.tuples(st.floats(0.01, 0.99), st.floats(0.01, 0.99)),
    budget=st.none() | st.integers(2, 40),
    seed=st.integers(0, 2**31),
    own_test=st.booleans(),
)
def test_every_image_goes_somewhere_once_and_no_class_is_lost(counts, fractions, budget, seed, own_test):
    source = labels(train=counts, test=(2, 2, 2) if own_test else ())
    parameters = data(seed, budget, *fractions)
    try:
        plan = plan_splits(source, NAMES, parameters)
    except UserError as error:
        assert budget is not None
        assert str(error).startswith(f"data.labels_per_class = {budget}: class ")
        return
    assert {split: len(plan[split]) for split in SPLITS} == {split: len(source[split]) for split in SPLITS}
    found = per_class(source, plan)
    for label in range(3):
        assert min(found[split][label] for split in ("train", "validation", "test")) >= 1
        assert sum(found[split][label] for split in SPLITS) == counts[label] + 2 * own_test
        if budget is not None:
            assert found["train"][label] + found["validation"][label] == budget


@pytest.mark.parametrize(
    ("source", "parameters", "expected"),
    [
        (
            labels(test=(4, 4, 4)),
            data(budget=21),
            "data.labels_per_class = 21: class 'c' has only 20 labelled training images; choose at most 20",
        ),
        (
            labels(),
            data(budget=17),
            "data.labels_per_class = 17: class 'c' has only 16 labelled training images; choose at most 16",
        ),
        (labels(), data(budget=1), "data.labels_per_class = 1: one label per class can't serve training and"),
        (
            labels(train=(9, 2, 9)),
            data(),
            "data.split.test = 0.2: class 'b' has 2 labelled images to cut from; at least 3",
        ),
        (
            labels(train=(9, 1, 9), test=(1, 1, 1)),
            data(),
            "data.split.validation = 0.2: class 'b' has 1 labelled images to cut from; at least 2",
        ),
    ],
)
def test_what_can_not_be_split_is_refused(source, parameters, expected):
    with pytest.raises(UserError) as caught:
        plan_splits(source, NAMES, parameters)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_budget_of_one_is_enough_with_a_validation_split_of_its_own():
    source = labels(validation=(3, 3, 3), test=(4, 4, 4))
    assert per_class(source, plan_splits(source, NAMES, data(budget=1)))["train"] == [1, 1, 1]


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
