"""Every training of a `SupervisedTrainer` starts afresh, from the weights it was told to start from."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from components.shared.training.backend import start_backend
from models.batches import Batches
from models.classifier import ClassifierHead, SupervisedTrainer, predict, softmax_head
from models.optimizers import exclude_vectors, is_vector
from models.probes import fit_linear_probe, softmax
from models.training import rate_at, reset
from tests.helpers.datasets import make_arrays
from tests.helpers.options import STILL, augmentation, network, recipe

RECIPE = recipe(augmentation(crop_area=(0.5, 1.0), brightness=0.2, hue=0.1), epochs=3, batch_size=12)
PLAIN = ClassifierHead(hidden=0, dropout=0.0)


def tiny(image_size=32, width=8):
    """An encoder with batch normalisation that compiles in a second."""
    return keras.Sequential(
        [
            keras.Input((image_size, image_size, 3)),
            keras.layers.Conv2D(width, 3, strides=4),
            keras.layers.BatchNormalization(momentum=0.5),
            keras.layers.ReLU(),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )


NETWORKS = {"tiny": tiny, "conv": partial(network, "conv", 32, width=8)}
NETWORKS["wide"] = partial(network, "conv", 32, width=16)


def make_trainer(arrays, how=RECIPE, encoder="tiny", start=None, precision="float32", head=PLAIN, frozen=False):
    """A trainer that remembers what its trainings are told here."""
    trainer = SupervisedTrainer(how.augmentation, how.optimizer, head, NETWORKS[encoder], 3, precision, frozen)
    trainer.told = how, arrays, start
    return trainer


@pytest.fixture(scope="module")
def arrays():
    return make_arrays({"train": 24, "validation": 12, "test": 30}, classes=3)


@pytest.fixture(scope="module")
def trainers(arrays):
    """One trainer for each encoder, kept for the module: compiling takes longest."""
    start_backend()
    kept = {}

    def of(encoder):
        if encoder not in kept:
            kept[encoder] = make_trainer(arrays, encoder=encoder)
        return kept[encoder]

    return of


def fit(trainer, rate=2e-3, seed=0, head_start="random", **changes):
    """Train; the weights and what was reported of each epoch."""
    reports, (how, arrays, start) = [], trainer.told
    trainer.steps = trainer.fit(
        replace(how, learning_rate=rate, **changes), seed, arrays["train"], start, arrays["validation"],
        lambda epoch, logs: reports.append((epoch, dict(logs))), head_start=head_start,
    )  # fmt: skip
    return [weight.copy() for weight in trainer.model.get_weights()], reports


def same(one, two):
    return all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["conv", "tiny"])
def test_a_training_does_not_depend_on_the_ones_before_it(trainers, encoder):
    trainer = trainers(encoder)
    first, reports = fit(trainer)
    other, _ = fit(trainer, rate=1e-2, seed=1)
    again, repeated = fit(trainer)
    assert same(first, again)
    for epoch, numbers in (*reports, *repeated):
        assert numbers.pop("images_per_second") > 0, epoch
    assert reports == repeated
    assert not same(first, other)
    assert [epoch for epoch, _ in reports] == [1, 2, 3]
    assert {"loss", "accuracy", "val_loss", "val_accuracy"} <= set(reports[-1][1])


def test_each_epoch_has_an_order_of_its_own(trainers, monkeypatch):
    shuffle, orders = Batches.shuffle, []

    def watched(self, epoch):
        orders.append(epoch)
        shuffle(self, epoch)

    monkeypatch.setattr(Batches, "shuffle", watched)
    fit(trainers("tiny"))
    # the next one, too, is read ahead
    assert [*dict.fromkeys(orders)][:3] == [0, 1, 2]


def test_a_training_that_broke_off_leaves_no_trace(trainers):
    trainer = trainers("tiny")
    first, _ = fit(trainer)
    with pytest.raises(FloatingPointError, match="loss is nan in epoch"):
        fit(trainer, rate=1e30)
    assert same(first, fit(trainer)[0])


def test_it_may_train_on_smaller_views_and_answers_images_of_their_own_size(arrays):
    trainer = make_trainer(arrays, replace(RECIPE, augmentation=augmentation(size=24)))
    seen = []
    trainer.model.encoder.layers[1].call = watched(trainer.model.encoder.layers[1].call, seen)
    fit(trainer)
    # after a stride of 4
    assert set(seen) == {6, 8}
    images = arrays["test"][0]
    answers = trainer.probabilities(images)
    deployed = trainer.deployable()
    np.testing.assert_allclose(predict(deployed, images), answers, rtol=1e-4, atol=1e-5)


def watched(call, seen):
    """A layer's call that notes the width of what it is given."""

    def noting(inputs, *args, **kwargs):
        seen.append(inputs.shape[2])
        return call(inputs, *args, **kwargs)

    return noting


