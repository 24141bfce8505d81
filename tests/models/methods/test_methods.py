"""Methods learn, their probe only watches, and the same seed gives the same weights."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from pydantic_core import to_jsonable_python

from components.shared.training.backend import start_backend
from models import methods
from models.batches import Batches
from models.losses import nt_xent
from models.losses.views import split_views
from models.methods.shared.base import Method, Setup
from models.training import EpochSeed, jit
from tests.helpers.datasets import make_arrays
from tests.helpers.options import augmentation, head, method, network

# mild, so that a hundred images and a few seconds are enough to learn from
MILD = augmentation(crop_area=(0.5, 1.0), brightness=0.3, contrast=0.3, saturation=0.3)
OPTIONS = method("simclr", MILD, temperature=0.1, projection=to_jsonable_python(head(hidden=16, width=8)))
EPOCHS = 12


@pytest.fixture(scope="module", autouse=True)
def same_results_from_the_same_seed():
    start_backend()


@pytest.fixture(scope="module")
def arrays():
    return make_arrays({"unlabelled": 64, "train": 32, "validation": 24}, classes=3)


def build(seed=0):
    keras.utils.set_random_seed(seed)
    encoder = network("conv", 32, width=16)
    return methods.build(encoder, OPTIONS, 3, seed)


def train(arrays, seed=0):
    model = build(seed)
    model.compile(optimizer=keras.optimizers.Adam(3e-3), jit_compile=jit())
    batches = Batches([arrays["unlabelled"], arrays["train"]], 32, seed)
    history = model.fit(
        batches,
        shuffle=False,
        epochs=EPOCHS,
        validation_data=arrays["validation"],
        verbose=0,
        callbacks=[EpochSeed(seed, batches)],
    )
    return model, history.history


@pytest.fixture(scope="module")
def trained(arrays):
    return train(arrays)


def test_training_lowers_the_loss_and_finds_more_views(trained):
    _, history = trained
    loss, accuracy, rank = (history[name] for name in ("contrastive_loss", "contrastive_accuracy", "positive_rank"))
    # 32 images a batch: guessing gives log(63) = 4.14
    assert np.mean(loss[-3:]) < min(loss[0], math.log(63)) - 0.25
    assert np.mean(accuracy[-3:]) > accuracy[0] + 0.05
    assert np.mean(rank[-3:]) < rank[0] - 1


def test_metrics_are_in_range_in_every_epoch(trained):
    _, history = trained
    fractions = ["contrastive_accuracy", "contrastive_top5", "correlation_accuracy", "probe_accuracy"]
    fractions += ["view_top1", "view_top5"]
    for name in [*fractions, "val_probe_accuracy"]:
        assert len(history[name]) == EPOCHS
        assert 0 <= min(history[name]) <= max(history[name]) <= 1, name
    assert all(a <= b for a, b in zip(history["contrastive_accuracy"], history["contrastive_top5"], strict=True))
    assert 0 <= min(history["positive_rank"]) <= max(history["positive_rank"]) <= 31
    assert 1 <= min(history["view_rank"]) <= max(history["view_rank"]) <= 63
    # among all views it is no easier than among those of the other batch
    for name, among_all in (("contrastive_accuracy", "view_top1"), ("contrastive_top5", "view_top5")):
        assert all(a >= b for a, b in zip(history[name], history[among_all], strict=True))
    for name in ("contrastive_loss", "probe_loss"):
        assert np.isfinite(history[name]).all()
        assert min(history[name]) >= 0


def test_the_same_seed_gives_the_same_weights_bit_by_bit_and_another_one_others(arrays, trained):
    first, history = trained
    again, repeated = train(arrays)
    for one, two in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert repeated == history
    assert not np.array_equal(first.encoder.get_weights()[0], build(1).encoder.get_weights()[0])


def gradients(model, images, labels):
    """The total loss, the outputs, and the gradient of every trained variable by name."""
    model.seed_generator.state.assign(np.array([1, 2], "uint32"))
    images, labels = tf.constant(images), tf.constant(labels)
    with tf.GradientTape() as tape:
        outputs = model(images, training=True)
        loss = model.compute_loss(x=images, y=labels, y_pred=outputs)
    found = tape.gradient(loss, [v.value for v in model.trainable_variables])
    return float(loss), outputs, dict(zip([v.path for v in model.trainable_variables], found, strict=True))


def of_the_probe(found):
    return {name: np.asarray(value) for name, value in found.items() if "online_probe" in name}


def of_the_network(found):
    return {name: np.asarray(value) for name, value in found.items() if "online_probe" not in name}


def test_the_probe_learns_from_labels_and_the_network_does_not(arrays):
    model, (images, labels) = build(), arrays["train"]
    _, _, right = gradients(model, images, labels)
    _, _, wrong = gradients(model, images, (labels + 1) % 3)
    _, _, none = gradients(model, images, np.full_like(labels, -1))
    assert len(of_the_network(right)) == 10 + 4
    for name, value in of_the_network(right).items():
        assert np.abs(value).max() > 0, name
        np.testing.assert_array_equal(value, of_the_network(wrong)[name], err_msg=name)
        np.testing.assert_array_equal(value, of_the_network(none)[name], err_msg=name)
    assert len(of_the_probe(right)) == 2
    for name, value in of_the_probe(right).items():
        assert np.abs(value - of_the_probe(wrong)[name]).max() > 1e-3
        np.testing.assert_array_equal(of_the_probe(none)[name], np.zeros_like(value))


def test_the_probe_sees_labelled_images_only(arrays):
    model, (images, labels) = build(), arrays["train"]
    partly = np.where(np.arange(32) % 4 == 0, labels, -1)
    model.reset_metrics()
    loss, outputs, found = gradients(model, images, partly)
    logits = np.asarray(outputs["logits"], float)[partly >= 0]
    chosen, n = partly[partly >= 0], 8
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    cross_entropy = -np.log(probabilities[np.arange(n), chosen]).mean()
    metrics = {name: float(value) for name, value in model.get_metrics_result().items()}
    assert metrics["probe_loss"] == pytest.approx(cross_entropy, rel=1e-4)
    assert metrics["probe_accuracy"] == pytest.approx((logits.argmax(axis=1) == chosen).mean())
    assert loss == pytest.approx(metrics["contrastive_loss"] + cross_entropy, rel=1e-5)
    bias = next(value for name, value in of_the_probe(found).items() if name.endswith("bias"))
    np.testing.assert_allclose(bias, (probabilities - np.eye(3)[chosen]).mean(axis=0), atol=1e-5)


def test_a_batch_without_labels_counts_for_nothing_in_the_probe(arrays):
    model, (images, labels) = build(), arrays["train"]
    model.reset_metrics()
    gradients(model, images, np.full_like(labels, -1))
    before = {name: float(value) for name, value in model.get_metrics_result().items()}
    assert before["probe_loss"] == before["probe_accuracy"] == 0
    gradients(model, images, labels)
    only_labelled = float(model.get_metrics_result()["probe_loss"])
    model.reset_metrics()
    gradients(model, images, labels)
    assert float(model.get_metrics_result()["probe_loss"]) == pytest.approx(only_labelled, rel=1e-6)


def test_the_loss_is_nt_xent_of_two_different_views(arrays):
    model, (images, labels) = build(), arrays["train"]
    model.reset_metrics()
    _, outputs, _ = gradients(model, images, labels)
    assert outputs["z"].shape == (64, 8)
    z1, z2 = split_views(outputs["z"], 2)
    assert float(np.abs(z1 - z2).max()) > 1e-3
    expected = float(nt_xent(z1, z2, 0.1))
    assert float(model.get_metrics_result()["contrastive_loss"]) == pytest.approx(expected, rel=1e-6)


def test_outside_training_the_plain_images_are_classified(arrays):
    model, (images, _) = build(), arrays["train"]
    outputs = model(images, training=False)
    features = model.encoder(images.astype("float32") / 255)
    assert set(outputs) == {"logits"}
    expected = np.asarray(features) @ model.online_probe.get_weights()[0]
    np.testing.assert_allclose(np.asarray(outputs["logits"]), expected, atol=1e-5)


def test_half_precision_trains_with_weights_and_losses_in_full(arrays):
    from models.training import precision

    keras.utils.set_random_seed(0)
    with precision("bfloat16"):
        model = methods.build(network("conv", 32, width=16), OPTIONS, 3, 0)
    images, labels = arrays["train"]
    loss, outputs, found = gradients(model, images, labels)
    assert outputs["z"].dtype == "bfloat16"
    assert outputs["logits"].dtype == "float32"
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    full, _, _ = gradients(build(), images, labels)
    assert loss == pytest.approx(full, rel=0.02)
    assert all(np.isfinite(value).all() for value in of_the_network(found).values())


def test_an_unknown_or_an_unfinished_method_is_refused():
    with pytest.raises(ValueError, match=r"^name = simclear: must be one of .*, simclr, "):
        methods.options_type("simclear")
    with pytest.raises(TypeError, match="contrastive_loss"):
        Method(Setup(network("conv", 32, width=16), OPTIONS, 3, 0, 1))
