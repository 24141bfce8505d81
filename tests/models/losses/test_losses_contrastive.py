"""The contrastive losses: closed forms, what must not change them, and what must."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

from models.losses import cross_view_nt_xent, dcl, moco, moco_v3, nnclr, nt_xent, sup_con
from tests.helpers import slow_losses
from tests.helpers.loss_checks import (
    SEED,
    TEMPERATURE,
    few,
    gradients,
    normal,
    rotation,
    scales,
    two_views,
    value,
)

TWO_VIEWS = [nt_xent, cross_view_nt_xent, dcl, nnclr, moco_v3]
SYMMETRIC = [nt_xent, cross_view_nt_xent, dcl, nnclr]
VIEWS = SEED.map(lambda seed: two_views(6, 4, seed))


def close(expected):
    return pytest.approx(expected, rel=1e-4, abs=1e-4)


def supervised(z1, z2, temperature):
    """SupCon's loss of two views in which each image is a class of its own."""
    labels = np.tile(np.arange(len(z1), dtype="int32"), 2)
    return value(sup_con, np.concatenate([z1, z2]), labels, temperature=temperature)


EQUAL = {
    nt_xent: lambda n, temperature: math.log(2 * n - 1),
    cross_view_nt_xent: lambda n, temperature: math.log(n),
    dcl: lambda n, temperature: math.log(2 * n - 2),
    nnclr: lambda n, temperature: math.log(n),
    moco_v3: lambda n, temperature: 2 * temperature * math.log(n),
}


@pytest.mark.parametrize("loss", TWO_VIEWS)
@pytest.mark.parametrize("n", [2, 8, 33])
@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0])
def test_equal_embeddings_give_the_logarithm_of_the_number_of_candidates(loss, n, temperature):
    same = np.tile(np.array([[0.3, -2.0, 1.0]], "float32"), (n, 1))
    assert value(loss, same, same, temperature=temperature) == pytest.approx(EQUAL[loss](n, temperature), abs=2e-4)
    zeros = np.zeros_like(same)
    assert value(loss, zeros, zeros, temperature=temperature) == pytest.approx(
        EQUAL[loss](n, temperature), abs=1e-5
    )


@pytest.mark.parametrize("loss", [nt_xent, cross_view_nt_xent, nnclr, moco_v3])
def test_a_single_image_has_nothing_to_be_confused_with(loss):
    assert value(loss, *two_views(1, 3, 0), temperature=0.1) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("temperature", [0.02, 0.5])
def test_equal_views_of_orthogonal_images_have_closed_forms(temperature):
    eye = np.eye(6, dtype="float32")
    s = 1 / temperature
    # the other view at similarity 1; at 0 the five other images of the other view, with NT-Xent of both views
    expected = {
        nt_xent: math.log1p(10 * math.exp(-s)),
        cross_view_nt_xent: math.log1p(5 * math.exp(-s)),
        dcl: math.log(10) - s,
        nnclr: math.log1p(5 * math.exp(-s)),
        moco_v3: 2 * temperature * math.log1p(5 * math.exp(-s)),
    }
    for loss in TWO_VIEWS:
        assert value(loss, eye, eye, temperature=temperature) == pytest.approx(expected[loss], rel=1e-5, abs=1e-5)


def test_opposite_views_have_a_closed_form():
    z = np.array([[1.0, 0.0]], "float32").repeat(2, axis=0)
    # of three candidates one is alike, and the two of the other view are opposite; one of these is meant
    expected = math.log(math.exp(1 / 0.5) + 2 * math.exp(-1 / 0.5)) + 1 / 0.5
    assert value(nt_xent, z, -z, temperature=0.5) == pytest.approx(expected, rel=1e-5)
    # without the one that is meant
    decoupled = math.log(math.exp(1 / 0.5) + math.exp(-1 / 0.5)) + 1 / 0.5
    assert value(dcl, z, -z, temperature=0.5) == pytest.approx(decoupled, rel=1e-5)
    assert value(cross_view_nt_xent, z, -z, temperature=0.5) == pytest.approx(math.log(2), rel=1e-5)


