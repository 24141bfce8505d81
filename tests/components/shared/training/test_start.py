"""A pretrained start: whose weights an encoder begins with, what names it, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from components.pretrain import pretrain
from components.shared.artifacts import Dataset
from components.shared.digests import file_digest
from components.shared.errors import UserError
from components.shared.params.composing import compose_params
from components.shared.params.schema import select
from components.shared.replicates import _kept
from components.shared.training.checkpoints import training_key
from models import encoders
from models.classifier import softmax_head
from tests.helpers.datasets import make_dataset
from tests.helpers.options import network

SMALL = ("encoder=fast", "encoder.width=8", "method.projection.hidden=16", "method.projection.width=8")


def params(weights, *overrides, epochs=0):
    words = [*SMALL, f"encoder.weights={weights}", f"runtime.epochs={epochs}", "runtime.batch_size=32", *overrides]
    return select(compose_params(words)[0], "pretrain")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A dataset, an encoder and a classifier on top of it."""
    root = tmp_path_factory.mktemp("start")
    make_dataset(root / "dataset")
    encoder = network("fast", 32, width=8)
    head = softmax_head(np.ones((encoder.output_shape[-1], 3), "float32"), np.zeros(3, "float32"))
    (root / "step").mkdir()
    encoders.deployable(encoder).save(root / "step" / "encoder.keras")
    encoders.deployable(encoder, head).save(root / "classifier.keras")
    np.savez(root / "weights.npz", *encoder.get_weights())
    return root


def weights_of(path: Path) -> list[np.ndarray]:
    return keras.saving.load_model(path, compile=False).get_weights()


@pytest.mark.parametrize("name", ["step/encoder.keras", "step", "classifier.keras"])
def test_pretraining_starts_from_the_weights(place, tracking_uri, tmp_path, name):
    where = place / name
    record = pretrain(place / "dataset", tmp_path / "encoder", params(where), 0, tmp_path / "states")
    with np.load(place / "weights.npz") as expected:
        for found, name in zip(weights_of(tmp_path / "encoder" / "encoder.keras"), expected.files, strict=True):
            np.testing.assert_array_equal(found, expected[name])
    assert record.details["weights"] == str(where)
    assert record.details["weights_digest"] == file_digest(where / "encoder.keras" if where.is_dir() else where)


def test_a_momentum_encoder_starts_there_too(place):
    from components.shared.step import Work
    from components.shared.tracking.run import Run
    from components.shared.training.checkpoints import Checkpoint
    from components.shared.training.pretraining import Pretraining

    chosen = params(place / "step", "method=byol", "method.prediction.width=8", epochs=1)
    work = Work("pretrain", place, Run(), chosen, {})
    model = Pretraining(Dataset(place / "dataset"), chosen, 0, work, Checkpoint("0", place / "states")).model
    starts = [weight for weight in model.weights if weight.shape == model.encoder.weights[0].shape]
    assert len(starts) == 2
    for weight in starts:
        np.testing.assert_array_equal(weight, model.encoder.weights[0])


def test_the_registry_is_a_place_to_start_from(place, tracking_uri, tmp_path):
    import mlflow

    from components.shared.registry.logged_model import log_classifier

    mlflow.set_experiment("start")
    with mlflow.start_run() as run:
        uri = log_classifier(place / "classifier.keras", Dataset(place / "dataset"), run.info.run_id)
    record = pretrain(place / "dataset", tmp_path / "encoder", params(uri), 0, tmp_path / "states")
    assert record.details["weights_digest"] == file_digest(place / "classifier.keras")


def test_another_file_under_the_same_name_is_another_training(place, tmp_path):
    path, data = tmp_path / "start.keras", Dataset(place / "dataset")
    chosen, keys = params(path), []
    for name in ("step/encoder.keras", "classifier.keras", "step/encoder.keras"):
        shutil.copy(place / name, path)
        inputs = {"dataset": data.folder}
        keys.append((training_key("pretrain", chosen, 0, inputs), _kept("pretrain", inputs, chosen, 0)))
    assert keys[0] == keys[2]
    assert keys[0][0] != keys[1][0] and keys[0][1] != keys[1][1]


@pytest.mark.parametrize(
    ("weights", "overrides", "words"),
    [
        ("nowhere.keras", (), "nowhere.keras: no such .keras file"),
        ("dataset", (), "no such .keras file, or folder with one"),
        ("weights.npz", (), "Keras can't load it"),
        (
            "step",
            ("encoder.width=16",),
            r"holds encoder of \d[\d,]+ weights, .*, not the \d[\d,]+ weights of the options encoder",
        ),
        ("step", ("encoder=resnet18",), "weights of the options encoder and data.image_size"),
        ("grey.keras", (), r"was trained with data.channels=1; set that \(it is 3\), or start from other weights"),
        ("small.keras", (), "was trained on 24×24 pixels; set data.image_size=24"),
        ("models:/nobody@champion", (), "no model nobody|no registry"),
    ],
)
def test_a_wrong_start_is_one_line(place, tracking_uri, tmp_path, weights, overrides, words):
    encoders.deployable(network("fast", 24, width=8)).save(place / "small.keras")
    encoders.deployable(network("fast", 32, channels=1, width=8)).save(place / "grey.keras")
    where = weights if weights.startswith("models:") else place / weights
    if "encoder=resnet18" in overrides:
        chosen = select(
            compose_params(["encoder=resnet18", f"encoder.weights={where}", "runtime.epochs=0"])[0], "pretrain"
        )
    else:
        chosen = params(where, *overrides)
    with pytest.raises(UserError, match=words) as caught:
        pretrain(place / "dataset", tmp_path / "encoder", chosen, 0, tmp_path / "states")
    assert str(caught.value).startswith("encoder.weights = ") or weights.startswith("models:")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "encoder").exists()
