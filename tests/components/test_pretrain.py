"""Pretraining end to end on a few images: what it writes, and what becomes of a killed run."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from components.pretrain import pretrain
from components.shared.artifacts import Dataset, Manifest, Result, read_record
from components.shared.errors import UserError
from components.shared.params.composing import compose_params, write_params
from components.shared.params.schema import select
from components.shared.plots.grids import draw_rows
from components.shared.replicates import KEPT
from components.shared.training.checkpoints import Checkpoint, training_key
from models import methods
from models.batches import Batches
from models.classifier import predict
from models.methods.shared.base import Method
from models.training import EpochPace
from tests.helpers.datasets import make_dataset
from tests.helpers.options import network
from tests.helpers.repository import ROOT

EPOCHS = 12
# in the working folder
FOLDER = ".cache/pretrain"
SMALL = (
    "encoder=conv_small", "encoder.width=8", "method.projection.hidden=16", "method.projection.width=8",
    "runtime.batch_size=32",
)  # fmt: skip


def composed(*overrides, epochs=EPOCHS):
    return compose_params([*SMALL, f"runtime.epochs={epochs}", *overrides])


def params(*overrides, epochs=EPOCHS):
    return select(composed(*overrides, epochs=epochs)[0], "pretrain")


def key(dataset, of=None, seed=0):
    """What names the state of a pretraining."""
    return training_key("pretrain", of or params(), seed, {"dataset": dataset})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data") / "dataset", name="pretraining")


@pytest.fixture(scope="module")
def orders():
    """The epochs for which the images were shuffled in `finished`."""
    return []


@pytest.fixture(scope="module")
def finished(dataset, tracking_uri, tmp_path_factory, orders):
    """A run that nothing interrupted: its record and its folder."""
    folder, shuffle = tmp_path_factory.mktemp("finished"), Batches.shuffle

    def watched(self, epoch):
        orders.append(epoch)
        shuffle(self, epoch)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Batches, "shuffle", watched)
        record = pretrain(dataset, folder / "encoder", params(), 0, folder / "states")
    return record, folder / "encoder"


def curves(folder):
    with (folder / "curves.csv").open() as file:
        return list(csv.DictReader(file))


def load(folder):
    return keras.saving.load_model(folder / "encoder.keras", compile=False)


def test_it_writes_an_encoder_curves_pictures_and_a_record(finished, dataset):
    record, folder = finished
    names = {"encoder.keras", "projection_head.keras", "curves.csv", "views.png", "result.json"}
    assert {path.name for path in folder.iterdir()} == names
    assert read_record(folder, Result) == record
    digest = read_record(dataset, Manifest).digest
    assert record.step == "pretrain"
    assert record.dataset_digest == record.inputs["dataset"] == digest
    details = dict(record.details)
    networks = details.pop("networks")
    encoder = keras.saving.load_model(folder / "encoder.keras", compile=False)
    assert sum(layer["weights"] for layer in networks["encoder"]) == encoder.count_params()
    # 8 features, 16 hidden units with normalisation, 8 dimensions
    head = [("Dense", 8 * 16), ("BatchNormalization", 4 * 16), ("ReLU", 0), ("Dense", 16 * 8 + 8)]
    assert [(layer["kind"], layer["weights"]) for layer in networks["projection head"]] == head
    expected = {
        "seed": 0,
        "method": "simclr",
        "encoder": "conv",
        "epochs": EPOCHS,
        "images": 84,
        "features": 8,
        "devices": 1,
        "precision": "float32",
        "weights": None,
        "weights_digest": None,
    }
    assert details == expected
    # nothing is kept of a finished training
    assert list((folder.parent / "states").iterdir()) == []
    with Image.open(folder / "views.png") as picture:
        assert min(picture.size) > 250


def test_the_curves_have_a_row_an_epoch_and_end_with_the_recorded_metrics(finished):
    record, folder = finished
    rows = curves(folder)
    assert [row["epoch"] for row in rows] == [str(epoch) for epoch in range(1, EPOCHS + 1)]
    last = {name: float(value) for name, value in rows[-1].items() if name != "epoch"}
    assert last == record.metrics
    measured = {"contrastive_loss", "contrastive_accuracy", "probe_accuracy", "validation_probe_accuracy"}
    assert measured <= set(last)
    # every ten epochs and at the end
    watched = [row["epoch"] for row in rows if row["knn_accuracy"]]
    assert watched == ["10", "12"]
    assert all(np.isfinite(float(value)) for row in rows for value in row.values() if value)


def test_each_epoch_has_an_order_of_its_own(finished, orders):
    # the one after the last, too, is read ahead
    assert [*dict.fromkeys(orders)][:EPOCHS] == [*range(EPOCHS)]


def test_mlflow_has_the_curves_the_pictures_and_the_encoder(finished, tracking_uri):
    import mlflow

    record, folder = finished
    client = mlflow.MlflowClient(tracking_uri)
    history = client.get_metric_history(record.mlflow_run_id, "train/contrastive_loss")
    rows = curves(folder)
    assert {p.step: p.value for p in history} == {int(r["epoch"]): float(r["contrastive_loss"]) for r in rows}
    rates, speeds = (
        {p.step: p.value for p in client.get_metric_history(record.mlflow_run_id, f"train/{name}")}
        for name in EpochPace.LOGS
    )
    assert list(rates) == list(speeds) == [int(row["epoch"]) for row in rows]
    assert rates[EPOCHS] < rates[EPOCHS // 2] < params().method.optimizer.learning_rate
    assert min(speeds.values()) > 0
    # charts of one kind stand together in MLflow's page
    names = set(client.get_run(record.mlflow_run_id).data.metrics)
    assert {name.partition("/")[0] for name in names} == {"train", "validation", "embedding", "result", "cost"}
    assert {"train/probe_loss", "validation/probe_accuracy", "validation/knn_accuracy", "embedding/rank"} <= names
    # what the clock decides is in no file that is the same again
    assert not {*EpochPace.LOGS} & ({*rows[0]} | {*record.metrics})
    names = {file.path for place in ("", "pictures") for file in client.list_artifacts(record.mlflow_run_id, place)}
    assert {"curves.csv", "result.json", "pictures/views.png"} <= names


def test_mlflow_has_the_encoder_as_a_model_with_its_run_its_dataset_and_its_numbers(finished, tracking_uri):
    import mlflow

    record, folder = finished
    client = mlflow.MlflowClient(tracking_uri)
    run = client.get_run(record.mlflow_run_id)
    (output,) = run.outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    assert (model.name, model.model_type, model.status) == ("encoder", "encoder", "READY")
    assert model.source_run_id == record.mlflow_run_id
    assert model.params["method.name"] == record.details["method"]
    (number,) = (metric for metric in model.metrics if metric.key == "result/knn_accuracy")
    assert number.value == record.metrics["knn_accuracy"]
    assert (number.dataset_name, number.dataset_digest) == ("pretraining", record.dataset_digest[:36])
    # once
    assert len(client.get_metric_history(record.mlflow_run_id, "result/knn_accuracy")) == 1
    logged = Path(mlflow.artifacts.download_artifacts(f"runs:/{record.mlflow_run_id}/encoder"))
    assert (logged / "data/model.keras").read_bytes() == (folder / "encoder.keras").read_bytes()


def test_the_encoder_was_trained_and_takes_raw_images(finished, dataset):
    encoder = load(finished[1])
    images = np.asarray(Dataset(dataset).images("test"))
    features = np.asarray(encoder(images))
    assert features.shape == (30, 8)
    assert np.isfinite(features).all()
    assert features.std(axis=0).max() > 0
    keras.utils.set_random_seed(0)
    start = network("conv", 32, width=8).get_weights()
    assert all(np.abs(a - b).max() > 1e-4 for a, b in zip(encoder.get_weights(), start, strict=True))


def test_no_epoch_leaves_the_random_encoder(dataset, tracking_uri, tmp_path):
    record = pretrain(dataset, tmp_path / "encoder", params(epochs=0), 0, tmp_path / "states")
    assert record.metrics == {}
    assert (tmp_path / "encoder" / "curves.csv").read_text() == "epoch\n"
    keras.utils.set_random_seed(0)
    start = network("conv", 32, width=8).get_weights()
    for kept, expected in zip(load(tmp_path / "encoder").get_weights(), start, strict=True):
        np.testing.assert_array_equal(kept, expected)


def test_the_optimiser_and_the_method_get_what_the_parameters_say(dataset, tracking_uri, tmp_path, monkeypatch):
    models_seen, compiled = [], Method.compile

    def watched(self, **options):
        models_seen.append(self)
        compiled(self, **options)

    monkeypatch.setattr(Method, "compile", watched)
    options = {"name": "sgd", "learning_rate": 0.01, "momentum": 0.0, "weight_decay": 0.5, "warmup_epochs": 1,
               "final_fraction": 0.5}  # fmt: skip
    chosen = params(*(f"method.optimizer.{name}={value}" for name, value in options.items()), epochs=3)
    pretrain(dataset, tmp_path / "encoder", chosen, 0, tmp_path / "states")
    (model,) = models_seen
    optimizer = model.optimizer
    # 84 images in batches of 32 are two steps an epoch
    assert model.steps == int(model.step) == int(optimizer.iterations) == 3 * 2
    assert optimizer.momentum == 0
    rates = [float(optimizer._learning_rate(step)) for step in range(7)]
    assert rates == pytest.approx([0, 0.005, 0.01, *(0.0075 + 0.0025 * np.cos(np.pi * np.arange(1, 5) / 4))])
    # without a gradient the last rate's decay is left, of kernels alone
    before = [v.numpy() for v in model.trainable_variables]
    optimizer.apply([np.zeros_like(value) for value in before], model.trainable_variables)
    for variable, value in zip(model.trainable_variables, before, strict=True):
        factor = 1 - 0.005 * 0.5 if value.ndim > 1 else 1
        np.testing.assert_allclose(variable.numpy(), factor * value, rtol=1e-6, err_msg=variable.path)


def drawn(monkeypatch):
    """The names of the rows of a picture."""
    names = []

    def watched(rows):
        names.extend(name for name, _ in rows)
        return draw_rows(rows)

    monkeypatch.setattr("components.shared.training.pretraining.draw_rows", watched)
    return names


def test_one_view_of_each_image_leaves_what_compares_two_out(dataset, tracking_uri, tmp_path, monkeypatch):
    names = drawn(monkeypatch)
    one = params("method=supcon", "method.views=1", "method.unlabelled=leave_out", epochs=1)
    record = pretrain(dataset, tmp_path / "encoder", one, 0, tmp_path / "states")
    assert not {"contrastive_accuracy", "positive_rank", "correlation_accuracy"} & set(record.metrics)
    assert record.metrics["contrastive_loss"] > 0
    (row,) = curves(tmp_path / "encoder")
    # a plot names this column
    assert row["contrastive_accuracy"] == ""
    assert "positive_rank" not in row
    # a picture of a single one would compare nothing
    assert names == ["original", "view 1", "view 2"]


def test_of_more_views_all_is_told_that_is_told_of_two(dataset, finished, tracking_uri, tmp_path, monkeypatch):
    names = drawn(monkeypatch)
    # and what ends a training by the ranks of views is measured
    three = params("method.views=3", "monitor.stop_by=validation_view_rank", "monitor.every=1", epochs=1)
    record = pretrain(dataset, tmp_path / "encoder", three, 0, tmp_path / "states")
    assert names == ["original", "view 1", "view 2", "view 3"]
    assert set(record.metrics) == set(finished[0].metrics)
    assert all(np.isfinite(value) for value in record.metrics.values())
    # of 32 images no rank is higher with a third view
    assert record.metrics["view_rank"] <= 63


@pytest.mark.parametrize("method", [("method=simclr",), ("method=byol", "method.prediction.width=8")])
def test_views_may_be_smaller_than_images(dataset, tracking_uri, tmp_path, method):
    size = ("encoder=fast", "encoder.width=4", "method.augmentation.size=16")
    smaller = params(*method, *size, "monitor.every=1", epochs=1)
    record = pretrain(dataset, tmp_path / "encoder", smaller, 0, tmp_path / "states")
    assert {"validation_view_rank", "knn_accuracy"} <= set(record.metrics)
    # told, and kept, for images
    assert record.details["networks"]["encoder"][1]["output"] == [31, 31, 2]
    assert predict(load(tmp_path / "encoder"), Dataset(dataset).images("test")).shape == (30, 12)


def test_a_loss_that_is_no_number_is_told_in_one_line_and_leaves_nothing(dataset, tracking_uri, tmp_path):
    wrong = params("method.optimizer.learning_rate=1e30", "method.optimizer.warmup_epochs=0")
    with pytest.raises(UserError, match=r"learning_rate = 1e\+30: .*loss is .* in epoch 1; lower it") as caught:
        pretrain(dataset, tmp_path / "encoder", wrong, 0, tmp_path / "states")
    assert "\n" not in str(caught.value)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert not (tmp_path / "encoder").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 16}, "data.image_size = 16: the conv encoder needs images of at least 31 pixels"),
        ({"channels": 1}, r"^method.augmentation.saturation = 0.8: changes the colours of RGB.*data.channels = 1"),
        ({"unlabelled": 0, "train": 1}, "1 images to pretrain on; at least 2 are needed"),
    ],
)
def test_unsuitable_images_are_refused_in_one_line(tracking_uri, tmp_path, options, message):
    dataset = make_dataset(tmp_path / "dataset", name="pretraining", **options)
    with pytest.raises(UserError, match=message) as caught:
        pretrain(dataset, tmp_path / "encoder", params(), 0, tmp_path / "states")
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset"]


def test_a_missing_dataset_is_told_in_one_line(tracking_uri, tmp_path):
    with pytest.raises(UserError, match=r"manifest.json: missing; run the step that writes dataset/ first"):
        pretrain(tmp_path / "dataset", tmp_path / "encoder", params(), 0, tmp_path / "states")
    assert list(tmp_path.iterdir()) == []


CHANGES = [
    "method.temperature=0.3", "method.optimizer.learning_rate=0.01", "method.augmentation.hue=0.1",
    "method.projection.width=16", "encoder.normalization=symmetric", "encoder.width=16", "runtime.batch_size=16",
    "runtime.epochs=13", "runtime.precision=bfloat16",
]  # fmt: skip


@pytest.mark.slow
def test_anything_that_decides_the_result_gives_a_state_of_its_own(dataset, tmp_path, monkeypatch):
    keys = {key(dataset, params(change)) for change in CHANGES} | {key(dataset, params(), 1)}
    keys.add(key(make_dataset(tmp_path / "dataset", seed=1)))
    plain = key(dataset)
    with monkeypatch.context() as patched:
        patched.setattr("components.shared.training.checkpoints.code_digest", lambda step, params: "of other code")
        keys.add(key(dataset))
    assert len(keys) == len(CHANGES) + 3
    assert plain not in keys
    # what other steps read plays no part
    elsewhere = params("gate.min_gain=0.5", "runtime.replicates=[7]", "supervised.batch_size=3")
    assert key(dataset, elsewhere) == plain


@pytest.mark.slow
def test_a_changed_parameter_starts_anew(dataset, tracking_uri, tmp_path, capsys, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    states = tmp_path / "states"
    with monkeypatch.context() as patched:
        patched.setattr("components.shared.training.pretraining.draw_rows", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pretrain(dataset, tmp_path / "encoder", params(epochs=1), 0, states)
    assert not (tmp_path / "encoder").exists()
    assert len(list(states.iterdir())) == 1
    record = pretrain(dataset, tmp_path / "encoder", params("method.temperature=0.5", epochs=1), 0, states)
    assert "going on" not in capsys.readouterr().out
    assert len(curves(tmp_path / "encoder")) == 1
    again = pretrain(dataset, tmp_path / "encoder", params(epochs=1), 0, states)
    assert "going on after epoch 1" in capsys.readouterr().out
    assert again.metrics["contrastive_loss"] != record.metrics["contrastive_loss"]
    assert list(states.iterdir()) == []


def start(program, folder, dataset):
    """The step in a process of its own, in an empty folder, so that its state is kept there."""
    return subprocess.Popen(
        [sys.executable, *program, "--dataset", str(dataset)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill_when(process, reached, seconds=240):
    """SIGKILL as soon as `reached()`; the process must still be running then."""
    end = time.monotonic() + seconds
    while not reached():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end, "the step never came so far"
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()


# dies while it writes the state of the third epoch that it sees
DYING = """
import os, signal
from components.pretrain import pretrain
from components.shared.step import command_line