def test_resetting_puts_back_normalisation_and_optimiser():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([tiny(16, 4), keras.layers.Dense(2)])
    model.compile(optimizer=keras.optimizers.AdamW(1e-2), loss="mse")
    model.optimizer.build(model.trainable_variables)
    start = [weight.copy() for weight in model.get_weights()]
    images = np.random.default_rng(0).random((8, 16, 16, 3), "float32")
    model.fit(images, np.ones((8, 2)), epochs=2, verbose=0)
    changed = [not np.array_equal(a, b) for a, b in zip(start, model.get_weights(), strict=True)]
    assert all(changed)
    assert int(model.optimizer.iterations) == 2
    reset(model, start)
    assert same(start, model.get_weights())
    moments = [v for v in model.optimizer.variables if v is not model.optimizer._learning_rate]
    assert len(moments) == 1 + 2 * len(model.trainable_variables)
    assert all(not np.any(np.asarray(v)) for v in moments)
    assert float(model.optimizer.learning_rate) == pytest.approx(1e-2)


def test_seeds_decide_the_first_weights(trainers):
    trainer = trainers("conv")
    # at a learning rate of 0 a training ends where it starts
    starts = [fit(trainer, rate=0.0, seed=seed)[0] for seed in (0, 1, 0)]
    assert same(starts[0], starts[2])
    assert not np.array_equal(starts[0][0], starts[1][0])
    assert not np.array_equal(starts[0][-2], starts[1][-2])


def test_first_weights_are_those_of_the_seed_and_tensorflow_forgets_nothing(trainers, monkeypatch):
    """Its own seed, which Keras sets too, makes it forget what it has made ready to run."""
    keras.utils.set_random_seed(3)
    expected, seeds = tiny().get_weights(), []
    monkeypatch.setattr(keras.utils, "set_random_seed", seeds.append)
    started, _ = fit(trainers("tiny"), rate=0.0, seed=3)
    assert same(started[:4], expected[:4]) and seeds == []


@pytest.mark.slow
def test_pretrained_weights_are_the_start_and_all_else_is_as_for_the_rival(arrays, trainers):
    baseline = trainers("tiny")
    random_start, _ = fit(baseline, rate=0.0, seed=3)
    pretrained, _ = fit(baseline, seed=7)
    finetuning = make_trainer(arrays, start=pretrained[:6])
    for seed in (0, 3):
        started, _ = fit(finetuning, rate=0.0, seed=seed)
        # kernel, bias, scale and shift; a learning rate of 0 does not stop the moving mean and variance
        assert same(started[:4], pretrained[:4])
    # the last layer starts alike
    assert same(started[-2:], random_start[-2:])
    assert not any(np.array_equal(a, b) for a, b in zip(fit(finetuning)[0], started, strict=True))
    assert finetuning.steps == baseline.steps == 3 * 2
    # told to start where the rival starts, fine-tuning is the rival
    keras.utils.set_random_seed(3)
    start = tiny().get_weights()
    finetuning = make_trainer(arrays, start=start)
    assert same(fit(finetuning, seed=3)[0], fit(baseline, seed=3)[0])


