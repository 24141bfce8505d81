"""Several devices: the same results as on one, and what is refused."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from components.baseline import baseline
from components.shared.artifacts import Dataset, Result, read_record
from components.shared.errors import UserError
from components.shared.params.composing import compose_params, write_params
from components.shared.params.schema import params_digest, select
from components.shared.replicates import train_replicates
from components.shared.steps import STEPS
from components.shared.training import devices
from components.shared.training import distributed as processes
from components.shared.training.devices import on_devices, peak_bytes, precision_here
from models.batches import Batches, filled
from models.training import validation_batch
from tests.helpers.datasets import make_dataset
from tests.helpers.device_steps import SETTINGS
from tests.helpers.repository import ROOT, on_jax
from tests.helpers.servers import free_port

SCRIPT = ROOT / "tests" / "helpers" / "device_steps.py"


def test_the_most_memory_of_a_card_is_what_the_backend_tells(monkeypatch):
    import tensorflow as tf

    assert peak_bytes() is None
    monkeypatch.setattr(devices, "count_cards", lambda: 2)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["one", "another"])
    told = {"GPU:0": {"peak": 10}, "GPU:1": {"peak": 30}}
    monkeypatch.setattr(tf.config.experimental, "get_memory_info", told.get)
    assert peak_bytes() == 30
    monkeypatch.setattr(devices.keras.backend, "backend", lambda: "jax")
    cards = [SimpleNamespace(memory_stats=lambda: {"peak_bytes_in_use": 50}), SimpleNamespace(memory_stats=dict)]
    monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(local_devices=lambda: cards))
    assert peak_bytes() == 50
    # as of a device that tells nothing
    monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(local_devices=lambda: cards[1:]))
    assert peak_bytes() is None
    monkeypatch.setattr(devices.keras.backend, "backend", lambda: "torch")
    cuda = SimpleNamespace(device_count=lambda: 2, max_memory_allocated=[20, 70].__getitem__)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert peak_bytes() == 70


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """A function: the environment of a process on JAX that sees so many devices."""
    return partial(on_jax, tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    # of a size of its own, so that its runs can be counted on a server that other tests use too
    return make_dataset(tmp_path_factory.mktemp("data") / "dataset", name="devices", test=33)


@pytest.fixture(scope="module")
def trained(dataset, tracking_uri, simulated, tmp_path_factory):
    """The folder with what `device_steps.py` wrote, and what it printed."""
    out = tmp_path_factory.mktemp("trained")
    done = subprocess.run(
        [sys.executable, SCRIPT, dataset, out],
        env=simulated(8),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    return out, done.stdout


@pytest.fixture(scope="module")
def apart(dataset, tracking_uri, simulated, tmp_path_factory):
    """The folder in which two processes of four devices each pretrained together, and what each of them said."""
    folder = tmp_path_factory.mktemp("apart")
    write_params(compose_params([*SETTINGS, "runtime.devices=4"])[1], folder / "params.yaml")
    address = f"127.0.0.1:{free_port()}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "components.pretrain", "--dataset", dataset],
            cwd=folder,
            env={
                **simulated(4), "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": str(index),
                "JAX_COORDINATOR_ADDRESS": address,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(2)
    ]  # fmt: skip
    told = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    return folder, told


def curves(folder):
    """Columns of a training's curves."""
    with (folder / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}


@pytest.mark.slow
@pytest.mark.parametrize("run", ["8", "resumed"])
def test_pretraining_learns_the_same_on_eight_devices_and_after_one_took_over(trained, dataset, run):
    out, _ = trained
    one, other = curves(out / "1" / "encoder"), curves(out / run / "encoder")
    assert list(one) == list(other)
    # the loss, its accuracies, the probe on validation images, nearest neighbours, spread and rank
    assert len(one) > 10
    for name, values in one.items():
        np.testing.assert_allclose(other[name], values, rtol=1e-4, err_msg=name)
    assert one["contrastive_loss"][1] < one["contrastive_loss"][0] - 0.05
    images = np.asarray(Dataset(dataset).images("test"))
    features = [
        np.asarray(keras.saving.load_model(out / name / "encoder" / "encoder.keras", compile=False)(images))
        for name in ("1", run)
    ]
    assert features[0].std(axis=0).max() > 0
    np.testing.assert_allclose(features[1], features[0], rtol=1e-3, atol=1e-3 * np.abs(features[0]).max())


