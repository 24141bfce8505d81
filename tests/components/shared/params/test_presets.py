"""Presets: the four published recipes, number by number, and a short run of each through the steps that learn."""

from __future__ import annotations

import csv
import math
from dataclasses import asdict

import keras
import numpy as np
import pytest
from pydantic import BaseModel

from components.baseline import baseline
from components.finetune import finetune
from components.pretrain import pretrain
from components.probe import probe
from components.search import search
from components.shared.artifacts import Dataset
from components.shared.errors import UserError
from components.shared.params.composing import compose_params, options
from components.shared.params.schema import select, to_plain
from components.shared.training.backend import start_backend
from tests.helpers.datasets import make_dataset
from tests.helpers.repository import ROOT

RATIO = (3 / 4, 4 / 3)
STILL = {"size": None, "crop": "resized", "crop_area": (1.0, 1.0), "crop_ratio": (1.0, 1.0), "flip": False,
         "rotation": 0.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0,
         "grey_probability": 0.0, "affine_brightness": 0.0, "affine_jitter": 0.0,
         "blur_probability": 0.0}  # fmt: skip
# what counts only beside something else
CONDITIONS = {
    "crop_ratio": lambda found: found["crop"] == "resized",
    "jitter_probability": lambda found: any(found[n] for n in ("brightness", "contrast", "saturation", "hue")),
    "contrast_about": lambda found: found["contrast"] > 0,
    "blur_sigma": lambda found: found["blur_probability"] > 0,
    "blur_kernel": lambda found: found["blur_probability"] > 0,
}
ADAM = {"name": "adam", "learning_rate": 1e-3, "weight_decay": 0.0, "schedule": "constant", "warmup_epochs": 0}
CONV = {"name": "conv", "width": 128, "normalization": "none", "weights": None}
LINEAR = {"head": {"hidden": 0, "dropout": 0.0}, "freeze_encoder": False}
KERAS_SUPERVISED = {"batch_size": 25, "optimizer": "adam", "learning_rate": 1e-3, "weight_decay": 0.0,
                    "schedule": "constant"}  # fmt: skip
STL10 = {"source": "stl10", "image_size": 96, "labels_per_class": None}
BUDGETS = (10, 20, 50, 100, 200, 500)

