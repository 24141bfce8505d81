"""Watching a pretraining: when it is measured, what, that measuring changes nothing, and when it warns."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from components.pretrain import pretrain
from components.shared.artifacts import Dataset
from components.shared.params.composing import compose_params
from components.shared.params.schema import select
from components.shared.training.monitor import VIEWS_SEED, Monitor
from models import methods
from models.augmentation import augment
from models.collapse import effective_rank, spread
from models.knn import knn_probabilities
from models.training import precision
from tests.helpers.datasets import make_dataset
from tests.helpers.method_cases import FILES, as_options, assert_equal, options
from tests.helpers.options import augmentation


def monitoring(**changes):
    return compose_params([])[0].monitor.model_copy(update=changes)


BATCH = 5
OFTEN = monitoring(every=1, knn_neighbours=5, knn_temperature=0.2)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "dataset"
    return make_dataset(folder, image_size=32, unlabelled=120, train=18, validation=12, test=3, name="watched")


@pytest.fixture(scope="module")
def data(dataset):
    return Dataset(dataset)


def method(file="simclr", dtype="float32"):
    """A method for 32×32 images, with batch normalisation in encoder and heads where the file has it."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    with precision(dtype):
        encoder = keras.Sequential(
            [
                keras.Input((32, 32, 3)),
                layers.Conv2D(6, 5, strides=4),
                layers.BatchNormalization(),
                layers.ReLU(),
                layers.GlobalAveragePooling2D(),
                layers.Dense(8),
            ]
        )
        return methods.build(encoder, as_options(options(file), augmentation()), 3, 0)


def embeddings(model, images):
    features = model.encoder(np.asarray(images, "float32") / 255, training=False)
    return np.asarray(features), np.asarray(model.projection_head(features, training=False))


@pytest.mark.parametrize(
    ("every", "epochs", "due"),
    [(1, 3, [1, 2, 3]), (2, 5, [2, 4, 5]), (10, 3, [3]), (3, 6, [3, 6]), (0, 4, []), (1, 0, [])],
)
def test_it_measures_every_so_many_epochs_and_after_the_last(data, every, epochs, due):
    monitor = Monitor(method(), data, monitoring(every=every), epochs, BATCH)
    assert [epoch for epoch in range(1, epochs + 1) if monitor.measure(epoch)] == due


def test_what_it_measures_is_what_one_gets_by_hand(data):
    model = method("byol")
    found = Monitor(model, data, OFTEN, 3, BATCH).measure(1)
    train, _ = embeddings(model, data.images("train"))
    validation, _ = embeddings(model, data.images("validation"))
    votes = knn_probabilities(train, data.labels("train"), validation, 3, 5, 0.2)
    _, z = embeddings(model, data.images("unlabelled"))
    # of twelve images two batches of five: each view's place among nine others
    generator = keras.random.SeedGenerator(VIEWS_SEED)
    ranks = []
    for rows in (slice(0, 5), slice(5, 10)):
        views = [np.asarray(augment(data.images("validation")[rows], model.policy, generator)) for _ in range(2)]
        _, rows_of_views = embeddings(model, 255 * np.concatenate(views))
        unit = rows_of_views / np.linalg.norm(rows_of_views, axis=1, keepdims=True)
        cosines = unit @ unit.T
        np.fill_diagonal(cosines, -2)
        order = np.argsort(-cosines, axis=1)
        ranks += [1 + list(order[view]).index((view + 5) % 10) for view in range(10)]
    ranks = np.array(ranks)
    assert found == {
        "knn_accuracy": (votes.argmax(axis=1) == data.labels("validation")).mean(),
        "validation_view_top1": (ranks <= 1).mean(),
        "validation_view_top5": (ranks <= 5).mean(),
        "validation_view_rank": pytest.approx(ranks.mean()),
        "embedding_spread": pytest.approx(spread(z), rel=1e-4),
        "embedding_rank": pytest.approx(effective_rank(z), rel=1e-4),
    }
    assert found["embedding_rank"] > 1
    # a random encoder tells the three textures apart by more than chance, and not all of them
    assert 0 < found["knn_accuracy"] <= 1