@few
@given(VIEWS, TEMPERATURE, SEED)
def test_the_scale_of_an_embedding_does_not_matter(views, temperature, seed):
    z1, z2 = (z * scales(6, seed + i) for i, z in enumerate(views))
    for loss in TWO_VIEWS:
        expected = close(value(loss, *views, temperature=temperature))
        assert value(loss, z1, z2, temperature=temperature) == expected


@few
@given(VIEWS, TEMPERATURE, SEED)
def test_a_rotation_of_the_space_does_not_matter(views, temperature, seed):
    turn = rotation(4, seed)
    for loss in TWO_VIEWS:
        expected = close(value(loss, *views, temperature=temperature))
        assert value(loss, views[0] @ turn, views[1] @ turn, temperature=temperature) == expected


def test_a_rotation_of_one_view_alone_matters():
    z1, z2 = two_views(6, 4, 0, noise=0.1)
    for loss in TWO_VIEWS:
        aligned = value(loss, z1, z2, temperature=0.5)
        assert value(loss, z1, z2 @ rotation(4, 1), temperature=0.5) > aligned + 0.1


@few
@given(VIEWS, TEMPERATURE, st.permutations(range(6)))
def test_neither_the_order_of_the_batch_nor_of_the_views_matters(views, temperature, order):
    z1, z2 = views
    for loss in TWO_VIEWS:
        expected = close(value(loss, z1, z2, temperature=temperature))
        assert value(loss, z1[order], z2[order], temperature=temperature) == expected
    for loss in SYMMETRIC:
        assert value(loss, z2, z1, temperature=temperature) == close(value(loss, z1, z2, temperature=temperature))


@few
@given(VIEWS, TEMPERATURE)
def test_any_image_may_swap_its_views_where_both_views_are_candidates(views, temperature):
    z1, z2 = views
    swapped = np.arange(6)[:, None] % 2 == 0
    for loss in (nt_xent, dcl):
        found = value(loss, np.where(swapped, z1, z2), np.where(swapped, z2, z1), temperature=temperature)
        assert found == close(value(loss, z1, z2, temperature=temperature))


def test_where_only_the_other_view_has_candidates_no_image_may_swap_its_views():
    z1, z2 = two_views(6, 4, 0)
    swapped = np.arange(6)[:, None] % 2 == 0
    found = value(cross_view_nt_xent, np.where(swapped, z1, z2), np.where(swapped, z2, z1), temperature=0.5)
    assert abs(found - value(cross_view_nt_xent, z1, z2, temperature=0.5)) > 1e-3


@few
@given(VIEWS, TEMPERATURE)
def test_the_loss_lies_between_0_and_its_worst_case(views, temperature):
    assert 0 <= value(nt_xent, *views, temperature=temperature) + 1e-5 <= 2 / temperature + math.log(11) + 1e-4
    for loss in (cross_view_nt_xent, nnclr):
        assert 0 <= value(loss, *views, temperature=temperature) + 1e-5 <= 2 / temperature + math.log(6) + 1e-4
    # the decoupled loss has no floor at 0: all others may be further than the positive
    assert value(dcl, *views, temperature=temperature) <= value(nt_xent, *views, temperature=temperature) + 1e-4


def test_an_image_that_gets_another_one_s_view_costs_more():
    z1, z2 = two_views(6, 4, 0, noise=0.1)
    for loss in TWO_VIEWS:
        matched = value(loss, z1, z2, temperature=0.5)
        assert value(loss, z1, np.roll(z2, 1, axis=0), temperature=0.5) > matched + 0.1


def test_the_decoupled_loss_of_an_easy_positive_still_has_a_gradient():
    z1, z2 = two_views(2, 8, 0, noise=0.1)
    strength = {
        loss: max(np.abs(g).max() for g in gradients(loss, z1, z2, temperature=0.05)[1]) for loss in (nt_xent, dcl)
    }
    assert strength[dcl] > 100 * strength[nt_xent]


@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_nnclr_averages_its_equation_and_the_term_added_to_it(temperature):
    rng = np.random.default_rng(0)
    neighbours, z2 = normal(rng, 5, 3), normal(rng, 5, 3)
    # with the roles swapped, the denominator runs over the neighbours: the term that section 3.2 adds
    ways = [slow_losses.nnclr_one_way(a, b, temperature) for a, b in ((neighbours, z2), (z2, neighbours))]
    assert abs(ways[0] - ways[1]) > 0.001
    assert value(nnclr, neighbours, z2, temperature=temperature) == pytest.approx(sum(ways) / 2, rel=1e-5)


