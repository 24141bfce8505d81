"""Where a gradient flows in each method, and where it must not: targets, neighbours, the probe's features."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from models.losses import nnclr
from tests.helpers.method_cases import FILES, ROWS, assert_equal, batch, build, options, step

IMAGES, LABELS = batch()
LEARNABLE = [file for file in FILES if "learnable_temperature" in options(file)]
MOMENTUM = [file for file in FILES if "momentum" in options(file)]
WITHOUT_LABELS = [file for file in FILES if file != "supcon"]
# Where the last bias of the projection counts for nothing: the loss compares differences only, or the batch
# normalisation of the prediction subtracts it again.
SHIFTED = {"barlow_twins", "byol", "nnclr", "vicreg"}


def of_the_network(gradients):
    return {path: value for path, value in gradients.items() if not path.startswith("online_probe")}


def trained_from_the_start(file, **changes):
    """The method with its prototypes trained from the first step on and a learned temperature, if it has any."""
    if "freeze_prototypes" in options(file):
        changes["freeze_prototypes"] = 0.0
    if file in LEARNABLE:
        changes["learnable_temperature"] = True
    return build(file, **changes)


@pytest.mark.parametrize("file", FILES)
def test_a_gradient_reaches_every_trained_variable(file):
    model = trained_from_the_start(file)
    _, _, gradients = step(model, IMAGES, LABELS)
    groups = {path.split("/")[0] for path in gradients}
    parts = {"tiny", "projection_head", "online_probe"}
    parts |= {"temperature"} if file in LEARNABLE else set()
    parts |= {"prototypes"} if "prototypes" in options(file) else set()
    # version 2 of MoCo predicts nothing
    parts |= {"prediction_head"} if "prediction" in options(file) and file != "moco" else set()
    assert groups == parts
    assert len(gradients) == len(model.trainable_variables)
    for path, value in gradients.items():
        assert value is not None, path
        last = model.projection_head.trainable_variables[-1].path
        if file in SHIFTED and path == last and path.endswith("bias"):
            assert np.abs(value).max() < 1e-4, path
        else:
            assert np.abs(value).max() > 1e-4, path


@pytest.mark.parametrize("file", FILES)
def test_what_the_optimiser_trains_is_the_network_and_nothing_that_a_method_keeps(file):
    model = trained_from_the_start(file)
    trained = {id(v) for v in model.trainable_variables}
    parts = ("encoder", "projection_head", "prediction_head", "prototypes", "temperature", "online_probe")
    parts = [part for name in parts if hasattr(part := getattr(model, name, None), "trainable_variables")]
    assert trained == {id(v) for part in parts for v in part.trainable_variables}
    # but all of it is saved
    kept = [getattr(model, name) for name in ("step", "centre") if hasattr(model, name)]
    for name in ("target_encoder", "target_head", "target_prototypes", "queue"):
        kept += getattr(getattr(model, name, None), "variables", [])
    assert {id(v) for v in kept} <= {id(v) for v in model.variables} - trained


@pytest.mark.parametrize("file", MOMENTUM)
def test_no_gradient_flows_into_the_momentum_network(file):
    model = build(file)
    targets = [*model.target_encoder.variables, *model.target_head.variables]
    if file == "dino":
        targets += model.target_prototypes.variables
    values = [v.value for v in targets if v.dtype == "float32"]
    with tf.GradientTape() as tape:
        tape.watch(values)
        loss = model.compute_loss(x=IMAGES, y=tf.constant(LABELS), y_pred=model(IMAGES, training=True))
    assert tape.gradient(loss, values) == [None] * len(values)
    assert len(values) >= 9


@pytest.mark.parametrize(
    ("file", "changes", "receiving"),
    [
        ("simclr", {}, {"z"}),
        # the targets of SimSiam are its own projections, held still
        ("simsiam", {}, {"p"}),
        ("nnclr", {}, {"p"}),
        ("nnclr", {"straight_through": True}, {"p", "z"}),
        ("moco", {}, {"queries"}),
        ("moco_v3", {}, {"queries"}),
        ("byol", {}, {"p"}),
        ("dino", {}, {"student"}),
    ],
)
def test_the_loss_moves_what_it_should_and_holds_the_rest_still(file, changes, receiving):
    model = build(file, **changes)
    outputs = model(IMAGES, training=True)
    # as numbers of their own, not computed from each other
    outputs = {name: tf.identity(rows) for name, rows in outputs.items() if name not in ("logits", "targets")}
    targets = {"targets": model(IMAGES, training=True)["targets"]} if file in MOMENTUM else {}
    with tf.GradientTape() as tape:
        tape.watch(list(outputs.values()))
        loss = model.contrastive_loss({**outputs, **targets}, tf.constant(LABELS))
    gradients = tape.gradient(loss, outputs)
    moved = {name for name, value in gradients.items() if value is not None and np.abs(value).max() > 1e-6}
    assert moved == receiving


def test_straight_through_gives_a_neighbours_gradient_to_the_projection_and_changes_no_number():
    found = {}
    for straight in (False, True):
        model = build("nnclr", prediction=None, straight_through=straight)
        z, queue = model(IMAGES, training=True)["z"], model.queue.rows.numpy()
        targets = tf.identity(z)
        with tf.GradientTape() as tape:
            tape.watch(z)
            # with the predictions apart, all of the gradient of z is that of the neighbours
            loss = model.contrastive_loss({"z": z, "p": targets}, tf.constant(LABELS))
        found[straight] = float(loss), tape.gradient(loss, z), z, queue
    assert found[True][0] == pytest.approx(found[False][0], rel=1e-5)
    assert found[False][1] is None
    _, gradient, z, queue = found[True]
    z = z.numpy()
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    nearest = tf.constant(queue[np.argmax(unit @ queue.T, axis=1)])
    with tf.GradientTape() as tape:
        tape.watch(nearest)
        loss = (nnclr(nearest[:ROWS], z[ROWS:], 0.1) + nnclr(nearest[ROWS:], z[:ROWS], 0.1)) / 2
    through = tape.gradient(loss, nearest).numpy()
    # the derivative of the projection onto the unit sphere
    norms = np.linalg.norm(z, axis=1, keepdims=True)
    expected = (through - unit * (unit * through).sum(axis=1, keepdims=True)) / norms
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("file", WITHOUT_LABELS)
def test_labels_reach_nothing_but_the_probe(file):
    model = build(file)
    start = [v.numpy() for v in model.variables]
    found = []
    for labels in (LABELS, (LABELS + 2) % 3):
        for variable, value in zip(model.variables, start, strict=True):
            variable.assign(value)
        outputs, _, gradients = step(model, IMAGES, labels)
        probe = {id(v) for v in model.online_probe.variables} | {id(m) for m in model.metrics_variables}
        state = [v.numpy() for v in model.variables if id(v) not in probe]
        found.append((outputs, gradients, state))
    (outputs, gradients, state), others = found
    assert_equal(outputs.values(), others[0].values())
    assert_equal(of_the_network(gradients).values(), of_the_network(others[1]).values())
    assert_equal(state, others[2])
    assert not np.array_equal(gradients["online_probe/kernel"], others[1]["online_probe/kernel"])


@pytest.mark.parametrize("unlabelled", ["instance", "leave_out"])
def test_labels_are_what_supcon_learns_from(unlabelled):
    model = build("supcon", unlabelled=unlabelled)
    gradients = []
    for labels in (LABELS, (LABELS + 1) % 3):
        model.seed_generator.state.assign([1, 2])
        gradients.append(of_the_network(step(model, IMAGES, labels)[2]))
    for path, value in gradients[0].items():
        assert np.abs(value - gradients[1][path]).max() > 1e-4, path


@pytest.mark.parametrize("file", FILES)
def test_the_probes_gradient_stays_in_the_probe(file):
    model = build(file)
    with tf.GradientTape() as tape:
        logits = model(IMAGES, training=True)["logits"]
        loss = model.compute_loss(x=IMAGES, y=tf.constant(LABELS), y_pred={"logits": logits})
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    reached = {v.path for v, g in zip(model.trainable_variables, gradients, strict=True) if g is not None}
    assert reached == {"online_probe/kernel", "online_probe/bias"}


@pytest.mark.parametrize("file", ["swav", "dino"])
@pytest.mark.parametrize(("freeze", "moving"), [(0.0, [1, 1, 1, 1]), (0.5, [0, 0, 1, 1]), (1.0, [0, 0, 0, 0])])
def test_prototypes_are_held_still_for_the_first_part_of_the_training(file, freeze, moving):
    model = build(file, steps=4, freeze_prototypes=freeze)
    found = []
    for _ in range(4):
        gradients = step(model, IMAGES, LABELS)[2]
        (prototypes,) = (value for path, value in gradients.items() if path.startswith("prototypes"))
        found.append(int(np.abs(prototypes).max() > 0))
        assert np.abs(next(iter(gradients.values()))).max() > 0
    assert found == moving