# the published numbers; `views` is the augmentation of the pretraining, `pictures` that of the classifiers
RECIPES = {
    "simclr-keras": {
        "data": STL10,
        "encoder": CONV,
        "method": {"name": "simclr", "temperature": 0.1, "negatives": "cross_view"},
        "projection": {"hidden": 128, "width": 128, "layers": 2, "batch_norm": False, "output_norm": False},
        "optimizer": ADAM,
        "views": {"flip": True, "crop": "translated", "crop_area": (0.25, 1.0), "affine_brightness": 0.6,
                  "affine_jitter": 0.2},
        "runtime": {"epochs": 20, "batch_size": 525},
        "probe": {"solver": "full_batch", "label_budgets": BUDGETS},
        "supervised": LINEAR,
        "published": {"epochs": 20, **KERAS_SUPERVISED},
        "pictures": {"flip": True, "crop": "translated", "crop_area": (0.75, 1.0), "affine_brightness": 0.3,
                     "affine_jitter": 0.1},
    },
    "nnclr-keras": {
        "data": STL10,
        "encoder": CONV,
        "method": {"name": "nnclr", "temperature": 0.1, "queue_size": 10_000, "straight_through": True,
                   "prediction": None, "symmetric": True},
        "projection": {"hidden": 128, "width": 128, "layers": 2, "batch_norm": False, "output_norm": False},
        "optimizer": ADAM,
        "views": {"flip": True, "crop_area": (0.2, 1.0), "crop_ratio": RATIO, "brightness": 0.5,
                  "jitter_probability": 1.0},
        "runtime": {"epochs": 25, "batch_size": 525},
        "probe": {"solver": "full_batch", "label_budgets": BUDGETS},
        "supervised": LINEAR,
        "published": {"epochs": 25, **KERAS_SUPERVISED},
        "pictures": {"flip": True, "crop_area": (0.5, 1.0), "crop_ratio": RATIO, "brightness": 0.2,
                     "jitter_probability": 1.0},
    },
    "simclr-jax": {
        "data": STL10,
        "encoder": {"name": "resnet18", "stem": "large", "normalization": "symmetric", "weights": None},
        "method": {"name": "simclr", "temperature": 0.07, "negatives": "all"},
        "projection": {"hidden": 4 * 128, "width": 128, "layers": 2, "batch_norm": False, "output_norm": False},
        "optimizer": {"name": "adamw", "learning_rate": 5e-4, "weight_decay": 1e-4, "schedule": "cosine",
                      "warmup_epochs": 0, "final_fraction": 0.02},
        "views": {"flip": True, "crop_area": (0.08, 1.0), "crop_ratio": RATIO, "brightness": 0.5, "contrast": 0.5,
                  "contrast_about": "channels", "saturation": 0.5, "hue": 0.1, "jitter_probability": 0.8,
                  "grey_probability": 0.2, "blur_probability": 1.0, "blur_kernel": 9, "blur_sigma": (0.1, 2.0)},
        "runtime": {"epochs": 500, "batch_size": 256},
        "probe": {"solver": "minibatch", "label_budgets": BUDGETS,
                  "minibatch": {"epochs": 100, "batch_size": 64, "learning_rate": 1e-3, "weight_decay": 1e-3,
                                "milestones": (0.6, 0.8)}},
        "supervised": LINEAR,
        "published": {"epochs": 100, "batch_size": 64, "optimizer": "adamw", "learning_rate": 1e-3,
                       "weight_decay": 2e-4, "schedule": "steps", "milestones": (0.7, 0.9)},
        "pictures": {"flip": True, "crop_area": (0.8, 1.0), "crop_ratio": RATIO, "grey_probability": 0.2,
                     "blur_probability": 1.0, "blur_kernel": 9, "blur_sigma": (0.1, 0.5)},
    },
    "supcon-keras": {
        "data": {"source": "cifar10", "image_size": 32, "labels_per_class": None},
        "encoder": {"name": "resnet50v2", "stem": "large", "normalization": "statistics", "weights": None},
        "method": {"name": "supcon", "temperature": 0.05, "views": 1, "unlabelled": "leave_out"},
        "projection": {"width": 128, "layers": 1, "output_relu": True, "batch_norm": False, "output_norm": False},
        "optimizer": ADAM,
        "views": {"flip": True, "rotation": 0.02},
        "runtime": {"epochs": 50, "batch_size": 265},
        "probe": {"solver": "full_batch"},
        "supervised": {"head": {"hidden": 512, "dropout": 0.5}, "freeze_encoder": True},
        "published": {**KERAS_SUPERVISED, "epochs": 50, "batch_size": 265},
        "pictures": {"flip": True, "rotation": 0.02},
    },
}  # fmt: skip
WEIGHTS = {"simclr-keras": 856_064, "nnclr-keras": 856_064, "supcon-keras": 23_564_800}
FEATURES = {"simclr-keras": 128, "nnclr-keras": 128, "simclr-jax": 512, "supcon-keras": 2048}


def composed(*overrides):
    return compose_params(overrides)[0]


def values(section):
    return section.model_dump() if isinstance(section, BaseModel) else asdict(section)


def effective(augmentation):
    """What an augmentation does, apart from numbers that play no part."""
    found = values(augmentation)
    return {name: value for name, value in found.items() if CONDITIONS.get(name, lambda _: True)(found)}