# MoCo


def moco_case(seed, n=6, width=4, k=7):
    return (*two_views(n, width, seed), normal(np.random.default_rng(seed + 1), k, width))


@pytest.mark.parametrize("k", [1, 16, 1000])
@pytest.mark.parametrize("temperature", [0.01, 0.07, 1.0])
def test_moco_of_equal_embeddings_is_the_logarithm_of_the_queue_and_the_key(k, temperature):
    same = np.tile(np.array([[0.3, -2.0, 1.0]], "float32"), (k + 3, 1))
    found = value(moco, same[:3], same[:3], same[3:], temperature=temperature)
    assert found == pytest.approx(math.log(k + 1), abs=2e-4)


def test_moco_of_an_orthogonal_queue_has_a_closed_form():
    eye = np.eye(6, dtype="float32")
    found = value(moco, eye[:2], eye[:2], eye[2:], temperature=0.5)
    assert found == pytest.approx(math.log(math.exp(2) + 4) - 2, rel=1e-5)


def test_the_keys_of_the_batch_are_no_negatives_in_moco():
    queries, keys, queue = moco_case(0)
    apart = [value(moco, queries[i : i + 1], keys[i : i + 1], queue, temperature=0.1) for i in range(6)]
    assert value(moco, queries, keys, queue, temperature=0.1) == pytest.approx(np.mean(apart), rel=1e-5)


@few
@given(SEED.map(moco_case), TEMPERATURE, SEED, st.permutations(range(6)), st.permutations(range(7)))
def test_what_does_not_matter_to_moco(case, temperature, seed, order, queue_order):
    queries, keys, queue = case
    expected = close(value(moco, queries, keys, queue, temperature=temperature))
    scaled = [z * scales(len(z), seed + i) for i, z in enumerate(case)]
    turn = rotation(4, seed)
    for variant in (
        scaled,
        [z @ turn for z in case],
        (queries[order], keys[order], queue),
        (queries, keys, queue[queue_order]),
    ):
        assert value(moco, *variant, temperature=temperature) == expected


@few
@given(SEED.map(moco_case), st.floats(0.05, 0.5))
def test_queries_and_keys_are_no_equals(case, temperature):
    queries, keys, queue = case
    given_order = value(moco, queries, keys, queue, temperature=temperature)
    assert abs(value(moco, keys, queries, queue, temperature=temperature) - given_order) > 1e-5
    given_order = value(moco_v3, queries, keys, temperature=temperature)
    assert abs(value(moco_v3, keys, queries, temperature=temperature) - given_order) > 1e-6


@few
@given(VIEWS, TEMPERATURE)
def test_moco_v3_both_ways_is_the_scaled_cross_view_loss(views, temperature):
    z1, z2 = views
    both = value(moco_v3, z1, z2, temperature=temperature) + value(moco_v3, z2, z1, temperature=temperature)
    assert both == close(4 * temperature * value(cross_view_nt_xent, z1, z2, temperature=temperature))


@pytest.mark.parametrize("loss", [nt_xent, cross_view_nt_xent, dcl, nnclr, moco_v3])
def test_a_learned_temperature_rises_where_views_do_not_match_and_falls_where_they_do(loss):
    z = np.eye(4, dtype="float32")

    def slope(*views):
        tensors = [ops.convert_to_tensor(view) for view in views]
        return gradients(lambda temperature: loss(*tensors, temperature), np.float32(0.5))[1][0]

    assert slope(z, np.roll(z, 1, axis=0)) < -0.1
    assert slope(z, z) > 0.1


# SupCon


def sup_con_case(seed, n=8, classes=3):
    rng = np.random.default_rng(seed)
    return normal(rng, n, 4), rng.integers(-1, classes, n).astype("int32")


@few
@given(st.integers(2, 6), TEMPERATURE, SEED)
def test_sup_con_with_each_image_a_class_of_its_own_is_nt_xent(n, temperature, seed):
    z1, z2 = two_views(n, 4, seed)
    assert supervised(z1, z2, temperature) == close(value(nt_xent, z1, z2, temperature=temperature))


