"""The linear probe against scikit-learn's logistic regression, and kNN against a slow loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_class_weight

from models.knn import knn_probabilities
from models.probes import Adam, fit_linear_probe, fit_minibatch_probe, softmax
from models.training import class_weights
from tests.helpers.options import minibatch


def clusters(n=120, width=12, classes=4, seed=0, noise=2.0):
    """Overlapping classes in features of very different scale and offset, as an encoder gives them."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % classes)
    features = rng.standard_normal((classes, width))[labels] + noise * rng.standard_normal((n, width))
    scales = 10 ** rng.uniform(-2, 2, width)
    return (features * scales + 3 * scales).astype("float32"), labels


def reference(features, labels, l2):
    """The minimiser of mean cross entropy + l2/2 · squared weights on standardised features, and these weights."""
    scaler = StandardScaler().fit(features.astype(float))
    # of two classes scikit-learn keeps one vector w in place of −w/2 and w/2, whose squares add up to half of it
    both = 2 if labels.max() == 1 else 1
    model = LogisticRegression(C=both / (l2 * len(labels)), tol=1e-8, max_iter=10_000)
    model.fit(scaler.transform(features.astype(float)), labels)
    return scaler, model, model.coef_ / math.sqrt(both)


def objective(probabilities, labels, kernel, l2):
    """Mean cross entropy + l2/2 · squared weights."""
    return -np.log(probabilities[np.arange(len(labels)), labels]).mean() + l2 / 2 * (kernel**2).sum()


@pytest.mark.parametrize("l2", [1e-3, 1e-2, 1e-1])
@pytest.mark.parametrize("classes", [2, 4])
def test_the_probe_reaches_the_optimum_of_logistic_regression(l2, classes):
    features, labels = clusters(classes=classes)
    scaler, model, weights = reference(features, labels, l2)
    probe = fit_linear_probe(features, labels, classes, l2, steps=300, seed=0)
    found = probe.probabilities(features)
    expected = model.predict_proba(scaler.transform(features))
    # the penalty is about the weights on standardised features
    reached = objective(found, labels, probe.kernel * scaler.scale_[:, None], l2)
    assert reached == pytest.approx(objective(expected, labels, weights, l2), abs=1e-3)
    np.testing.assert_allclose(found, expected, atol=0.02)
    held_out, _ = clusters(n=400, classes=classes, seed=0)
    agreement = probe.probabilities(held_out).argmax(axis=1) == model.predict(scaler.transform(held_out))
    assert agreement.mean() > 0.97