def test_fine_tuning_may_start_with_a_probe_of_the_images_that_it_learns_from(arrays, trainers):
    rival = trainers("tiny")
    pretrained, _ = fit(rival, seed=7)
    images, labels = arrays["train"]
    encoder = tiny()
    encoder.set_weights(pretrained[:6])
    features = np.asarray(encoder(images / np.float32(255)))
    probe = fit_linear_probe(features, labels, 3, 0.01, 300, seed=3)
    assert (probe.probabilities(features).argmax(axis=1) == labels).mean() > 0.7
    trainer = make_trainer(arrays, start=pretrained[:6])
    started, _ = fit(trainer, rate=0.0, seed=3, head_start="probe")
    assert same(started[:4], pretrained[:4])
    for weight, expected in zip(started[-2:], (probe.kernel, probe.bias), strict=True):
        np.testing.assert_allclose(weight, expected, rtol=1e-3, atol=1e-3)
    # random features have nothing to probe, and a hidden layer would have to be random
    assert same(fit(rival, rate=0.0, seed=3, head_start="probe")[0], fit(rival, rate=0.0, seed=3)[0])
    deeper = make_trainer(arrays, start=pretrained[:6], head=ClassifierHead(hidden=5, dropout=0.0))
    assert same(*(fit(deeper, rate=0.0, seed=3, head_start=head)[0] for head in ("probe", "random")))


def frozen(arrays, trainers, **changes):
    """A trainer of the head alone, and the encoder's weights that it starts from."""
    pretrained, _ = fit(trainers("tiny"), seed=7)
    trainer = make_trainer(arrays, replace(RECIPE, **changes), start=pretrained[:6], frozen=True)
    return trainer, pretrained[:6]


def test_a_frozen_encoder_keeps_weights_and_moving_statistics(arrays, trainers):
    trainer, pretrained = frozen(arrays, trainers)
    started, _ = fit(trainer, rate=0.0)
    trained, reports = fit(trainer, rate=1e-2)
    assert same(trained[:6], pretrained)
    assert not np.array_equal(trained[-2], started[-2])
    assert reports[-1][1]["loss"] < reports[0][1]["loss"]
    assert [v.path for v in trainer.model.trainable_variables] == [v.path for v in trainer.model.top.variables]
    # the export has them too
    assert same(trainer.deployable().get_weights()[:6], pretrained)


def test_a_frozen_encoder_works_in_inference_mode_while_the_head_learns(arrays, trainers):
    # without augmentation, training and inference see the same pixels: any difference would be normalisation's
    trainer, _ = frozen(arrays, trainers, augmentation=augmentation(**STILL))
    fit(trainer)
    images = arrays["train"][0][:6]
    inference = np.asarray(trainer.model(images, training=False))
    np.testing.assert_allclose(trainer.model(images, training=True), inference, atol=1e-4)
    # the same batch changes the answers as soon as normalisation takes part
    trainer.model.frozen, trainer.model.encoder.trainable = False, True
    assert np.abs(np.asarray(trainer.model(images, training=True)) - inference).max() > 1e-2


HEAD = ClassifierHead(hidden=16, dropout=0.5)


@pytest.fixture(scope="module")
def headed(arrays):
    return make_trainer(arrays, head=HEAD)


def test_the_exported_classifier_holds_the_whole_head(headed, arrays):
    weights, _ = fit(headed, rate=1e-2)
    assert [w.shape for w in weights[-4:]] == [(8, 16), (16,), (16, 3), (3,)]
    model = headed.deployable()
    assert {type(layer).__module__.split(".")[0] for layer in model.get_layer("probabilities").layers} == {"keras"}
    images = arrays["test"][0]
    logits = np.asarray(headed.model(images, training=False))
    np.testing.assert_allclose(predict(model, images), softmax(logits), atol=1e-5)
    assert same(model.get_weights()[-4:], weights[-4:])


def test_dropout_depends_on_the_seed_and_the_epoch_alone(headed):
    first, reports = fit(headed)
    other, _ = fit(headed, seed=1)
    again, repeated = fit(headed)
    assert same(first, again)
    for epoch, numbers in (*reports, *repeated):
        assert numbers.pop("images_per_second") > 0, epoch
    assert reports == repeated
    assert not same(first, other)