@pytest.mark.slow
def test_each_device_holds_its_share_of_the_images_and_all_weights(trained):
    out, told = trained
    shares = json.loads((out / "shares.json").read_text())
    # two views of 32 images; without a share of their own, all rows would lie on each device
    expected = [64, 64 // 8]
    assert shares == {"views": expected, "features": expected, "embeddings": expected, "weights": [8]}
    # images that eight devices can't share out equally are filled up, not refused
    assert "warning" not in told.lower()
    found = {name: read_record(out / name / "encoder", Result).details["devices"] for name in ("1", "8", "resumed")}
    assert found == {"1": 1, "8": 8, "resumed": 1}
    assert "going on after epoch 1" in told


@pytest.mark.slow
def test_supervised_training_learns_the_same_on_eight_devices(trained):
    out, _ = trained
    one, eight = curves(out / "1" / "baseline"), curves(out / "8" / "baseline")
    assert {"loss", "accuracy", "validation_loss", "validation_accuracy"} < set(one)
    for name, values in one.items():
        np.testing.assert_allclose(eight[name], values, rtol=1e-5, err_msg=name)
    kept = [np.load(out / name / "baseline" / "predictions.npz") for name in ("1", "8")]
    np.testing.assert_allclose(kept[1]["probabilities"], kept[0]["probabilities"], atol=1e-4)
    records = [read_record(out / name / "baseline", Result) for name in ("1", "8")]
    assert [record.details["devices"] for record in records] == [1, 8]
    # where it was computed is told, and decides nothing
    assert records[0].params["runtime"]["devices"] != records[1].params["runtime"]["devices"]
    assert records[0].params_digest == records[1].params_digest


@pytest.mark.slow
def test_two_processes_learn_the_same_as_one_and_only_the_first_writes(trained, apart):
    folder, told = apart
    one, together = curves(trained[0] / "1" / "encoder"), curves(folder / "encoder" / "0")
    for name, values in one.items():
        np.testing.assert_allclose(together[name], values, rtol=1e-4, err_msg=name)
    record = read_record(folder / "encoder" / "0", Result)
    assert record.details["devices"] == 8
    assert sorted(path.name for path in folder.iterdir()) == [".cache", "encoder", "params.yaml"]
    # nothing but the finished training is kept
    assert list((folder / ".cache" / "pretrain").iterdir()) == []
    (kept,) = (folder / ".cache" / "replicates" / "pretrain").iterdir()
    assert read_record(kept, Result) == record
    assert all("epoch 2/2" in said for said in told)
    import mlflow

    runs = mlflow.search_runs(search_all_experiments=True, filter_string=f"run_id = '{record.mlflow_run_id}'")
    assert list(runs["status"]) == ["FINISHED"]
    # one on one device, one on eight, one that took over, one of two processes, and of these what they are together
    same = f"tags.step = 'pretrain' and tags.`input.dataset` = '{record.inputs['dataset']}'"
    assert len(mlflow.search_runs(search_all_experiments=True, filter_string=same)) == 5


@pytest.fixture
def machine(monkeypatch):
    """A function that pretends other devices, and another backend, and gives the number that would be used."""

    def pretend(wanted, batch=96, backend="jax", there=8, cards=True, nodes=1):
        monkeypatch.setattr(keras.backend, "backend", lambda: backend)
        monkeypatch.setattr(devices, "_devices", lambda name: (there, cards))
        return devices._number("pretrain", wanted, batch, "runtime.batch_size", nodes)

    return pretend


@pytest.mark.parametrize(
    ("wanted", "there", "cards", "count"),
    [
        ("auto", 8, True, 8),
        ("auto", 1, True, 1),
        ("auto", 8, False, 1),
        (8, 8, False, 8),
        (3, 8, True, 3),
        (1, 8, True, 1),
    ],
)
def test_auto_takes_all_graphics_cards_and_a_number_so_many_devices(machine, capsys, wanted, there, cards, count):
    assert machine(wanted, there=there, cards=cards) == count
    assert capsys.readouterr().out == ""


def test_auto_says_so_when_a_batch_leaves_cards_idle(machine, capsys):
    assert machine("auto", batch=84) == 7
    expected = (
        "pretrain: 7 of 8 GPUs: a batch of 84 images (runtime.batch_size) can't be shared out equally over more"
    )
    assert capsys.readouterr().out == f"{expected}\n"


@pytest.mark.parametrize(
    ("wanted", "machine_of", "message"),
    [
        (8, {"batch": 100}, "runtime.devices = 8: a batch of 100 images can't be shared out equally; "
                            "set runtime.batch_size = 96, or runtime.devices = 5"),
        (8, {"batch": 6}, "runtime.devices = 8: a batch of 6 images can't be shared out equally; "
                          "set runtime.devices = 6"),
        (9, {}, "runtime.devices = 9: there are 8 GPUs here; lower it, or set it to auto"),
        (2, {"there": 1, "cards": False},
         "runtime.devices = 2: there is 1 device here; lower it, or set it to auto"),
        (2, {"backend": "tensorflow", "there": 1, "cards": False},
         "runtime.devices = 2: Keras on tensorflow trains on one device; set KERAS_BACKEND=jax to use several, "
         "or runtime.devices = 1"),
        ("auto", {"backend": "tensorflow", "there": 4},
         "runtime.devices = auto (4 GPUs are here): Keras on tensorflow trains on one device; "
         "set KERAS_BACKEND=jax to use several, or runtime.devices = 1"),
        (4, {"batch": 92, "nodes": 2},
         "runtime.devices = 4: a batch of 46 images a node can't be shared out equally; "
         "set runtime.batch_size = 88, or runtime.devices = 2"),
        (5, {"batch": 80, "nodes": 2}, "runtime.devices = 5: there are 4 GPUs here; lower it, or set it to auto"),
        ("auto", {"batch": 97, "nodes": 2},
         "JAX_NUM_PROCESSES = 2: a batch of 97 images can't be shared out equally; set runtime.batch_size = 96"),
        (4, {"backend": "torch", "there": 4},
         "runtime.devices = 4: Keras on torch trains on one device; set KERAS_BACKEND=jax to use several, "
         "or runtime.devices = 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(machine, wanted, machine_of, message):
    with pytest.raises(UserError) as error:
        machine(wanted, **machine_of)
    assert str(error.value) == message


def test_one_device_of_whatever_backend_is_trained_on_as_it_is():
    with on_devices("pretrain", "auto", 7, "runtime.batch_size") as count:
        assert count == 1
        assert keras.distribution.distribution() is None
    assert validation_batch() == 512


@pytest.mark.parametrize("wanted", [0, -1, True, 1.5, "all", None])
def test_a_number_that_is_none_is_refused(wanted):
    shown = json.dumps(wanted)
    with pytest.raises(UserError) as error:
        compose_params([f"runtime.devices={shown}"])
    assert f"runtime.devices = {shown}: must be 'auto' or be " in str(error.value)


@pytest.mark.parametrize("step", STEPS)
def test_the_number_of_devices_is_read_by_what_trains_and_changes_no_digest(step):
    one, eight = (select(compose_params([f"runtime.devices={count}"])[0], step) for count in (1, 8))
    assert params_digest(one) == params_digest(eight)
    assert ("runtime" in one.__dict__ and hasattr(eight.runtime, "devices")) == STEPS[step].gpu


@pytest.mark.parametrize(("rows", "multiple", "added"), [(12, 8, 4), (16, 8, 0), (1, 3, 2), (5, 1, 0), (0, 8, 0)])
def test_rows_are_filled_up_to_a_multiple(rows, multiple, added):
    images = np.arange(rows * 2, dtype="uint8").reshape(rows, 2)
    found = filled(images, multiple, 9)
    assert found.dtype == images.dtype
    np.testing.assert_array_equal(found[:rows], images)
    np.testing.assert_array_equal(found[rows:], np.full((added, 2), 9))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES = 'two': must be a whole number ≥ 1"),
        ({"JAX_NUM_PROCESSES": "0"}, "JAX_NUM_PROCESSES = '0': must be a whole number ≥ 1"),
        ({"JAX_NUM_PROCESSES": "2"},
         "JAX_PROCESS_ID = '': must be a whole number from 0 to 1, as JAX_NUM_PROCESSES = 2"),
        ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"},
         "JAX_PROCESS_ID = '2': must be a whole number from 0 to 1, as JAX_NUM_PROCESSES = 2"),
        ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0", "JAX_COORDINATOR_ADDRESS": "node:6666"},
         "JAX_NUM_PROCESSES = 2: Keras on tensorflow trains in one process; set KERAS_BACKEND=jax"),
        ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0", "KERAS": "jax"},
         "JAX_COORDINATOR_ADDRESS = '': must be host:port of process 0, as JAX_NUM_PROCESSES = 2"),
    ],
)  # fmt: skip
def test_processes_that_cannot_meet_are_told_why(monkeypatch, values, message):
    monkeypatch.setattr(keras.backend, "backend", lambda: values.get("KERAS", "tensorflow"))
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    # another test may have joined already
    processes.initialize.cache_clear()
    with pytest.raises(UserError) as error:
        processes.initialize()
    assert str(error.value) == message


