"""What each method compares with what: its loss in training is told again here, from the embeddings on."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from models import losses
from models.augmentation import scale
from models.methods.shared.metrics import contrastive_ranks, correlation_accuracy, view_ranks
from tests.helpers.method_cases import (
    CLASSES,
    FILES,
    ROWS,
    SIZE,
    assert_equal,
    batch,
    build,
    composed,
    contrastive_loss,
    options,
    step,
)
from tests.helpers.options import STILL, augmentation

UNCHANGED = augmentation(**STILL)
IMAGES, LABELS = batch()


def unit(rows):
    rows = np.asarray(rows, "float64")
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def cosines(rows, directions):
    return (unit(rows) @ unit(directions).T).astype("float32")


def kernel(prototypes):
    return prototypes.layers[-1].kernel.numpy().T


def first(rows):
    return rows[:ROWS]


def apart(rows):
    """The rows of each view."""
    return np.split(np.asarray(rows), len(rows) // ROWS)


def mean_of_pairs(loss, one, other, both_ways=True):
    """Of each view of `one` with each other view of `other`; else with each later one."""
    pairs = [(a, b) for b in range(len(other)) for a in range(len(one)) if a != b and (both_ways or a < b)]
    return np.mean([float(loss(one[a], other[b])) for a, b in pairs])


def simclr(o, out, model, queue):
    views, temperature = apart(out["z"]), o["temperature"]
    if o["negatives"] == "cross_view":
        return mean_of_pairs(lambda a, b: losses.cross_view_nt_xent(a, b, temperature), views, views)
    return losses.nt_xent(*views[:2], temperature, more=views[2:])


def dcl(o, out, model, queue):
    one, two, *more = apart(out["z"])
    return losses.dcl(one, two, o["temperature"], more=more)


def barlow_twins(o, out, model, queue):
    views = apart(out["z"])
    return mean_of_pairs(lambda a, b: losses.barlow_twins(a, b, o["off_diagonal"]), views, views)


def vicreg(o, out, model, queue):
    views, weights = apart(out["z"]), {name: o[name] for name in ("invariance", "variance", "covariance")}
    return mean_of_pairs(lambda a, b: losses.vicreg(a, b, **weights), views, views)


def swav(o, out, model, queue):
    one, two, *more = (cosines(view, kernel(model.prototypes)) for view in apart(out["z"]))
    return losses.swav(one, two, o["temperature"], o["epsilon"], o["iterations"], more)


def supcon(o, out, model, queue):
    labels = LABELS.copy()
    if o["unlabelled"] == "instance":
        labels[labels < 0] = CLASSES + np.flatnonzero(labels < 0)
    return losses.sup_con(out["z"], np.concatenate([labels] * o["views"]), o["temperature"])


def simsiam(o, out, model, queue):
    return mean_of_pairs(losses.negative_cosine, apart(out["p"]), apart(out["z"]), o["symmetric"])


def byol(o, out, model, queue):
    mean = mean_of_pairs(losses.byol, apart(out["p"]), apart(out["targets"]), o["symmetric"])
    # both ways are added
    return 2 * mean if o["symmetric"] else mean


def moco(o, out, model, queue):
    queries, keys, temperature = apart(out["queries"]), apart(out["targets"]), o["temperature"]
    if o["version"] == 3:
        return 2 * mean_of_pairs(lambda q, k: losses.moco_v3(q, k, temperature), queries, keys)
    return mean_of_pairs(lambda q, k: losses.moco(q, k, queue, temperature), queries, keys, o["symmetric"])


def nnclr(o, out, model, queue):
    nearest = queue[cosines(out["z"], queue).argmax(axis=1)]
    predictions = out["z"] if o["prediction"] is None else out["p"]

    def loss(nn1, z2):
        return losses.nnclr(nn1, z2, o["temperature"])

    return mean_of_pairs(loss, apart(nearest), apart(predictions), o["symmetric"])


def dino(o, out, model, queue):
    student = cosines(out["z"], kernel(model.prototypes))
    teacher = cosines(out["targets"], kernel(model.target_prototypes))
    # whatever the number of views
    assert len(teacher) == 2 * ROWS
    if o["centering"] == "sinkhorn":
        targets = losses.sinkhorn(teacher, o["teacher_temperature"], 3).numpy()
        answers = tf.nn.log_softmax(student / o["temperature"]).numpy()
        return mean_of_pairs(lambda a, t: -(t * a).sum(axis=1).mean(), apart(answers), apart(targets))

    def loss(one, other):
        return losses.dino(one, other, CENTER, o["temperature"], o["teacher_temperature"])

    return mean_of_pairs(loss, apart(student), apart(teacher))


CENTER = np.linspace(-0.3, 0.3, 9, dtype="float32")
EXPECTED = {
    f.__name__: f for f in (simclr, dcl, nnclr, moco, byol, simsiam, barlow_twins, vicreg, swav, dino, supcon)
}
VARIANTS = [
    *((file, {}) for file in FILES if composed(file).name in EXPECTED),
    ("simclr", {"negatives": "cross_view"}),
    ("simclr", {"learnable_temperature": True, "temperature": 0.2}),
    ("moco", {"symmetric": False}),
    ("nnclr", {"symmetric": False, "straight_through": True}),
    ("nnclr", {"prediction": None}),
    ("byol", {"symmetric": False}),
    ("simsiam", {"symmetric": False}),
    ("vicreg", {"invariance": 3.0, "variance": 2.0, "covariance": 0.5}),
    ("dino", {"centering": "mean"}),
    ("supcon", {"unlabelled": "leave_out"}),
    ("supcon", {"unlabelled": "leave_out", "views": 1}),
    *((file, {"views": 3}) for file in FILES),
    ("simclr", {"negatives": "cross_view", "views": 4}),
    ("byol", {"symmetric": False, "views": 3}),
    ("moco", {"symmetric": False, "views": 3}),
    ("moco", {"symmetric": False, "views": 3, "queue_size": 30}),
    ("dino", {"centering": "mean", "views": 4}),
]


def names(value):
    return value if isinstance(value, str) else ",".join(f"{name}={v}" for name, v in value.items()) or "as_it_is"


@pytest.mark.parametrize(("file", "changes"), VARIANTS, ids=names)
def test_the_loss_in_training_compares_what_the_paper_compares(file, changes):
    model, o = build(file, **changes), options(file, **changes)
    queue = model.queue.rows.numpy() if getattr(model, "queue", None) is not None else None
    if file == "dino":
        model.center.assign(CENTER)
    if "momentum" in o:
        # targets that are not the embeddings themselves, as they are at the start
        kernel_of_targets = next(v for v in model.target_head.variables if v.path.endswith("kernel"))
        kernel_of_targets.assign(kernel_of_targets[:, ::-1])
    out, total, _ = step(model, IMAGES, LABELS)
    assert len(out["z"]) == ROWS * o["views"]
    expected = float(EXPECTED[o["name"]](o, {name: rows.numpy() for name, rows in out.items()}, model, queue))
    assert contrastive_loss(model) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    probe = float(model.get_metrics_result()["probe_loss"])
    assert total == pytest.approx(expected + probe, rel=1e-5, abs=1e-5)
    assert_kept(model, o, out, queue)


def assert_kept(model, o, out, queue):
    """What the method keeps for the next step is what the paper keeps."""
    if queue is not None:
        kept = {"nnclr": lambda: first(out["z"]), "moco": lambda: out["targets"]}[o["name"]]()
        if o["name"] == "moco" and not o["symmetric"]:
            kept = kept[ROWS:]
        # of more than fit the last ones
        kept, rows = kept[-len(queue) :], model.queue.rows.numpy()
        np.testing.assert_allclose(rows[: len(kept)], unit(kept), atol=1e-6)
        assert_equal(rows[len(kept) :], queue[len(kept) :])
    if o["name"] == "dino":
        mean = cosines(out["targets"], kernel(model.target_prototypes)).mean(axis=0)
        np.testing.assert_allclose(model.center.numpy(), 0.9 * CENTER + 0.1 * mean, atol=1e-6)


@pytest.mark.parametrize("file", FILES)
def test_the_embeddings_are_those_of_the_views(file):
    # without augmentation the views are the images, twice
    model = build(file, policy=UNCHANGED, steps=10)
    views = np.concatenate([scale(tf.constant(IMAGES))] * 2)
    out, _, _ = step(model, IMAGES, LABELS)
    assert views.shape == (2 * ROWS, SIZE, SIZE, 3)
    z = model.projection_head(model.encoder(views, training=True), training=True)
    np.testing.assert_allclose(out["z"], z, atol=1e-5)
    np.testing.assert_allclose(*apart(out["z"]), atol=1e-5)
    prediction = getattr(model, "prediction_head", None)
    for name in {"p", "queries"} & set(out):
        np.testing.assert_allclose(out[name], z if prediction is None else prediction(z, training=True), atol=1e-5)
    if "targets" in out:
        # at the start the copy has the same weights
        np.testing.assert_allclose(out["targets"], z, atol=1e-5)
        for variable in model.target_encoder.variables:
            variable.assign(variable * 0.5)
        out, _, _ = step(model, IMAGES, LABELS)
        targets = model.target_head(model.target_encoder(views, training=True), training=True)
        np.testing.assert_allclose(out["targets"], targets, atol=1e-5)
        assert np.abs(out["targets"] - z).max() > 1e-3


@pytest.mark.parametrize("file", [file for file in FILES if "momentum" in options(file)])
def test_a_copy_follows_from_the_second_step_on_along_the_schedule(file):
    model = build(file, steps=4, momentum={"start": 0.5, "end": 1.0})
    start = 0.5, 0.5 + 0.5 * (1 - np.cos(np.pi / 4)) / 2
    pairs = [(model.target_encoder, model.encoder), (model.target_head, model.projection_head)]
    if file == "dino":
        pairs.append((model.target_prototypes, model.prototypes))
    for momentum in start:
        # as an optimiser would have left them
        for _, network in pairs:
            for variable in network.trainable_variables:
                variable.assign_add(np.random.default_rng(0).normal(size=variable.shape).astype("float32"))
        before = [[v.numpy() for v in copy.variables] for copy, _ in pairs]
        step(model, IMAGES, LABELS)
        for (copy, network), old in zip(pairs, before, strict=True):
            for own, other, value in zip(copy.variables, network.variables, old, strict=True):
                if other.trainable:
                    expected = momentum * value + (1 - momentum) * other.numpy()
                    np.testing.assert_allclose(own.numpy(), expected, rtol=1e-5, atol=1e-6, err_msg=own.path)
                    assert not np.array_equal(own.numpy(), value)


def test_the_scores_of_dino_are_those_of_its_two_sets_of_prototypes():
    model = build("dino")
    model.target_prototypes.layers[-1].kernel.assign_add(np.random.default_rng(0).normal(size=(5, 9)))
    out, _, _ = step(model, IMAGES, LABELS)
    np.testing.assert_allclose(out["student"], cosines(out["z"], kernel(model.prototypes)), atol=1e-5)
    np.testing.assert_allclose(out["teacher"], cosines(out["targets"], kernel(model.target_prototypes)), atol=1e-5)


def test_one_view_of_each_image_is_enough_for_supcon():
    model = build("supcon", views=1, unlabelled="leave_out")
    out, _, _ = step(model, IMAGES, LABELS)
    assert out["z"].shape[0] == ROWS
    # there is no other view to be found
    assert set(model.get_metrics_result()) == {"contrastive_loss", "probe_loss", "probe_accuracy"}


def test_further_views_leave_the_first_two_as_they_are():
    seen = {}
    for views in (2, 3):
        model = build("simclr", views=views)
        embed = model.embed
        model.embed = lambda images, features, views=views, embed=embed: (
            seen.update({views: images.numpy()}) or embed(images, features)
        )
        step(model, IMAGES, LABELS)
    # the same random numbers
    assert_equal([seen[3][: 2 * ROWS]], [seen[2]])
    assert seen[3].shape == (3 * ROWS, SIZE, SIZE, 3)
    one, two, three = apart(seen[3])
    assert min(np.abs(one - two).max(), np.abs(one - three).max(), np.abs(two - three).max()) > 0.1


@pytest.mark.parametrize("file", FILES)
def test_a_gradient_reaches_each_of_several_views(file):
    model = build(file, views=4, **({"freeze_prototypes": 0.0} if file in ("swav", "dino") else {}))
    with tf.GradientTape() as tape:
        outputs = model(IMAGES, training=True)
        loss = model.contrastive_loss(outputs, tf.constant(LABELS))
    for view in apart(tape.gradient(loss, outputs["z"])):
        assert np.abs(view).max() > 1e-5


def test_what_compares_views_compares_the_first_two_of_several():
    model = build("simclr", views=4)
    out, _, _ = step(model, IMAGES, LABELS)
    found = {name: float(value) for name, value in model.get_metrics_result().items()}
    one, two, *_ = apart(out["z"])
    assert found["view_rank"] == pytest.approx(float(np.mean(view_ranks(one, two))))
    assert found["positive_rank"] == pytest.approx(float(np.mean(contrastive_ranks(one, two))))
    assert found["correlation_accuracy"] == pytest.approx(float(correlation_accuracy(one, two)))