def test_dropout_leaves_out_features_then_hidden_units_in_training_alone(headed, arrays):
    """Dense layers of ones and zeros, so that the logits count what was left in."""
    model = headed.model
    kept = headed.model.get_weights()
    model.hidden.set_weights([np.eye(8, 16, dtype="float32"), np.zeros(16, "float32")])
    model.top.set_weights([np.ones((16, 3), "float32"), np.zeros(3, "float32")])
    images = np.repeat(arrays["test"][0][:1], 400, axis=0)
    policy, model.policy, model.frozen = model.policy, augmentation(**STILL), True
    whole = np.asarray(model(images, training=False))[:, 0]
    found = np.asarray(model(images, training=True))[:, 0]
    model.policy, model.frozen = policy, False
    headed.model.set_weights(kept)
    np.testing.assert_allclose(whole, whole[0], rtol=1e-4)
    # a feature survives both with probability 1/4 and is then scaled by 4
    assert found.mean() == pytest.approx(whole[0], rel=0.2)
    assert np.unique(found.round(4)).size > 20


@pytest.mark.parametrize(
    ("schedule", "done", "rate"),
    [
        ("constant", 0.0, 1.0), ("constant", 1.0, 1.0), ("cosine", 0.0, 1.0), ("cosine", 0.5, 0.5),
        ("cosine", 1.0, 0.0), ("steps", 0.0, 1.0), ("steps", 69 / 100, 1.0), ("steps", 70 / 100, 0.1),
        ("steps", 89 / 100, 0.1), ("steps", 90 / 100, 0.01), ("steps", 35 / 50, 0.1), ("steps", 45 / 50, 0.01),
    ],
)  # fmt: skip
def test_schedules_have_their_rates(schedule, done, rate):
    assert rate_at(done, 1.0, schedule, (0.7, 0.9)) == pytest.approx(rate, abs=1e-12)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match="schedule must be constant, cosine or steps, not 'linear'"):
        rate_at(0.5, 1.0, "linear", ())


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [1e-3] * 10),
        ("steps", [1e-3] * 7 + [1e-4] * 2 + [1e-5]),
        ("cosine", [5e-4 * (1 + np.cos(np.pi * i / 10)) for i in range(10)]),
    ],
)
def test_a_training_follows_its_schedule(trainers, schedule, rates):
    trainer, seen = trainers("tiny"), []
    how = replace(RECIPE, epochs=10, schedule=schedule, milestones=(0.7, 0.9), learning_rate=1e-3)
    trainer.fit(
        how, 0, trainer.told[1]["train"],
        on_epoch=lambda epoch, logs: seen.append(dict(logs)),
    )  # fmt: skip
    np.testing.assert_allclose([logs["learning_rate"] for logs in seen], rates, rtol=1e-5)
    assert all(logs["images_per_second"] > 0 for logs in seen)


@pytest.mark.parametrize(
    ("optimizer", "kind"), [("adam", keras.optimizers.Adam), ("adamw", keras.optimizers.AdamW)]
)
def test_the_optimizer_is_the_chosen_one(arrays, optimizer, kind):
    assert isinstance(
        make_trainer(arrays, replace(RECIPE, optimizer=optimizer, weight_decay=0.0)).model.optimizer, kind
    )


def test_one_compiled_trainer_serves_several_decays(arrays, trainers):
    """As a trainer of its own would, whatever came before."""
    strong, weak = (fit(trainers("tiny"), weight_decay=decay)[0] for decay in (10.0, 0.0))
    assert np.abs(strong[0]).sum() < 0.95 * np.abs(weak[0]).sum()
    assert same(fit(make_trainer(arrays), weight_decay=10.0)[0], strong)
    keras_own = keras.optimizers.AdamW(weight_decay=10.0)
    trainer = make_trainer(arrays)
    exclude_vectors(keras_own, trainer.model.trainable_variables)
    trainer.model.compile(optimizer=keras_own, loss=trainer.model.loss)
    keras_own.build(trainer.model.trainable_variables)
    keras_own.weight_decay = keras.Variable(0.0)
    assert all(
        np.allclose(a, b, atol=1e-6) for a, b in zip(fit(trainer, weight_decay=10.0)[0], strong, strict=True)
    )