def test_every_preset_has_its_table_and_none_changes_nothing():
    assert options()["preset"] == sorted(["none", *RECIPES])
    assert compose_params(["preset=none"])[1] == compose_params()[1]
    assert "preset" not in compose_params(["preset=simclr-keras"])[1]


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("section", ["data", "encoder", "method", "runtime", "probe", "supervised"])
def test_a_preset_has_the_published_numbers(name, section):
    expected = RECIPES[name][section]
    found = values(getattr(composed(f"preset={name}"), section))
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize("name", RECIPES)
def test_the_published_training_with_labels_is_kept_beside_a_fair_search(name):
    supervised, expected = composed(f"preset={name}").supervised, RECIPES[name]["published"]
    found = values(supervised.published)
    assert {key: found[key] for key in expected} == expected
    # the rival may see the images as the pretraining does, and is never trained shorter than as published
    assert set(supervised.search.augmentations) == {"weak", "views"}
    assert max(supervised.search.epochs) >= supervised.published.epochs
    assert composed().supervised.published is None


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("part", ["projection", "optimizer"])
def test_a_preset_has_the_published_head_and_optimizer(name, part):
    expected = RECIPES[name][part]
    found = values(getattr(composed(f"preset={name}").method, part))
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize("name", RECIPES)
def test_a_preset_augments_as_published_and_not_otherwise(name):
    params = composed(f"preset={name}")
    for found, part in (
        (params.method.augmentation, "views"),
        (params.supervised.published.augmentation, "pictures"),
    ):
        expected = {**STILL, **RECIPES[name][part]}
        assert effective(found) == {key: v for key, v in expected.items() if key in effective(found)}
        assert set(RECIPES[name][part]) <= set(effective(found))


@pytest.mark.parametrize("name", RECIPES)
def test_a_preset_corrects_what_a_recipe_should_not_have_done(name):
    params = composed(f"preset={name}")
    assert params.data.split.validation == 0.1
    assert len(params.runtime.replicates) >= 3
    assert params.runtime.precision == "float32"


@pytest.mark.parametrize("name", RECIPES)
def test_the_network_is_the_published_one(name):
    from models import encoders

    start_backend()
    found = composed(f"preset={name}")
    statistics = encoders.PixelStatistics((0.5,) * 3, (0.05,) * 3)
    network = encoders.build(found.encoder, found.data.image_size, statistics)
    assert network.output_shape == (None, FEATURES[name])
    if name in WEIGHTS:
        assert network.count_params() == WEIGHTS[name]


@pytest.mark.parametrize("name", RECIPES)
def test_the_projection_head_is_the_published_one(name):
    """Dense 128 – ReLU – dense 128 (512 first in the JAX tutorial); one dense layer with ReLU in SupCon's."""
    from models.methods.shared.heads import head

    start_backend()
    network = head("projection", FEATURES[name], composed(f"preset={name}").method.projection)
    features, hidden = FEATURES[name], RECIPES[name]["projection"].get("hidden")
    shapes = [(features, hidden), (hidden,), (hidden, 128), (128,)] if hidden else [(features, 128), (128,)]
    assert [weight.shape for weight in network.get_weights()] == shapes
    found = np.asarray(network(np.random.default_rng(0).standard_normal((20, features)).astype("float32")))
    assert (found.min() >= 0) == (name == "supcon-keras")
    assert found.max() > 0


def test_the_published_set_is_two_hundred_batches_of_five_hundred_and_twenty_five():
    batch = composed("preset=simclr-keras").runtime.batch_size
    assert divmod(100_000 + 5_000, batch) == (200, 0)
    assert 5_000 // composed("preset=simclr-keras").supervised.published.batch_size == 200


def test_what_is_said_after_a_preset_wins():
    overrides = ("data=parquet", "data.path=somewhere", "method.temperature=0.2", "supervised.published.epochs=3")
    for order in ((*overrides, "preset=simclr-keras"), ("preset=simclr-keras", *overrides)):
        params = composed(*order)
        assert (params.data.source, params.data.path) == ("parquet", "somewhere")
        assert (params.method.temperature, params.supervised.published.epochs) == (0.2, 3)
        assert params.method.negatives == "cross_view"
        assert params.supervised.published.batch_size == 25


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["preset=simclr-kera"],
            "preset=simclr-kera: must be one of nnclr-keras, none, simclr-jax, simclr-keras, supcon-keras "
            "(did you mean simclr-keras?)",
        ),
        (
            ["preset=simclr-jax", "probe.solver=newton"],
            "probe.solver = \"newton\": must be 'full_batch' or 'minibatch'",
        ),
        (
            ["preset=simclr-keras", "supervised.published.weight_decay=0.1"],
            "supervised.published.weight_decay = 0.1: adam has none; set it to 0 or take adamw",
        ),
    ],
)
def test_a_wrong_value_beside_a_preset_is_one_line(overrides, message):
    with pytest.raises(UserError) as error:
        compose_params(overrides)
    assert str(error.value) == message