def unequal(n=240):
    """Overlapping classes, the first of them eight times as large as the last."""
    features, labels = clusters(n=n, classes=4, seed=2, noise=3.0)
    rows = np.concatenate([np.flatnonzero(labels == c)[: n // 4 // (2**c)] for c in range(4)])
    return features[rows], labels[rows]


def test_balanced_weights_are_those_of_scikit_learn():
    _, labels = unequal()
    expected = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    np.testing.assert_allclose(class_weights(labels, 4, "balanced"), expected, rtol=1e-6)
    # as scikit-learn has it where a class is missing: it takes no share
    np.testing.assert_allclose(class_weights(labels, 5, "balanced")[:4], expected, rtol=1e-6)
    assert class_weights(labels, 4, None).tolist() == [1, 1, 1, 1]


def test_a_balanced_probe_is_the_optimum_of_balanced_logistic_regression():
    features, labels = unequal()
    l2 = 1e-2
    scaler = StandardScaler().fit(features.astype(float))
    model = LogisticRegression(C=1 / (l2 * len(labels)), class_weight="balanced", tol=1e-8, max_iter=10_000)
    model.fit(scaler.transform(features.astype(float)), labels)
    expected = model.predict_proba(scaler.transform(features))
    balanced = fit_linear_probe(features, labels, 4, l2, 300, 0, "balanced").probabilities(features)
    plain = fit_linear_probe(features, labels, 4, l2, 300, 0).probabilities(features)
    np.testing.assert_allclose(balanced, expected, atol=0.02)
    assert np.abs(plain - expected).max() > 0.1


def test_in_mini_batches_the_classes_count_alike_too():
    labels = np.repeat([0, 1], [90, 10])
    nothing = np.zeros((100, 3), "float32")
    found = {
        rule: fit_minibatch_probe(nothing, labels, 2, minibatch(epochs=300, learning_rate=0.03), 0, rule)
        for rule in (None, "balanced")
    }
    # features that say nothing leave the share of each class
    assert found[None].probabilities(nothing[:1])[0, 1] == pytest.approx(0.1, abs=0.03)
    assert found["balanced"].probabilities(nothing[:1])[0, 1] == pytest.approx(0.5, abs=0.06)


def test_seeds_end_at_the_same_optimum_and_one_seed_at_the_same_bits():
    features, labels = clusters()
    probes = [fit_linear_probe(features, labels, 4, 1e-2, steps=300, seed=seed) for seed in (0, 1, 0)]
    found = [probe.probabilities(features) for probe in probes]
    assert not np.array_equal(found[0], found[1])
    np.testing.assert_allclose(found[0], found[1], atol=0.01)
    np.testing.assert_array_equal(found[0], found[2])


def test_probabilities_are_those_of_raw_features():
    features, labels = clusters()
    probe = fit_linear_probe(features, labels, 4, 1e-2, steps=50, seed=0)
    found = probe.probabilities(features)
    assert found.dtype == probe.kernel.dtype == probe.bias.dtype == np.float32
    assert found.shape == (120, 4)
    np.testing.assert_allclose(found.sum(axis=1), np.ones(120), rtol=1e-5)
    np.testing.assert_allclose(found, softmax(features @ probe.kernel + probe.bias), rtol=1e-6)


@pytest.mark.parametrize("constant", [0.0, 1000.1, -3e4])
def test_a_feature_that_never_changes_plays_no_part(constant):
    features, labels = clusters()
    dead = np.full((len(features), 1), constant, "float32")
    with_dead = fit_linear_probe(np.hstack([features, dead]), labels, 4, 1e-2, steps=300, seed=0)
    without = fit_linear_probe(features, labels, 4, 1e-2, steps=300, seed=0)
    # only the penalty moves its weights
    assert np.abs(with_dead.kernel[-1]).max() < 1e-3
    found = with_dead.probabilities(np.hstack([features, dead]))
    np.testing.assert_allclose(found, without.probabilities(features), atol=0.02)


def test_a_class_without_images_gets_little_probability():
    features, labels = clusters(classes=3)
    found = fit_linear_probe(features, labels, 5, 1e-3, steps=300, seed=0).probabilities(features)
    assert np.isfinite(found).all()
    assert found[:, 3:].max() < 0.2


def test_one_image_is_enough_to_fit_a_probe():
    probe = fit_linear_probe(np.ones((1, 3), "float32"), np.array([1]), 2, 1e-3, steps=100, seed=0)
    assert probe.probabilities(np.ones((1, 3), "float32"))[0, 1] > 0.9


def slow_minibatch(features, labels, classes, options, seed):
    """AdamW step by step in float64, image by image: algorithm 2 of arXiv:1711.05101 with decay on the kernel."""
    rng = np.random.default_rng(seed)
    kernel = rng.normal(0, features.shape[1] ** -0.5, (features.shape[1], classes))
    weights = np.vstack([kernel, np.zeros(classes)])
    m, v, step = np.zeros_like(weights), np.zeros_like(weights), 0
    steps_per_epoch = math.ceil(len(labels) / options.batch_size)
    boundaries = [int(steps_per_epoch * options.epochs * milestone) for milestone in options.milestones]
    for _ in range(options.epochs):
        order = rng.permutation(len(labels))
        while len(order):
            rows, order = order[: options.batch_size], order[options.batch_size :]
            gradient = np.zeros_like(weights)
            for row in rows:
                x = np.append(features[row].astype(float), 1.0)
                p = np.exp(x @ weights - np.max(x @ weights))
                p /= p.sum()
                p[labels[row]] -= 1
                gradient += np.outer(x, p) / len(rows)
            rate = options.learning_rate * 0.1 ** sum(step >= boundary for boundary in boundaries)
            step += 1
            m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
            weights[:-1] -= rate * options.weight_decay * weights[:-1]
            weights -= rate * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
    return weights[:-1], weights[-1]


@pytest.mark.parametrize(
    ("size", "decay", "milestones"), [(64, 1e-3, (0.6, 0.8)), (7, 0.3, (0.5,)), (500, 0.0, ())]
)
def test_mini_batches_follow_adamw_step_by_step(size, decay, milestones):
    features, labels = clusters(n=90, width=5)
    features /= features.std(axis=0)
    options = minibatch(epochs=10, batch_size=size, learning_rate=0.02, weight_decay=decay, milestones=milestones)
    probe = fit_minibatch_probe(features, labels, 4, options, seed=3)
    kernel, bias = slow_minibatch(features, labels, 4, options, seed=3)
    np.testing.assert_allclose(probe.kernel, kernel, atol=2e-4)
    np.testing.assert_allclose(probe.bias, bias, atol=2e-4)
    assert probe.kernel.dtype == probe.bias.dtype == np.float32


def test_mini_batches_learn_and_their_seed_decides_all():
    features, labels = clusters(noise=0.5)
    features /= features.std(axis=0)
    options = minibatch(epochs=60, batch_size=16, learning_rate=0.01)
    probes = [fit_minibatch_probe(features, labels, 4, options, seed=seed) for seed in (0, 1, 0)]
    np.testing.assert_array_equal(probes[0].kernel, probes[2].kernel)
    assert not np.array_equal(probes[0].kernel, probes[1].kernel)
    assert (probes[0].probabilities(features).argmax(axis=1) == labels).mean() > 0.9


@pytest.mark.parametrize("wrong", [[-1, 0], [0, 4], []])
def test_labels_that_are_no_class_are_refused(wrong):
    features, labels = np.ones((len(wrong), 2), "float32"), np.array(wrong, np.int64)
    with pytest.raises(ValueError, match=r"labels must be in \[0, 4\)|at least one labelled image"):
        fit_linear_probe(features, labels, 4, 1e-3, steps=10, seed=0)
    with pytest.raises(ValueError, match=r"labels must be in \[0, 4\)|at least one labelled image"):
        fit_minibatch_probe(features, labels, 4, minibatch(), seed=0)
    with pytest.raises(ValueError, match=r"labels must be in \[0, 4\)|at least one labelled image"):
        knn_probabilities(features, labels, features, 4)


def test_adam_takes_the_published_steps():
    """Algorithm 1 of arXiv:1412.6980 by hand: the first step has the length of the learning rate."""
    parameter = np.array([1.0, -2.0], "float32")
    adam = Adam([parameter])
    adam.update([np.array([0.3, -50.0], "float32")], 0.1)
    np.testing.assert_allclose(parameter, [0.9, -1.9], rtol=1e-5)
    adam.update([np.array([0.1, 20.0], "float32")], 0.1)
    m = np.array([0.9 * 0.03 + 0.01, 0.9 * -5 + 2]) / (1 - 0.9**2)
    v = np.array([0.999 * 0.00009 + 0.00001, 0.999 * 2.5 + 0.4]) / (1 - 0.999**2)
    np.testing.assert_allclose(parameter, np.array([0.9, -1.9]) - 0.1 * m / np.sqrt(v), rtol=1e-4)


def slow_knn(features, labels, queries, classes, neighbours, temperature):
    """One query at a time: section 3.4 of arXiv:1805.01978."""
    votes = np.zeros((len(queries), classes))
    for row, query in zip(votes, queries.astype(float), strict=True):
        alike = []
        for feature, label in zip(features.astype(float), labels, strict=True):
            cosine = sum(query * feature) / math.sqrt(sum(query**2) * sum(feature**2))
            alike.append((cosine, label))
        for cosine, label in sorted(alike, reverse=True)[:neighbours]:
            row[label] += math.exp(cosine / temperature)
    return votes / votes.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("neighbours", [1, 5, 30, 500])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_knn_equals_a_slow_loop(neighbours, temperature):
    features, labels = clusters(n=40, width=5)
    queries, _ = clusters(n=23, width=5, seed=1)
    found = knn_probabilities(features, labels, queries, 4, neighbours, temperature, chunk=7)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, slow_knn(features, labels, queries, 4, neighbours, temperature), atol=1e-4)


def test_knn_of_known_images_with_one_neighbour_is_their_label():
    features, labels = clusters()
    found = knn_probabilities(features, labels, features * 17, 4, neighbours=1)
    np.testing.assert_array_equal(found, np.eye(4)[labels])


def test_knn_votes_stay_finite_at_low_temperatures_and_for_dead_features():
    features, labels = clusters(n=20)
    found = knn_probabilities(features, labels, -features, 4, neighbours=20, temperature=1e-3)
    np.testing.assert_allclose(found.sum(axis=1), np.ones(20), rtol=1e-5)
    found = knn_probabilities(features, labels, np.zeros((2, 12), "float32"), 4, neighbours=20)
    np.testing.assert_allclose(found, [np.bincount(labels) / 20] * 2, rtol=1e-5)
    assert knn_probabilities(features, labels, np.zeros((0, 12), "float32"), 4).shape == (0, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature must be > 0, not 0.0"),
        ({"neighbours": 0}, "neighbours must be ≥ 1, not 0"),
    ],
)
def test_knn_refuses_options_out_of_range(options, message):
    features, labels = clusters(n=8)
    with pytest.raises(ValueError, match=message):
        knn_probabilities(features, labels, features, 4, **options)