def test_weight_decay_pulls_kernels_and_leaves_biases_and_normalisation(arrays, trainers):
    trainer = trainers("tiny")
    fit(trainer, weight_decay=0.5)
    model = trainer.model
    reset(model, model.get_weights())
    model.optimizer.weight_decay.assign(0.5)
    for variable in model.trainable_variables:
        variable.assign(np.ones(variable.shape, "float32"))
    model.optimizer.learning_rate = 0.1
    # no gradient: all that moves is decay
    nothing = [np.zeros(variable.shape, "float32") for variable in model.trainable_variables]
    model.optimizer.apply([keras.ops.convert_to_tensor(g) for g in nothing], model.trainable_variables)
    spared = {variable.path for variable in model.trainable_variables if is_vector(variable)}
    assert {path.rsplit("/", 1)[-1] for path in spared} == {"bias", "gamma", "beta"}
    for variable in model.trainable_variables:
        assert ("kernel" in variable.path) == (variable.path not in spared)
        expected = 1.0 if variable.path in spared else 1 - 0.1 * 0.5
        np.testing.assert_allclose(np.asarray(variable), expected, rtol=1e-6, err_msg=variable.path)


def test_the_pace_of_a_training_leaves_its_validation_out(trainers, monkeypatch):
    """By a clock that moves in training steps and in validation alone."""
    now, trainer, kind = [100.0], trainers("tiny"), type(trainers("tiny").model)
    monkeypatch.setattr("models.training.time", SimpleNamespace(perf_counter=lambda: now[0]))

    def later(method, seconds):
        def timed(self, *arguments, **named):
            done = method(self, *arguments, **named)
            now[0] += seconds
            return done

        return timed

    monkeypatch.setattr(Batches, "__getitem__", later(Batches.__getitem__, 2.0))
    monkeypatch.setattr(kind, "evaluate", later(kind.evaluate, 1000.0))
    _, reports = fit(trainer, epochs=2, batch_size=12)
    # two batches of 12 in an epoch, and none is read ahead of the next epoch's
    assert [logs["images_per_second"] for _, logs in reports] == [24 / 4, 24 / 4]


def test_it_learns_and_reports_some_twenty_five_times(arrays):
    trainer = make_trainer(arrays, replace(RECIPE, epochs=100, batch_size=24), "wide")
    _, reports = fit(trainer, rate=5e-3)
    assert [epoch for epoch, _ in reports] == list(range(4, 101, 4))
    assert int(trainer.model.optimizer.iterations) == trainer.steps == 100
    assert reports[-1][1]["loss"] < 0.5 * reports[0][1]["loss"]
    assert reports[-1][1]["accuracy"] > 0.75
    found = predict(trainer.deployable(), arrays["test"][0]).argmax(axis=1)
    # guessing finds a third
    assert (found == arrays["test"][1]).mean() > 0.5


@pytest.mark.parametrize("encoder", ["conv", "tiny"])
def test_the_deployed_classifier_gives_the_softmax_of_the_trained_logits(trainers, arrays, encoder):
    trainer, (images, _) = trainers(encoder), arrays["test"]
    fit(trainer)
    logits = np.asarray(trainer.model(images, training=False))
    found = predict(trainer.deployable(), images)
    np.testing.assert_allclose(found, softmax(logits), atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), np.ones(30), rtol=1e-5)
    assert found.dtype == np.float32


def test_a_temperature_is_folded_into_the_last_layer(headed, arrays):
    fit(headed)
    logits = np.asarray(headed.model(arrays["test"][0], training=False))
    cooled = headed.deployable(temperature=2.5)
    np.testing.assert_allclose(predict(cooled, arrays["test"][0]), softmax(logits / 2.5), atol=1e-5)
    plain = headed.deployable().get_weights()
    assert same(cooled.get_weights()[:-2], plain[:-2])
    np.testing.assert_allclose(headed.probabilities(arrays["test"][0]), softmax(logits), atol=1e-5)


def test_other_images_serve_the_same_compiled_trainer(trainers, arrays):
    trainer = trainers("tiny")
    first, _ = fit(trainer)
    fewer = tuple(rows[:13] for rows in arrays["train"])
    assert trainer.fit(RECIPE, 0, fewer) == 3 * 1
    assert same(first, fit(trainer)[0])