@pytest.mark.parametrize("name", RECIPES)
def test_the_readme_says_how_to_run_a_preset(name):
    assert f"dvc exp run -S preset={name}" in (ROOT / "README.md").read_text()


# as short as it gets; what a preset says of the network, the augmentation, the optimiser and the loss stays
SHORT = ("runtime.epochs=1", "runtime.batch_size=12", "supervised.search.augmentations=[views]",
         "supervised.search.epochs=[1]", "supervised.search.cross_validate_below=0", "supervised.batch_size=6",
         "supervised.published.epochs=1", "supervised.published.batch_size=6", "probe.steps=20",
         "probe.l2=[1e-3]", "probe.minibatch.epochs=2", "probe.knn_neighbours=3")  # fmt: skip


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """A few images of the shape that a preset expects."""
    root = tmp_path_factory.mktemp("data")
    few = {"train": 12, "validation": 6, "test": 9}
    return {
        96: make_dataset(root / "stl10", image_size=96, unlabelled=12, **few),
        32: make_dataset(root / "cifar10", image_size=32, unlabelled=0, **few),
    }


def finite_rows(path):
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert rows
    assert all(math.isfinite(float(value)) for row in rows for value in row.values() if value)
    return rows


@pytest.fixture
def eager(name):
    """Deep networks step by step: for two steps of a training, TensorFlow's tracing would take most of the time."""
    import tensorflow

    tensorflow.config.run_functions_eagerly(RECIPES[name]["encoder"]["name"] != "conv")
    yield
    tensorflow.config.run_functions_eagerly(False)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_preset_runs_through_all_steps_that_learn(name, eager, datasets, tracking_uri, tmp_path):
    params = composed(f"preset={name}", *SHORT)
    dataset = datasets[params.data.image_size]
    data, encoder = Dataset(dataset), tmp_path / "encoder"
    trained = pretrain(dataset, encoder, select(params, "pretrain"), 0, tmp_path / "states")
    assert trained.details["method"] == params.method.name
    assert math.isfinite(trained.metrics["contrastive_loss"])
    assert len(finite_rows(encoder / "curves.csv")) == 1
    searched = tmp_path / "search"
    search(dataset, encoder, searched, select(params, "search"), 0)
    records = {
        "baseline": baseline(dataset, searched, tmp_path / "baseline", select(params, "baseline"), 0),
        "finetune": finetune(dataset, encoder, searched, tmp_path / "finetune", select(params, "finetune"), 0),
        "probe": probe(dataset, encoder, searched, tmp_path / "probe", select(params, "probe"), 0),
    }
    images = np.asarray(data.images("test"))
    loaded = {"encoder": keras.saving.load_model(encoder / "encoder.keras", compile=False)}
    features = np.asarray(loaded["encoder"](images))
    assert features.shape == (9, FEATURES[name])
    assert np.isfinite(features).all()
    for step, record in records.items():
        loaded[step] = keras.saving.load_model(tmp_path / step / "classifier.keras", compile=False)
        with np.load(tmp_path / step / "predictions.npz") as kept:
            assert kept["probabilities"].shape == (1, 9, 3)
            assert np.isfinite(kept["probabilities"]).all()
            np.testing.assert_allclose(np.asarray(loaded[step](images)), kept["probabilities"][0], atol=1e-4)
        finite_rows(tmp_path / step / "curves.csv")
        assert 0 <= record.metrics["validation_accuracy"] <= 1
        assert (tmp_path / step / "published.npz").exists() == (step != "probe")
        assert record.params == to_plain(select(params, step))
    assert records["baseline"].details["learning_rate"] == params.supervised.search.learning_rates[0]
    assert records["probe"].details["solver"] == params.probe.solver
    assert (records["probe"].details["l2"] is None) == (params.probe.solver == "minibatch")
    start, end = loaded["encoder"].get_weights(), loaded["finetune"].get_weights()
    unchanged = [np.array_equal(a, b) for a, b in zip(start, end, strict=False)]
    assert all(unchanged) == params.supervised.freeze_encoder
    width = params.supervised.head.hidden
    assert [weight.shape for weight in end[len(start) :]][-2:] == [(width or FEATURES[name], 3), (3,)]