def test_a_step_that_is_not_shared_out_refuses_to_run_in_several_processes(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    monkeypatch.setenv("JAX_PROCESS_ID", "1")
    with pytest.raises(UserError, match="only pretrain runs in several processes; run baseline in one"):
        train_replicates("baseline", baseline, {}, tmp_path / "baseline", lambda: compose_params([])[0], [0])
    assert list(tmp_path.iterdir()) == []


def test_each_process_reads_its_own_rows_of_every_batch():
    arrays = [(np.arange(20, dtype="uint8").reshape(20, 1), np.arange(20))]
    whole = Batches(arrays, 8, seed=3)
    parts = [Batches(arrays, 8, seed=3, shard=(index, 2)) for index in range(2)]
    for one in (whole, *parts):
        one.shuffle(5)
    assert [len(one) for one in (whole, *parts)] == [2, 2, 2]
    for step in range(2):
        np.testing.assert_array_equal(np.concatenate([part[step][1] for part in parts]), whole[step][1])
        assert [len(part[step][1]) for part in parts] == [4, 4]


@pytest.mark.parametrize(
    ("flags", "backend", "cards", "expected"),
    [
        ("fpu avx512f avx512_bf16", "tensorflow", 0, "bfloat16"),
        ("fpu amx_bf16 amx_tile", "tensorflow", 0, "bfloat16"),
        # as a part of another word it says nothing
        ("fpu avx512f avx512_bf16x not_amx_bf16", "tensorflow", 0, "float32"),
        ("fpu avx512_bf16", "jax", 0, "float32"),
        ("fpu", "jax", 1, "bfloat16"),
        (None, "tensorflow", 0, "float32"),
    ],
)
def test_auto_is_half_precision_where_that_is_faster(tmp_path, monkeypatch, flags, backend, cards, expected):
    processor = tmp_path / "cpuinfo"
    if flags is not None:
        processor.write_text(f"processor\t: 0\nmodel name\t: any\nflags\t\t: {flags}\nbugs\t\t: none\n")
    monkeypatch.setattr(devices, "count_cards", lambda: cards)
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    assert precision_here("auto", processor) == expected
    assert [precision_here(name, processor) for name in ("float32", "bfloat16")] == ["float32", "bfloat16"]
