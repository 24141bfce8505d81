"""More than two views of each image: rows apart, pairs of views, and the losses that take further views."""

from __future__ import annotations

import math

import numpy as np
import pytest

from models.losses import cross_view_nt_xent, dcl, nt_xent, sup_con, swav
from models.losses.views import over_pairs, split_views
from tests.helpers import slow_losses
from tests.helpers.loss_checks import assert_same_gradients, central_differences, gradients, normal, value

WITH_MORE = {
    "nt_xent": (nt_xent, {"temperature": 0.2}),
    "dcl": (dcl, {"temperature": 0.2}),
    "swav": (swav, {"temperature": 0.1, "epsilon": 0.2, "iterations": 4}),
}


def views_of_images(count, n=5, width=3, seed=0):
    rng = np.random.default_rng(seed)
    images = normal(rng, n, width)
    return [images + np.float32(0.7) * normal(rng, n, width) for _ in range(count)]


def of_views(loss, options):
    """The loss as a function of all views one after the other."""

    def found(one, two, *more):
        return loss(one, two, **options, more=more)

    return found


def precise(views):
    return [view.astype(float) for view in views]


@pytest.mark.parametrize("views", [1, 2, 3, 8])
def test_the_rows_of_each_view_come_apart(views):
    rows = np.arange(views * 12).reshape(views * 4, 3)
    for found, expected in zip(split_views(rows, views), np.split(rows, views), strict=True):
        np.testing.assert_array_equal(found, expected)


def asked(one, other, **options):
    """Which pairs a loss is taken of, in their order, and what comes out where each gives its own number."""
    pairs = []

    def loss(a, b):
        pairs.append((a, b))
        return float(10 * a + b)

    return over_pairs(loss, range(one), range(other), **options), pairs


@pytest.mark.parametrize("views", [2, 3, 5])
def test_each_pair_of_views_counts_once_each_way(views):
    mean, pairs = asked(views, views)
    assert pairs == [(a, b) for a in range(views) for b in range(views) if a != b]
    assert mean == pytest.approx(np.mean([10 * a + b for a, b in pairs]))
    mean, pairs = asked(views, views, both_ways=False)
    assert pairs == [(a, b) for a in range(views) for b in range(a + 1, views)]
    assert mean == pytest.approx(np.mean([10 * a + b for a, b in pairs]))


def test_of_fewer_targets_each_view_meets_the_others():
    assert asked(4, 2)[1] == [(0, 1), (1, 0), (2, 0), (2, 1), (3, 0), (3, 1)]


@pytest.mark.parametrize("count", [2, 3, 4, 8])
@pytest.mark.parametrize("name", WITH_MORE)
def test_a_loss_of_several_views_equals_its_equation(name, count):
    loss, options = WITH_MORE[name]
    for seed in range(3):
        views = views_of_images(count, seed=seed)
        slow = of_views(getattr(slow_losses, name), options)(*precise(views))
        assert value(of_views(loss, options), *views) == pytest.approx(slow, rel=2e-5, abs=3e-5)


@pytest.mark.parametrize("name", WITH_MORE)
def test_a_gradient_by_each_view_equals_finite_differences(name):
    loss, options = WITH_MORE[name]
    views = views_of_images(4, n=3)
    slow = of_views(getattr(slow_losses, name), options)
    if name == "swav":
        targets = [slow_losses.sinkhorn(view, 0.2, 4) for view in precise(views[:2])]

        def slow(one, two, *more):
            # no gradient flows through what is to be predicted
            return slow_losses.swav_to(*targets, one, two, options["temperature"], more)

    _, found = gradients(of_views(loss, options), *views)
    assert_same_gradients(found, central_differences(slow, *views))
    assert all(np.abs(slope).max() > 1e-3 for slope in found)


@pytest.mark.parametrize("count", [2, 3, 8])
def test_equal_embeddings_give_the_logarithm_of_the_number_of_candidates(count):
    equal = [np.full((5, 3), 0.4, "float32")] * count
    expected = {nt_xent: 5 * count - 1, dcl: 5 * count - count}
    for loss, candidates in expected.items():
        found = value(of_views(loss, {"temperature": 0.1}), *equal)
        assert found == pytest.approx(math.log(candidates), abs=1e-4)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_nt_xent_is_supcon_with_each_image_a_class_of_its_own(count):
    views = views_of_images(count)
    labels = np.tile(np.arange(5, dtype="int32"), count)
    expected = value(sup_con, np.concatenate(views), labels, temperature=0.2)
    assert value(of_views(nt_xent, {"temperature": 0.2}), *views) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["nt_xent", "dcl"])
def test_the_order_of_the_views_does_not_matter(name):
    loss, options = WITH_MORE[name]
    views = views_of_images(4)
    expected = value(of_views(loss, options), *views)
    assert value(of_views(loss, options), *views[::-1]) == pytest.approx(expected, rel=1e-5)


def test_a_further_view_of_swav_predicts_and_is_not_predicted():
    one, two, three = views_of_images(3)
    found = value(swav, one, two, temperature=0.1, more=(three,))
    pairs = 2 * value(swav, one, two, temperature=0.1)
    alone = 4 * found - pairs
    # both assignments from the third view
    targets = [slow_losses.sinkhorn(scores.astype(float), 0.05, 3) for scores in (one, two)]
    logs = three / 0.1 - np.log(np.exp(three / 0.1).sum(axis=1, keepdims=True))
    assert alone == pytest.approx(sum(-(target * logs).sum(axis=1).mean() for target in targets), rel=1e-4)


def test_over_pairs_is_the_mean_of_the_losses_of_two():
    views = views_of_images(3)

    def loss(one, two):
        return value(cross_view_nt_xent, one, two, temperature=0.2)

    found = over_pairs(loss, views, views, both_ways=False)
    expected = [
        slow_losses.cross_view_nt_xent(*precise([views[a], views[b]]), 0.2) for a, b in ((0, 1), (0, 2), (1, 2))
    ]
    assert found == pytest.approx(np.mean(expected), rel=1e-5)


@pytest.mark.parametrize("name", WITH_MORE)
def test_a_further_view_of_another_shape_is_refused(name):
    loss, options = WITH_MORE[name]
    views = views_of_images(3)
    with pytest.raises(
        ValueError, match=r"^the views.* must have the same shape \(N, D\), not \(5, 3\) and \(4, 3\)"
    ):
        value(of_views(loss, options), *views[:2], views[2][:4])