def test_the_number_of_neighbours_decides(data):
    model = method()
    first, second = (
        Monitor(model, data, monitoring(every=1, knn_neighbours=n), 1, BATCH).measure(1)["knn_accuracy"]
        for n in (1, 18)
    )
    assert first != second


@pytest.mark.parametrize("missing", ["train", "validation"])
def test_without_labels_only_the_embeddings_are_looked_at(tmp_path, missing):
    counts = {"unlabelled": 10, "train": 9, "validation": 9, "test": 3} | {missing: 0}
    data = Dataset(make_dataset(tmp_path / "dataset", **counts))
    of_views = {f"validation_view_{name}" for name in ("top1", "top5", "rank")} if missing == "train" else set()
    measured = set(Monitor(method(), data, OFTEN, 1, BATCH).measure(1))
    assert measured == {"embedding_spread", "embedding_rank"} | of_views


def test_one_view_of_each_image_has_no_other_to_be_found(data):
    keras.utils.set_random_seed(0)
    single = method("supcon")
    single.views = 1
    assert not any("view" in name for name in Monitor(single, data, OFTEN, 1, BATCH).measure(1))


def test_of_more_views_two_are_ranked(data):
    model = method()
    expected = Monitor(model, data, OFTEN, 1, BATCH).measure(1)
    model.views = 4
    assert "validation_view_rank" in expected
    assert Monitor(model, data, OFTEN, 1, BATCH).measure(1) == expected


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("file", ["byol", "nnclr", "dino"])
def test_measuring_changes_nothing(data, file, dtype):
    model = method(file, dtype)
    model.compile(optimizer="sgd")
    before = [v.numpy() for v in model.variables]
    keras.utils.set_random_seed(1)
    expected = np.random.random(), keras.random.uniform((2,)).numpy().tolist()
    keras.utils.set_random_seed(1)
    first = Monitor(model, data, OFTEN, 1, BATCH)
    values = first.measure(1)
    assert (np.random.random(), keras.random.uniform((2,)).numpy().tolist()) == expected
    assert_equal(model.variables, before)
    # and it measures the same again
    assert first.measure(1) == values
    assert values["embedding_rank"] > 1


def test_it_sees_the_network_as_it_is_now(data):
    model = method()
    monitor = Monitor(model, data, OFTEN, 2, BATCH)
    first = monitor.measure(1)
    for variable in model.trainable_variables:
        variable.assign_add(np.random.default_rng(0).normal(size=variable.shape).astype("float32"))
    second = monitor.measure(2)
    _, z = embeddings(model, data.images("unlabelled"))
    assert second["embedding_rank"] == pytest.approx(effective_rank(z), rel=1e-4)
    assert second["embedding_rank"] != first["embedding_rank"]


def collapse(model):
    """All images get the same embedding."""
    kernel, bias = model.encoder.layers[-1].variables
    kernel.assign(np.zeros(kernel.shape))
    bias.assign(np.ones(bias.shape))


@pytest.mark.parametrize("file", FILES)
def test_a_collapsed_encoder_is_told_in_one_line_with_what_to_try(data, file):
    model = method(file)
    monitor = Monitor(model, data, OFTEN, 5, BATCH)
    collapse(model)
    values = monitor.measure(3)
    assert (values["embedding_spread"], values["embedding_rank"]) == pytest.approx((0, 0), abs=1e-4)
    line = monitor.warning(3, values)
    assert line.startswith("warning: epoch 3: embedding_spread = ")
    assert " < monitor.min_spread = 0.1: the embeddings collapse" in line
    assert line.endswith(model.advice)
    assert "\n" not in line
    # what it says to try are parameters that there are
    known = {f"method.{name}" for name in _names(options(file))} | {"runtime.batch_size"}
    named = {word.strip(",;.") for word in line.split() if word.startswith(("method.", "runtime."))}
    assert named <= known