@pytest.mark.parametrize("m", [2, 3, 40])
@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0])
def test_equal_rows_of_one_class_give_the_logarithm_of_the_others(m, temperature):
    same = np.tile(np.array([[0.3, -2.0, 1.0]], "float32"), (m, 1))
    found = value(sup_con, same, np.zeros(m, "int32"), temperature=temperature)
    assert found == pytest.approx(math.log(m - 1), abs=2e-4)


def test_the_positives_are_averaged_outside_the_logarithm():
    # anchor 0 has positives at similarity 1 and 0: L_out pays for the far one, L_in hardly does
    z = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0]], "float32")
    t = 0.1
    near, far = math.log1p(math.exp(-1 / t)), math.log1p(math.exp(-1 / t)) + 1 / t
    expected = (2 * (near + far) / 2 + math.log(2)) / 3
    assert value(sup_con, z, np.zeros(3, "int32"), temperature=t) == pytest.approx(expected, rel=1e-5)


@few
@given(SEED.map(sup_con_case), TEMPERATURE, SEED, st.permutations(range(8)), st.permutations(range(3)))
def test_what_does_not_matter_to_sup_con(case, temperature, seed, order, names):
    z, labels = case
    renamed = np.where(labels < 0, labels, np.array([10 * name for name in names], "int32")[labels]).astype("int32")
    expected = close(value(sup_con, z, labels, temperature=temperature))
    for variant in (
        (z * scales(8, seed), labels),
        (z @ rotation(4, seed), labels),
        (z[order], labels[order]),
        (z, renamed),
    ):
        assert value(sup_con, *variant, temperature=temperature) == expected


@few
@given(SEED, st.integers(1, 5), st.floats(0.05, 1))
def test_unlabelled_rows_change_nothing_and_learn_nothing(seed, extra, temperature):
    rng = np.random.default_rng(seed)
    z, labels = normal(rng, 6, 4), np.array([0, 0, 1, 1, 2, 3], "int32")
    # among them copies of labelled rows, which would be the hardest of negatives
    more = np.concatenate([z, z[:1], normal(rng, extra, 4)])
    order = rng.permutation(len(more))
    more_labels = np.concatenate([labels, np.full(extra + 1, -1, "int32")])
    expected, slopes = gradients(sup_con, z, labels, temperature=temperature)
    found, more_slopes = gradients(sup_con, more[order], more_labels[order], temperature=temperature)
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)
    back = more_slopes[0][np.argsort(order)]
    np.testing.assert_array_equal(back[6:], 0)
    np.testing.assert_allclose(back[:6], slopes[0], rtol=1e-3, atol=1e-5)
    assert np.abs(slopes[0]).max() > 1e-4


@pytest.mark.parametrize(
    "labels", [[0, 1, 2, 3], [-1, -1, -1, -1], [-1, 5, -1, -1], [0, -1, 1, -1]], ids=lambda labels: str(labels)
)
@pytest.mark.parametrize("temperature", [0.01, 0.1])
def test_without_a_positive_there_is_nothing_to_learn(labels, temperature):
    z = two_views(4, 3, 0)[0]
    loss, slopes = gradients(sup_con, z, np.array(labels, "int32"), temperature=temperature)
    assert loss == 0
    np.testing.assert_array_equal(slopes[0], 0)


def test_an_anchor_without_a_positive_is_a_candidate_and_no_part_of_the_mean():
    z = np.eye(3, dtype="float32")
    z[1] = z[0]
    # two anchors at similarity 1 of each other, and a third image of another class at 0
    found = value(sup_con, z, np.array([7, 7, 2], "int32"), temperature=0.5)
    assert found == pytest.approx(math.log1p(math.exp(-2)), rel=1e-5)


@pytest.mark.parametrize("dtype", ["int32", "int64", "int8"])
def test_labels_may_have_any_integer_type(dtype):
    z, labels = sup_con_case(0)
    found = float(sup_con(ops.convert_to_tensor(z), ops.convert_to_tensor(labels.astype(dtype)), 0.1))
    assert found == pytest.approx(slow_losses.sup_con(z.astype(float), labels, 0.1), rel=1e-5)