def test_earlier_weights_can_be_put_back(trainers, arrays):
    trainer, (images, _) = trainers("tiny"), arrays["test"]
    first, _ = fit(trainer)
    expected = predict(trainer.deployable(), images)
    fit(trainer, seed=1)
    assert not np.array_equal(predict(trainer.deployable(), images), expected)
    trainer.model.set_weights(first)
    np.testing.assert_array_equal(predict(trainer.deployable(), images), expected)


def test_half_precision_keeps_weights_and_answers_in_full(arrays, trainers):
    trainer = make_trainer(arrays, precision="bfloat16")
    weights, reports = fit(trainer)
    assert {weight.dtype for weight in weights} == {np.dtype("float32")}
    assert np.isfinite(reports[-1][1]["loss"])
    logits = np.asarray(trainer.model(arrays["test"][0], training=False))
    found = predict(trainer.deployable(), arrays["test"][0])
    np.testing.assert_allclose(found, softmax(logits), atol=0.02)


@pytest.mark.parametrize(("rule", "share"), [(None, 0.125), ("balanced", 0.5)])
def test_with_balanced_weights_rare_classes_count_as_much_as_others(trainers, rule, share):
    # images that show nothing leave the share of each class
    images, labels = np.full((48, 32, 32, 3), 128, np.uint8), np.repeat([0, 1], [42, 6])
    trainer, (how, *_) = trainers("tiny"), trainers("tiny").told
    fitted = replace(how, augmentation=augmentation(**STILL), learning_rate=0.03, epochs=50, schedule="cosine")
    reports = []
    trainer.fit(
        fitted, 0, (images, labels), None, (images, labels), lambda _, logs: reports.append(logs), class_weight=rule
    )
    assert trainer.probabilities(images[:1])[0, 1] == pytest.approx(share, abs=0.06)
    # what is measured counts each image once
    assert reports[-1]["val_accuracy"] in (pytest.approx(42 / 48), pytest.approx(6 / 48))


@pytest.mark.slow
@pytest.mark.parametrize(("epochs", "rounds", "passes"), [(1, 1, 1), (49, 49, 1), (51, 26, 2), (250, 25, 10)])
def test_epochs_are_rounded_up_where_there_are_many(arrays, epochs, rounds, passes):
    rows = {"train": tuple(part[:4] for part in arrays["train"]), "validation": arrays["validation"]}
    trainer = make_trainer(rows, replace(RECIPE, epochs=epochs, batch_size=2))
    _, reports = fit(trainer)
    assert [len(reports), trainer.steps] == [rounds, rounds * passes * 2]
    assert int(trainer.model.optimizer.iterations) == trainer.steps >= epochs * 2


def test_prediction_works_batch_by_batch_on_files_and_on_nothing(trainers, arrays, tmp_path):
    model, (images, _) = trainers("conv").deployable(), arrays["test"]
    whole = predict(model, images)
    np.testing.assert_allclose(predict(model, images, batch_size=7), whole, atol=1e-6)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    np.testing.assert_allclose(predict(model, mapped, batch_size=15), whole, atol=1e-6)
    assert predict(model, images[:0]).shape == (0, 3)


def test_prediction_tells_of_each_batch(trainers, arrays):
    images, done = arrays["test"][0], []
    predict(trainers("conv").deployable(), images, batch_size=7, on_batch=done.append)
    assert sum(done) == len(images) and set(done[:-1]) == {7}


def test_a_softmax_head_has_the_given_weights():
    rng = np.random.default_rng(0)
    kernel, bias = rng.standard_normal((5, 4)).astype("float32"), rng.standard_normal(4).astype("float32")
    features = rng.standard_normal((6, 5)).astype("float32")
    found = np.asarray(softmax_head(kernel, bias)(features))
    np.testing.assert_allclose(found, softmax(features @ kernel + bias), rtol=1e-5)


def test_a_softmax_head_may_have_a_hidden_layer():
    rng = np.random.default_rng(1)
    shapes = [(5, 7), (7,), (7, 4), (4,)]
    k1, b1, k2, b2 = weights = [rng.standard_normal(shape).astype("float32") for shape in shapes]
    features = rng.standard_normal((6, 5)).astype("float32")
    found = np.asarray(softmax_head(*weights)(features))
    np.testing.assert_allclose(found, softmax(np.maximum(features @ k1 + b1, 0) @ k2 + b2), rtol=1e-5)