def _names(values, prefix=""):
    for name, value in values.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from _names(value, f"{prefix}{name}.")


def test_an_encoder_that_tells_images_apart_gives_no_warning(data):
    model = method()
    monitor = Monitor(model, data, OFTEN, 5, BATCH)
    # fresh weights put all images into much the same direction; without it they differ
    _, z = embeddings(model, data.images("unlabelled"))
    model.projection_head.layers[-1].bias.assign_sub(z.mean(axis=0))
    values = monitor.measure(1)
    assert values["embedding_spread"] > 0.5
    assert monitor.warning(1, values) is None


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"embedding_spread": 0.05, "embedding_rank": 1.0}, "embedding_spread = 0.05 < monitor.min_spread = 0.1"),
        ({"embedding_spread": 0.5, "embedding_rank": 1.234}, "embedding_rank = 1.23 < monitor.min_rank = 2"),
        ({"embedding_spread": 0.1, "embedding_rank": 2.0}, None),
        ({"contrastive_loss": 0.0}, None),
        ({}, None),
    ],
)
def test_each_limit_warns_below_it(data, values, told):
    line = Monitor(method(), data, OFTEN, 5, BATCH).warning(7, values)
    assert (line is None) if told is None else line.startswith(f"warning: epoch 7: {told}: ")


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_embeddings_that_are_no_numbers_end_the_training(data, wrong):
    model = method()
    monitor = Monitor(model, data, OFTEN, 5, BATCH)
    model.projection_head.layers[-1].bias.assign(np.full(5, wrong))
    with pytest.raises(FloatingPointError, match="the embeddings are not finite after epoch 2"):
        monitor.measure(2)


SMALL = (
    "method=vicreg", "encoder.width=16", "method.projection.hidden=16", "method.projection.width=8",
    "runtime.batch_size=32", "runtime.epochs=6", "monitor.every=2", "method.optimizer.warmup_epochs=0",
    "optimizer=adam", "method.optimizer.learning_rate=0.01", "method.augmentation.brightness=0.5",
    "method.augmentation.contrast=0.5", "method.augmentation.saturation=0.5",
    "method.augmentation.grey_probability=0.2", "method.augmentation.jitter_probability=0.8", "encoder=conv",
)  # fmt: skip


def run(dataset, folder, *overrides):
    params = select(compose_params([*SMALL, *overrides])[0], "pretrain")
    return pretrain(dataset, folder / "encoder", params, 0, folder / "states")


@pytest.mark.slow
def test_a_collapse_is_told_on_the_error_stream_while_training_goes_on(dataset, tracking_uri, tmp_path, capsys):
    # without its two other terms VICReg only pulls the views together
    alone = ("method.variance=0", "method.covariance=0", "method.projection.batch_norm=false")
    record = run(dataset, tmp_path, *alone, "method.optimizer.learning_rate=0.02")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert lines
    assert len(lines) <= 3
    assert lines[-1].startswith("warning: epoch 6: embedding_")
    assert "< monitor.min_" in lines[-1]
    assert lines[-1].endswith("raise method.variance, or lower method.optimizer.learning_rate")
    assert record.metrics["embedding_spread"] < 0.1 or record.metrics["embedding_rank"] < 2
    assert record.details["epochs"] == 6
    assert (tmp_path / "encoder" / "encoder.keras").exists()


@pytest.mark.slow
def test_a_healthy_training_is_measured_and_gives_no_warning(dataset, tracking_uri, tmp_path, capsys):
    record = run(dataset, tmp_path)
    assert "warning: " not in capsys.readouterr().err
    assert record.metrics["embedding_spread"] > 0.1
    assert record.metrics["embedding_rank"] > 2
    assert 0 <= record.metrics["knn_accuracy"] <= 1
    curves = (tmp_path / "encoder" / "curves.csv").read_text().splitlines()
    column = curves[0].split(",").index("knn_accuracy")
    assert [row.split(",")[0] for row in curves[1:] if row.split(",")[column]] == ["2", "4", "6"]