fsync, calls = os.fsync, []

def die(descriptor):
    calls.append(descriptor)
    if len(calls) == 3:
        os.truncate(descriptor, os.fstat(descriptor).st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(descriptor)

os.fsync = die
command_line("pretrain", pretrain)
"""


@pytest.mark.slow
def test_a_run_killed_several_times_ends_as_if_nothing_had_happened(
    finished, dataset, tracking_uri, in_tmp, capsys, monkeypatch
):
    write_params(composed("runtime.replicates=[0]", "runtime.threads=null")[1], in_tmp / "params.yaml")
    state = Checkpoint(key(dataset), in_tmp / FOLDER)

    def epochs_kept():
        if not state.path.exists():
            return 0
        with np.load(state.path) as kept:
            return json.loads(kept["state"].tobytes())["epoch"]

    def half_written():
        return list((in_tmp / KEPT / "pretrain").glob(".*.partial"))

    # during start-up
    kill_when(start(["-m", "components.pretrain"], in_tmp, dataset), half_written)
    assert not (in_tmp / "encoder").exists()
    assert epochs_kept() == 0
    # at whatever comes after the first epoch
    kill_when(start(["-m", "components.pretrain"], in_tmp, dataset), state.path.exists)
    seen = epochs_kept()
    assert 1 <= seen < EPOCHS - 3, "killed too late to show anything"
    # with half a state written
    process = start(["-c", DYING], in_tmp, dataset)
    output = process.communicate(timeout=240)[0]
    assert process.returncode == -signal.SIGKILL, output
    assert f"going on after epoch {seen}" in output
    assert epochs_kept() == seen + 2
    assert not (in_tmp / "encoder").exists()
    assert half_written()

    # with the training finished and the encoder written, but not yet in its place
    def interrupt(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("components.shared.training.pretraining.draw_rows", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pretrain(dataset, in_tmp / "encoder", params(), 0, in_tmp / FOLDER)
    assert epochs_kept() == EPOCHS
    assert not (in_tmp / "encoder").exists()

    record = pretrain(dataset, in_tmp / "encoder", params(), 0, in_tmp / FOLDER)
    assert f"going on after epoch {EPOCHS}" in capsys.readouterr().out
    whole, folder = finished
    for found, expected in zip(load(in_tmp / "encoder").get_weights(), load(folder).get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert (in_tmp / "encoder" / "curves.csv").read_text() == (folder / "curves.csv").read_text()
    assert record.metrics == whole.metrics
    with Image.open(in_tmp / "encoder" / "views.png") as found, Image.open(folder / "views.png") as expected:
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
    assert sorted(path.name for path in in_tmp.iterdir()) == [".cache", "encoder", "params.yaml"]
    assert list((in_tmp / FOLDER).iterdir()) == []

    import mlflow

    history = mlflow.MlflowClient(tracking_uri).get_metric_history(record.mlflow_run_id, "train/contrastive_loss")
    assert {point.step for point in history} == set(range(1, EPOCHS + 1))


# another pretraining of the same, which has claimed its state and waits at some epoch
OTHER = """
import sys
from pathlib import Path
from components.shared.training.checkpoints import Checkpoint

with Checkpoint(sys.argv[1], Path(sys.argv[2])) as checkpoint:
    print(checkpoint.claim(), flush=True)
    checkpoint.path.write_text("its state")
    sys.stdin.read()
"""


def test_a_second_pretraining_of_the_same_leaves_the_state_of_the_first_alone(
    finished, dataset, tracking_uri, tmp_path, capsys
):
    """They overwrote each other's state, and the first to finish removed that of the second."""
    states, named = tmp_path / "states", key(dataset)
    with subprocess.Popen(
        [sys.executable, "-c", OTHER, named, str(states)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as first:
        assert first.stdout.readline() == "True\n"
        record = pretrain(dataset, tmp_path / "encoder", params(), 0, states)
        assert (states / f"{named}.npz").read_text() == "its state"
        first.communicate()
        assert first.returncode == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "another process" in line]
    assert said == [
        f"pretrain: another process trains the same and keeps {states / named}.npz; this one trains on its own, "
        "and keeps no state while the other one does"
    ]
    assert record.metrics == finished[0].metrics


def test_a_cache_that_can_not_be_written_is_refused_before_any_training(dataset, in_tmp):
    """A new volume that belongs to root cost an epoch, which was then lost."""
    (in_tmp / "file").touch()
    with pytest.raises(UserError, match=r"file/pretrain: the state of the training can't be written there"):
        pretrain(dataset, in_tmp / "encoder", params(), 0, in_tmp / "file" / "pretrain")
    assert not (in_tmp / "encoder").exists()


@pytest.mark.parametrize("sub_batch", ["8", "null"])
def test_a_step_goes_through_the_encoder_in_sub_batches(dataset, tmp_path, monkeypatch, sub_batch):
    seen, build = [], methods.build
    monkeypatch.setattr(methods, "build", lambda *given: seen.append(given[-1]) or build(*given))
    run = params(f"runtime.sub_batch={sub_batch}", epochs=1)
    result = pretrain(dataset, tmp_path / "encoder", run, 0, tmp_path / "kept")
    assert seen == [4 if sub_batch == "8" else 1]
    assert np.isfinite(result.metrics["contrastive_loss"])


def test_sub_batches_that_are_not_equal_are_refused_before_the_training(dataset, tmp_path):
    with pytest.raises(UserError, match=r"runtime.sub_batch = 7: a step's 32 images .* set 4$"):
        pretrain(dataset, tmp_path / "encoder", params("runtime.sub_batch=7", epochs=1), 0, tmp_path / "kept")
    assert not (tmp_path / "encoder").exists()


def test_a_batch_that_does_not_fit_into_memory_is_refused_before_the_training(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("components.shared.training.memory.free_bytes", lambda: 2**20)
    with pytest.raises(UserError, match=r"^runtime.batch_size = 32: a step takes some .* are free; set "):
        pretrain(dataset, tmp_path / "encoder", params(), 0, tmp_path / "kept")
    assert not (tmp_path / "encoder").exists() and not list((tmp_path / "kept").glob("*.npz"))
