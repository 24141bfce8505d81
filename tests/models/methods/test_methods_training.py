"""Every method trains, in full and in half precision; the same seed and a killed run give the same weights."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from components.shared.training.backend import start_backend
from components.shared.training.checkpoints import Checkpoint
from models import optimizers
from models.batches import Batches
from models.training import EpochSeed, StopOnNaN, jit
from tests.helpers.method_cases import CROPPED, FILES, assert_equal, batch, build, composed, tiny_encoder
from tests.helpers.options import optimizer as options

EPOCHS, STEPS = 4, 2
IMAGES, LABELS = batch(rows=16)


@pytest.fixture(scope="module", autouse=True)
def same_results_from_the_same_seed():
    start_backend()


def prepare(file, seed=0, dtype="float32", optimizer="adam", eagerly=False, policy=CROPPED, **changes):
    """The method compiled with a cosine after one epoch of warm-up."""
    model = build(file, seed, EPOCHS * STEPS, dtype, policy, **changes)
    decay = 0.0 if optimizer == "adam" else 1e-4
    chosen = optimizers.build(options(optimizer, 0.01, weight_decay=decay, warmup_epochs=1), EPOCHS, STEPS)
    optimizers.exclude_vectors(chosen, model.trainable_variables)
    model.compile(optimizer=chosen, jit_compile=jit(), run_eagerly=eagerly)
    chosen.build(model.trainable_variables)
    return model


def train(model, epochs, first=0):
    """Losses of the epochs from `first` to `epochs`."""
    batches = Batches([(IMAGES, LABELS)], len(IMAGES) // STEPS, 0)
    callbacks = [EpochSeed(0, batches), StopOnNaN()]
    options = {"shuffle": False, "initial_epoch": first, "epochs": epochs, "verbose": 0, "callbacks": callbacks}
    return model.fit(batches, **options).history["contrastive_loss"]


def state(model):
    return [*model.variables, *model.optimizer.variables]


def numbers(model):
    return [v.numpy() for v in state(model)]


def assert_trained(model, before, losses):
    """All weights have changed, are finite, and are kept in full precision."""
    assert np.isfinite(losses).all()
    for variable, value in zip(model.trainable_variables, before, strict=True):
        assert variable.dtype == "float32"
        assert np.isfinite(variable.numpy()).all()
        assert not np.array_equal(variable.numpy(), value), variable.path


@pytest.mark.parametrize("file", FILES)
def test_it_trains_in_half_precision_and_the_same_seed_gives_the_same_weights_bit_by_bit(file):
    changes = {"freeze_prototypes": 0.0} if file in ("swav", "dino") else {}
    changes |= {"dtype": "bfloat16", "eagerly": True, "policy": composed(file).augmentation}
    model = prepare(file, **changes)
    assert model.encoder.compute_dtype == model.projection_head.compute_dtype == "bfloat16"
    start, before = numbers(model), [v.numpy() for v in model.trainable_variables]
    # the seed decides where it starts
    assert_equal(numbers(prepare(file, **changes)), start)
    assert not np.array_equal(build(file, seed=1).encoder.get_weights()[0], model.encoder.get_weights()[0])
    losses = train(model, 1)
    assert_trained(model, before, losses)
    assert int(model.step) == int(model.optimizer.iterations) == STEPS
    # and where it ends
    end = numbers(model)
    for variable, value in zip(state(model), start, strict=True):
        variable.assign(value)
    assert train(model, 1) == losses
    assert_equal(numbers(model), end)


@pytest.mark.parametrize("file", FILES)
def test_it_trains_in_full_precision(file):
    model = prepare(file, eagerly=True, **({"freeze_prototypes": 0.0} if file in ("swav", "dino") else {}))
    before = [v.numpy() for v in model.trainable_variables]
    assert_trained(model, before, train(model, 1))


# a queue, a momentum encoder, and prototypes with a centre
@pytest.mark.slow
@pytest.mark.parametrize(("file", "dtype"), [("nnclr", "float32"), ("byol", "bfloat16"), ("dino", "float32")])
def test_a_training_goes_on_from_its_state_as_if_it_had_not_been_interrupted(file, dtype, tmp_path):
    whole, checkpoint = prepare(file, dtype=dtype), Checkpoint(file, tmp_path)
    losses = train(whole, EPOCHS // 2)
    checkpoint.save(EPOCHS // 2, [], state(whole))
    losses += train(whole, EPOCHS, EPOCHS // 2)
    # another seed: all that counts comes out of the checkpoint
    other = prepare(file, seed=5, dtype=dtype)
    assert checkpoint.restore(state(other)) == (EPOCHS // 2, [])
    assert train(other, EPOCHS, EPOCHS // 2) == losses[EPOCHS // 2 :]
    for one, two in zip(state(whole), state(other), strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy(), err_msg=one.path)
    assert int(other.step) == int(other.optimizer.iterations) == EPOCHS * STEPS


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars"])
def test_each_optimiser_trains_a_method_with_a_learned_temperature(name):
    model = prepare("simclr", optimizer=name, eagerly=True, learnable_temperature=True)
    before = [v.numpy() for v in model.trainable_variables]
    assert_trained(model, before, train(model, 2))
    assert float(model.temperature.value()) != pytest.approx(0.1, rel=1e-5)


def test_outside_training_a_method_only_classifies_and_keeps_its_state():
    for file in ("moco", "dino"):
        model = build(file)
        before = [v.numpy() for v in model.variables]
        assert set(model(IMAGES, training=False)) == {"logits"}
        assert_equal(model.variables, before)


def test_the_encoder_is_trained_in_place():
    keras.utils.set_random_seed(0)
    start = tiny_encoder().get_weights()
    model = prepare("simclr", eagerly=True)
    assert_equal(model.encoder.get_weights(), start)
    encoder = model.encoder
    train(model, 2)
    assert all(np.abs(a - b).max() > 1e-5 for a, b in zip(encoder.get_weights(), start, strict=True))
