"""Every loss alike: the paper's equation, its gradient, half precision, extremes, batch sizes, bad input."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import pytest
from keras import ops

from models import losses
from tests.helpers import slow_losses
from tests.helpers.loss_checks import (
    as_numpy,
    assert_same_gradients,
    central_differences,
    gradients,
    normal,
    rounded,
    two_views,
    value,
)


def pair(n, width, seed):
    return two_views(n, width, seed)


def unrelated(n, width, seed):
    rng = np.random.default_rng(seed)
    return normal(rng, n, width), normal(rng, n, width)


def with_labels(n, width, seed):
    rng = np.random.default_rng(seed)
    # the first two are of one class, or there might be nothing to compare
    return normal(rng, n, width), np.array([1, 1, *rng.integers(-1, 3, n)], "int32")[:n]


def with_queue(n, width, seed):
    rng = np.random.default_rng(seed)
    return (*two_views(n, width, seed), normal(rng, 5, width))


def with_centre(n, width, seed):
    return (*unrelated(n, width, seed), normal(np.random.default_rng(seed), width))


def grid(**values):
    return tuple(dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values()))


@dataclass(frozen=True)
class Case:
    """How to try one loss.

    Attributes:
        make: function of the number of images, the width and a seed that returns the loss's arrays.
        options: the other arguments to try; the last are the extreme ones.
        scale_free: whether only the direction of each row counts.
        fewest: images that the equation needs.
    """

    make: Callable
    options: tuple[dict, ...]
    scale_free: bool = True
    fewest: int = 1


TEMPERATURES = grid(temperature=(2.0, 0.5, 0.1, 0.01))
CASES = {
    "nt_xent": Case(pair, TEMPERATURES),
    "cross_view_nt_xent": Case(pair, TEMPERATURES),
    "dcl": Case(pair, TEMPERATURES, fewest=2),
    "nnclr": Case(unrelated, TEMPERATURES),
    "sup_con": Case(with_labels, TEMPERATURES),
    "moco": Case(with_queue, TEMPERATURES),
    "moco_v3": Case(pair, TEMPERATURES),
    "negative_cosine": Case(pair, ({},)),
    "byol": Case(pair, ({},)),
    "barlow_twins": Case(pair, grid(off_diagonal=(0.0, 0.005, 2.0)), fewest=2),
    "vicreg": Case(
        pair,
        ({}, {"covariance": 0.0}, {"invariance": 1.0, "variance": 2.0, "covariance": 3.0}),
        scale_free=False,
        fewest=2,
    ),
    "swav": Case(
        unrelated,
        (
            {"temperature": 0.5},
            {"temperature": 0.1, "epsilon": 0.5, "iterations": 1},
            {"temperature": 0.1, "epsilon": 0.2, "iterations": 7},
            {"temperature": 0.01, "epsilon": 0.02},
        ),
        scale_free=False,
    ),
    "dino": Case(
        with_centre,
        grid(student_temperature=(1.0, 0.1), teacher_temperature=(0.5, 0.04))
        + grid(student_temperature=(0.01,), teacher_temperature=(0.01,)),
        scale_free=False,
    ),
}
WITH_TEMPERATURE = [name for name, case in CASES.items() if case.options is TEMPERATURES]
EACH_OPTION = [(name, options) for name, case in CASES.items() for options in case.options]


def of(name):
    return getattr(losses, name), getattr(slow_losses, name)


def precise(inputs):
    """What a transcription gets: the same numbers in float64."""
    return [x.astype(float) if x.dtype.kind == "f" else x for x in inputs]


def test_every_public_loss_is_tried():
    assert set(losses.__all__) == {*CASES, "sinkhorn"}


@pytest.mark.parametrize(("name", "options"), EACH_OPTION)
@pytest.mark.parametrize(("n", "width"), [(2, 2), (3, 7), (16, 5), (5, 32)])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_loss_equals_its_equation(name, options, n, width, seed):
    loss, slow = of(name)
    inputs = CASES[name].make(n, width, seed)
    assert value(loss, *inputs, **options) == pytest.approx(slow(*precise(inputs), **options), rel=2e-5, abs=3e-5)


def constant_targets(name, inputs, options):
    """The transcription as a function of what the gradient flows into: targets are no part of it."""
    _, slow = of(name)
    inputs = precise(inputs)
    if name == "swav":
        sinkhorn = {key: options.get(key, default) for key, default in (("epsilon", 0.05), ("iterations", 3))}
        targets = [slow_losses.sinkhorn(scores, **sinkhorn) for scores in inputs]
        return lambda *scores: slow_losses.swav_to(*targets, *scores, options["temperature"])
    if name == "dino":
        return lambda student, _: slow(student, *inputs[1:], **options)
    if name == "sup_con":
        return lambda z: slow(z, inputs[1], **options)
    return lambda *varied: slow(*varied, **options)


@pytest.mark.parametrize(("name", "options"), EACH_OPTION)
@pytest.mark.parametrize(("n", "width", "seed"), [(2, 3, 0), (4, 3, 1), (5, 2, 2)])
def test_a_gradient_equals_finite_differences(name, options, n, width, seed):
    loss, _ = of(name)
    inputs = CASES[name].make(n, width, seed)
    slow = constant_targets(name, inputs, options)
    if name == "dino":
        # the centre is a running mean, which nobody differentiates by
        *inputs, centre = inputs
        found = gradients(lambda *z, **o: loss(*z, ops.convert_to_tensor(centre), **o), *inputs, **options)[1]
    else:
        found = gradients(loss, *inputs, **options)[1]
    varied = [x for x in inputs if x.dtype.kind == "f"]
    assert_same_gradients(found, central_differences(slow, *varied))


@pytest.mark.parametrize("name", WITH_TEMPERATURE)
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_a_learned_temperature_gets_its_gradient(name, temperature):
    loss, slow = of(name)
    inputs = CASES[name].make(4, 3, 0)
    tensors = [ops.convert_to_tensor(x) for x in inputs]
    found, slopes = gradients(lambda t: loss(*tensors, t), np.float32(temperature))
    assert found == pytest.approx(slow(*precise(inputs), temperature), rel=1e-5, abs=1e-5)

    def varied(t):
        result = slow(*precise(inputs), float(t))
        # its factor of 2·temperature is held still
        return result * temperature / float(t) if name == "moco_v3" else result

    assert_same_gradients(slopes, central_differences(varied, temperature))


@pytest.mark.parametrize("name", CASES)
def test_half_precision_costs_the_rounding_of_the_input_and_nothing_more(name):
    loss, slow = of(name)
    for options in CASES[name].options:
        inputs = CASES[name].make(6, 4, 0)
        halves = [ops.cast(x, "bfloat16") if x.dtype.kind == "f" else ops.convert_to_tensor(x) for x in inputs]
        found = loss(*halves, **options)
        assert keras.backend.standardize_dtype(found.dtype) == "float32"
        kept = [rounded(x, "bfloat16") if x.dtype.kind == "f" else x for x in inputs]
        assert float(found) == pytest.approx(slow(*kept, **options), rel=2e-5, abs=3e-5)


def at_norm(inputs, norm):
    """The same directions at another length; labels stay."""
    return [
        x if x.dtype.kind != "f" else (x / np.linalg.norm(x, axis=-1, keepdims=True) * norm).astype("float32")
        for x in inputs
    ]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("norm", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_finite_at_the_extremes(name, norm, dtype):
    loss, slow = of(name)
    for n in (1, 2, 5):
        if n < CASES[name].fewest:
            continue
        inputs = at_norm(CASES[name].make(n, 4, 0), norm)
        options = CASES[name].options[-1]
        found, slopes = gradients(loss, *inputs, dtype=dtype, **options)
        # scores are cosines: far beyond them the transcription of sinkhorn overflows, and the loss must not
        if name != "swav" or norm <= 1:
            kept = [rounded(x, dtype) if x.dtype.kind == "f" else x for x in inputs]
            assert found == pytest.approx(slow(*kept, **options), rel=1e-4, abs=1e-4)
        assert math.isfinite(found)
        assert all(np.isfinite(slope).all() for slope in slopes)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("level", [0.0, 1e-6, 1.0, 1e6])
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_finite_where_all_embeddings_are_equal(name, level, dtype):
    loss, _ = of(name)
    for n, options in itertools.product((2, 5), CASES[name].options):
        equal = [x if x.dtype.kind != "f" else np.full_like(x, level) for x in CASES[name].make(n, 4, 0)]
        found, slopes = gradients(loss, *equal, dtype=dtype, **options)
        assert math.isfinite(found)
        assert all(np.isfinite(slope).all() for slope in slopes)


@pytest.mark.parametrize("factor", [2.0**-20, 2.0**20])
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.scale_free])
def test_the_gradient_grows_as_the_embedding_shrinks(name, factor):
    # of f(c·z) = f(z) follows f'(c·z) = f'(z) / c; a floor inside a root would flatten it
    loss, _ = of(name)
    inputs = CASES[name].make(5, 4, 0)
    options = CASES[name].options[0]
    _, usual = gradients(loss, *inputs, **options)
    scaled = [x if x.dtype.kind != "f" else x * np.float32(factor) for x in inputs]
    _, found = gradients(loss, *scaled, **options)
    assert max(np.abs(slope).max() for slope in usual) > 1e-3
    for a, b in zip(found, usual, strict=True):
        np.testing.assert_allclose(a * factor, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.scale_free])
def test_a_single_embedding_of_zeros_does_no_harm(name):
    loss, _ = of(name)
    inputs = [x.copy() for x in CASES[name].make(4, 3, 0)]
    inputs[0][1] = 0
    for options in CASES[name].options:
        found, slopes = gradients(loss, *inputs, **options)
        assert math.isfinite(found)
        assert all(np.isfinite(slope).all() for slope in slopes)


@pytest.mark.parametrize("name", CASES)
def test_no_number_in_no_number_out(name):
    loss, _ = of(name)
    inputs = [x.copy() for x in CASES[name].make(4, 3, 0)]
    if name == "sup_con":
        inputs[1][:] = 0
    inputs[0][0, 0] = np.nan
    assert math.isnan(value(loss, *inputs, **CASES[name].options[0]))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow traces unknown batch sizes")
@pytest.mark.parametrize("name", CASES)
def test_a_loss_is_traced_once_for_all_batch_sizes(name):
    import tensorflow as tf

    loss, slow = of(name)
    options = CASES[name].options[0]
    batch, rest = CASES[name].make(4, 3, 0)[:2], CASES[name].make(4, 3, 0)[2:]
    shapes = [tf.TensorSpec([None, *x.shape[1:]], x.dtype) for x in batch]
    shapes += [tf.TensorSpec(x.shape, x.dtype) for x in rest]
    traced = tf.function(lambda *inputs: loss(*inputs, **options), input_signature=shapes)
    for n in (4, 7):
        inputs = CASES[name].make(n, 3, 0)
        expected = slow(*precise(inputs), **options)
        assert as_numpy(traced(*inputs)) == pytest.approx(expected, rel=2e-5, abs=3e-5)


@pytest.mark.parametrize("temperature", [0, 0.0, -0.1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", [*WITH_TEMPERATURE, "swav"])
def test_a_temperature_that_is_not_positive_is_refused(name, temperature):
    with pytest.raises(ValueError, match=f"temperature must be > 0, not {temperature}"):
        value(of(name)[0], *CASES[name].make(2, 3, 0), temperature=temperature)


@pytest.mark.parametrize("which", ["student_temperature", "teacher_temperature"])
def test_neither_temperature_of_dino_may_be_0(which):
    options = {"student_temperature": 0.1, "teacher_temperature": 0.04, which: 0.0}
    with pytest.raises(ValueError, match=r"temperature must be > 0, not 0\.0"):
        value(losses.dino, *with_centre(2, 3, 0), **options)


WRONG_PAIRS = [((2, 3), (2, 4)), ((2, 3), (3, 3)), ((3,), (3,)), ((2, 2, 3), (2, 2, 3)), ((4, 3), (2, 3))]
PAIRED = {
    **dict.fromkeys(("nt_xent", "cross_view_nt_xent", "dcl", "nnclr", "barlow_twins", "vicreg"), "the two views"),
    **dict.fromkeys(("moco", "moco_v3"), "queries and keys"),
    **dict.fromkeys(("negative_cosine", "byol"), "predictions and targets"),
    "swav": "the two views' scores",
    "dino": "the student's and the teacher's logits",
}


@pytest.mark.parametrize("shapes", WRONG_PAIRS)
@pytest.mark.parametrize("name", PAIRED)
def test_arrays_of_different_or_wrong_shapes_are_refused(name, shapes):
    others = CASES[name].make(2, 3, 0)[2:]
    message = f"^{PAIRED[name]} must have the same shape \\(N, D\\), not \\({shapes[0][0]},.* and \\("
    with pytest.raises(ValueError, match=message):
        value(of(name)[0], *(np.ones(shape, "float32") for shape in shapes), *others, **CASES[name].options[0])


@pytest.mark.parametrize("name", ["dcl", "vicreg"])
def test_a_single_image_is_refused_where_others_are_needed(name):
    with pytest.raises(ValueError, match="needs at least 2 images a batch, not 1"):
        value(of(name)[0], *pair(1, 3, 0), **CASES[name].options[0])


@pytest.mark.parametrize("weight", [-0.5, float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("name", "field"),
    [("barlow_twins", "off_diagonal"), *(("vicreg", field) for field in ("invariance", "variance", "covariance"))],
)
def test_a_negative_weight_is_refused(name, field, weight):
    with pytest.raises(ValueError, match=f"^{field} must be ≥ 0, not {weight}"):
        value(of(name)[0], *pair(2, 3, 0), **{field: weight})


@pytest.mark.parametrize("shape", [(5, 4), (3,), (5, 3, 1), (3, 5)])
def test_a_queue_of_another_width_is_refused(shape):
    with pytest.raises(ValueError, match=r"^the queue must have the shape \(K, 3\), not \("):
        value(losses.moco, *pair(2, 3, 0), np.ones(shape, "float32"), temperature=0.1)


@pytest.mark.parametrize("shape", [(4,), (1,), (2,), (), (2, 3), (1, 3)])
def test_a_centre_of_another_shape_is_refused(shape):
    options = {"student_temperature": 0.1, "teacher_temperature": 0.04}
    with pytest.raises(ValueError, match=r"^the center must have the shape \(3,\), not \("):
        value(losses.dino, *pair(2, 3, 0), np.ones(shape, "float32"), **options)


@pytest.mark.parametrize("shape", [(3,), (5,), (4, 1), ()])
def test_labels_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"^labels must have the shape \(4,\), not \("):
        value(losses.sup_con, np.ones((4, 3), "float32"), np.zeros(shape, "int32"), temperature=0.1)


@pytest.mark.parametrize("shape", [(4,), (4, 3, 2)])
def test_embeddings_that_are_not_rows_are_refused(shape):
    with pytest.raises(ValueError, match=r"^embeddings must have the shape \(N, D\), not \(4,"):
        value(losses.sup_con, np.ones(shape, "float32"), np.zeros(4, "int32"), temperature=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 0.0, "iterations": 3}, r"^epsilon must be > 0, not 0\.0"),
        ({"epsilon": -1.0, "iterations": 3}, r"^epsilon must be > 0, not -1\.0"),
        ({"epsilon": float("nan"), "iterations": 3}, "^epsilon must be > 0, not nan"),
        ({"epsilon": 0.05, "iterations": 0}, "^iterations must be ≥ 1, not 0"),
    ],
)
def test_options_of_sinkhorn_are_checked(options, message):
    scores = ops.convert_to_tensor(unrelated(2, 3, 0)[0])
    with pytest.raises(ValueError, match=message):
        losses.sinkhorn(scores, **options)
    with pytest.raises(ValueError, match=message):
        losses.swav(scores, scores, 0.1, **options)
