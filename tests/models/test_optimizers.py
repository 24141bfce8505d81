"""Optimisers of pretraining: LARS by its formula, what weight decay leaves alone, the learning rate's course."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from models import optimizers
from models.optimizers import LARS, exclude_vectors
from tests.helpers.options import optimizer as options

NAMES = ["adam", "adamw", "sgd", "lars"]


def slow_lars(weights, gradients, rate, momentum, decay, trust):
    """The step of SimCLR's code, weight by weight, after the gradients of each step."""
    weights, velocities = [w.copy() for w in weights], [np.zeros_like(w) for w in weights]
    for given in gradients:
        for i, gradient in enumerate(given):
            scaled = rate
            if weights[i].ndim > 1:
                gradient = gradient + np.float32(decay) * weights[i]
                length, slope = np.sqrt((weights[i] ** 2).sum()), np.sqrt((gradient**2).sum())
                if length > 0 and slope > 0:
                    scaled = rate * trust * length / slope
            velocities[i] = momentum * velocities[i] + scaled * gradient
            weights[i] = weights[i] - velocities[i]
    return weights


def arrays(seed, shapes):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype("float32") for shape in shapes]


SHAPES = [(3, 4), (4,), (2, 2, 3, 5), (), (1, 3)]


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("trust", [0.001, 0.5])
def test_lars_equals_its_formula(decay, momentum, trust):
    weights = [*arrays(0, SHAPES), np.zeros((2, 3), "float32"), *arrays(1, [(2, 3), (3,)])]
    gradients = []
    for seed in range(5):
        # the last two never get a gradient
        given = [*arrays(10 + seed, SHAPES), *arrays(20 + seed, [(2, 3)])]
        gradients.append([*given, np.zeros((2, 3), "float32"), np.zeros(3, "float32")])
    variables = [keras.Variable(w) for w in weights]
    optimizer = LARS(0.3, momentum=momentum, decay=decay, trust=trust)
    for given in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in given], variables)
    expected = slow_lars(weights, gradients, 0.3, momentum, decay, trust)
    for variable, value in zip(variables, expected, strict=True):
        np.testing.assert_allclose(variable.numpy(), value, rtol=1e-4, atol=1e-6, err_msg=str(value.shape))
    # all have moved but those without a gradient, of which decay shrinks the matrix
    moved = [not np.array_equal(v.numpy(), w) for v, w in zip(variables, weights, strict=True)]
    assert moved == [True] * 6 + [decay > 0, False]


def test_the_step_of_lars_is_as_long_as_the_matrix_asks_for_whatever_the_gradient():
    (weights,) = arrays(0, [(5, 4)])
    for scale in (1e-3, 1.0, 1e3):
        variable = keras.Variable(weights)
        LARS(0.5, trust=0.01).apply([keras.ops.convert_to_tensor(arrays(1, [(5, 4)])[0] * scale)], [variable])
        step = np.linalg.norm(variable.numpy() - weights)
        assert step == pytest.approx(0.5 * 0.01 * np.linalg.norm(weights), rel=1e-4)


def apply(optimizer, variables, gradients, steps=1):
    exclude_vectors(optimizer, variables)
    for _ in range(steps):
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients], variables)
    return [v.numpy() for v in variables]


def layers():
    """Kernels, biases, and the scale and shift of a normalisation, all far from 0."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(3, 2),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(4),
            keras.layers.LayerNormalization(),
        ]
    )
    for variable in model.trainable_variables:
        variable.assign_add(np.full(variable.shape, 0.5))
    return model.trainable_variables


def build(name, rate=0.1, decay=0.0, steps=1, **changes):
    """An optimiser whose epochs have one step; adam goes without decay."""
    decay = 0.0 if name == "adam" else decay
    return optimizers.build(options(name, rate, weight_decay=decay, **changes), steps, 1)


@pytest.mark.parametrize("name", NAMES)
def test_weight_decay_shrinks_kernels_and_leaves_biases_and_norms_alone(name):
    variables = layers()
    before = [v.numpy() for v in variables]
    optimizer = build(name, decay=0.2, schedule="constant")
    after = apply(optimizer, variables, [np.zeros_like(b) for b in before])
    assert [v.path.split("/")[-1] for v in variables] == ["kernel", "bias", "gamma", "beta"] * 2
    for variable, old, new in zip(variables, before, after, strict=True):
        if not variable.path.endswith("kernel") or name == "adam":
            np.testing.assert_array_equal(new, old, err_msg=variable.path)
            continue
        # lars: the trust ratio 0.001 · ‖w‖ / ‖0.2 · w‖ of the gradient 0.2 · w
        factor = 1 - 0.1 * 0.001 if name == "lars" else 1 - 0.1 * 0.2
        np.testing.assert_allclose(new, factor * old, rtol=1e-5, err_msg=variable.path)


@pytest.mark.parametrize("name", NAMES)
def test_no_weight_decay_changes_nothing_without_a_gradient(name):
    variables = layers()
    before = [v.numpy() for v in variables]
    after = apply(build(name, schedule="constant"), variables, [np.zeros_like(b) for b in before])
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(new, old)


def test_sgd_has_momentum():
    variable = keras.Variable(np.zeros((2, 2), "float32"))
    optimizer = build("sgd", momentum=0.5, schedule="constant")
    steps = [apply(optimizer, [variable], [np.ones((2, 2))])[0][0, 0]]
    for _ in range(2):
        optimizer.apply([keras.ops.ones((2, 2))], [variable])
        steps.append(variable.numpy()[0, 0])
    np.testing.assert_allclose(np.diff([0, *steps]), [-0.1, -0.15, -0.175], rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_each_goes_down_a_bowl_with_its_schedule(name):
    (start,) = arrays(0, [(4, 4)])
    variable = keras.Variable(start)
    rate = {"lars": 300.0}.get(name, 0.1)
    optimizer = build(name, rate, 1e-4, steps=40, momentum=0.5, warmup_epochs=5)
    exclude_vectors(optimizer, [variable])
    for _ in range(40):
        optimizer.apply([variable.value], [variable])
    assert np.linalg.norm(variable.numpy()) < 0.3 * np.linalg.norm(start)


def rates(steps=40, **changes):
    """The learning rate at each step and at the end, as the optimiser will use it."""
    schedule = build("sgd", 0.2, steps=steps, **changes)._learning_rate
    if not callable(schedule):
        return np.full(steps + 1, float(schedule))
    return np.array([float(schedule(step)) for step in range(steps + 1)])


@pytest.mark.parametrize("final", [0.0, 0.02, 1.0])
def test_cosine_goes_from_the_rate_to_its_final_fraction(final):
    fraction = (1 + np.cos(np.pi * np.arange(41) / 40)) / 2
    found = rates(schedule="cosine", final_fraction=final)
    np.testing.assert_allclose(found, 0.2 * (final + (1 - final) * fraction), rtol=1e-4, atol=1e-7)
    assert (found[0], found[-1]) == (pytest.approx(0.2), pytest.approx(0.2 * final, abs=1e-7))


def test_constant_stays():
    np.testing.assert_allclose(rates(schedule="constant"), 0.2, rtol=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("warmup", [1, 10, 39, 40, 100])
def test_the_warm_up_rises_evenly_from_0(schedule, warmup):
    found = rates(schedule=schedule, warmup_epochs=warmup, final_fraction=0.1)
    rising = min(warmup, 40) + (warmup >= 40)
    np.testing.assert_allclose(found[:rising], 0.2 * np.arange(rising) / warmup, rtol=1e-4, atol=1e-8)
    if warmup < 40:
        rest = np.arange(40 - warmup + 1) / (40 - warmup)
        cosine = 0.1 + 0.9 * (1 + np.cos(np.pi * rest)) / 2
        expected = 0.2 * (cosine if schedule == "cosine" else np.ones_like(rest))
        np.testing.assert_allclose(found[warmup:], expected, rtol=1e-4)


def test_the_rate_stays_at_its_end_afterwards():
    schedule = build("adam", 0.2, schedule="cosine", final_fraction=0.1, warmup_epochs=3, steps=10)._learning_rate
    assert float(schedule(1000)) == pytest.approx(0.02)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_first_step_of_a_warm_up_moves_nothing(schedule):
    variable = keras.Variable(np.ones((2, 2), "float32"))
    optimizer = build("sgd", 0.1, schedule=schedule, warmup_epochs=2, steps=10)
    optimizer.apply([keras.ops.ones((2, 2))], [variable])
    np.testing.assert_array_equal(variable.numpy(), np.ones((2, 2)))
    optimizer.apply([keras.ops.ones((2, 2))], [variable])
    assert variable.numpy().max() < 1


def test_weight_decay_of_adam_is_refused():
    with pytest.raises(ValueError, match=r"weight_decay = 0\.1: adam has none"):
        options("adam", 0.1, weight_decay=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_an_optimiser_goes_on_from_its_saved_variables(name):
    shapes = [(3, 4), (4,)]

    def fresh(weights):
        variables = [keras.Variable(w) for w in weights]
        optimizer = build(name, decay=0.01, warmup_epochs=2, steps=8)
        exclude_vectors(optimizer, variables)
        optimizer.build(variables)
        return optimizer, variables

    def steps(optimizer, variables, seeds):
        for seed in seeds:
            optimizer.apply([keras.ops.convert_to_tensor(g) for g in arrays(seed, shapes)], variables)

    optimizer, variables = fresh(arrays(0, shapes))
    steps(optimizer, variables, range(1, 4))
    kept = [np.asarray(v) for v in [*variables, *optimizer.variables]]
    steps(optimizer, variables, range(4, 8))
    other, others = fresh(arrays(9, shapes))
    for variable, value in zip([*others, *other.variables], kept, strict=True):
        variable.assign(value)
    steps(other, others, range(4, 8))
    for one, two in zip([*variables, *optimizer.variables], [*others, *other.variables], strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy(), err_msg=one.path)
    assert int(other.iterations) == 7


def test_lars_is_made_again_from_its_configuration():
    schedule = build("lars", 0.3, warmup_epochs=2, steps=10)._learning_rate
    first = LARS(schedule, momentum=0.8, decay=0.01, trust=0.02, name="mine")
    second = LARS.from_config(first.get_config())
    assert second.get_config() == first.get_config()
    assert (second.momentum, second.decay, second.trust, second.name) == (0.8, 0.01, 0.02, "mine")
    weights, results = arrays(0, SHAPES), []
    for optimizer in (first, second):
        variables = [keras.Variable(w) for w in weights]
        for seed in range(1, 5):
            optimizer.apply([keras.ops.convert_to_tensor(g) for g in arrays(seed, SHAPES)], variables)
        results.append([v.numpy() for v in variables])
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


def test_vectors_are_told_from_matrices():
    kinds = {shape: optimizers.is_vector(keras.Variable(np.zeros(shape, "float32"))) for shape in SHAPES}
    assert kinds == {(3, 4): False, (4,): True, (2, 2, 3, 5): False, (): True, (1, 3): False}
