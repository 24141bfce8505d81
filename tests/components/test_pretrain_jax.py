"""Pretraining on the JAX backend: it can be killed and goes on, and TensorFlow opens the encoder."""

from __future__ import annotations

import signal
import subprocess
import sys

import keras
import numpy as np
import pytest

from components.shared.artifacts import Dataset, Result, read_record
from components.shared.params.composing import compose_params, write_params
from tests.helpers.datasets import make_dataset
from tests.helpers.repository import on_jax

# dies as soon as the state of the first epoch is kept
DYING = """
import os, signal
from components.pretrain import pretrain
from components.shared.training.checkpoints import Checkpoint
from components.shared.step import command_line

save = Checkpoint.save

def save_and_die(self, *state):
    save(self, *state)
    os.kill(os.getpid(), signal.SIGKILL)

Checkpoint.save = save_and_die
command_line("pretrain", pretrain)
"""


def run(program, folder, dataset):
    """The step on JAX, in a folder of its own."""
    return subprocess.run(
        [sys.executable, *program, "--dataset", dataset],
        cwd=folder,
        env=on_jax(folder.parent / "compiled"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )


@pytest.mark.slow
def test_a_killed_run_on_jax_ends_as_if_nothing_had_happened(tracking_uri, tmp_path):
    dataset = make_dataset(tmp_path / "dataset", name="pretraining")
    small = ("encoder.width=8", "method.projection.hidden=16", "method.projection.width=8", "runtime.batch_size=32")
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        write_params(
            compose_params([*small, "runtime.epochs=2", "runtime.replicates=[0]"])[1],
            tmp_path / name / "params.yaml",
        )
    step = ["-m", "components.pretrain"]
    whole = run(step, tmp_path / "whole", dataset)
    assert whole.returncode == 0, whole.stdout
    died = run(["-c", DYING], tmp_path / "killed", dataset)
    assert died.returncode == -signal.SIGKILL, died.stdout
    assert not (tmp_path / "killed" / "encoder").exists()
    again = run(step, tmp_path / "killed", dataset)
    assert again.returncode == 0, again.stdout
    assert "going on after epoch 1" in again.stdout

    folders = [tmp_path / name / "encoder" / "0" for name in ("whole", "killed")]
    curves = [(folder / "curves.csv").read_text() for folder in folders]
    assert len(curves[0].splitlines()) == 3
    assert curves[0] == curves[1]
    records = [read_record(folder, Result) for folder in folders]
    assert records[0].metrics == records[1].metrics
    encoders = [keras.saving.load_model(folder / "encoder.keras", compile=False) for folder in folders]
    for one, two in zip(*(encoder.get_weights() for encoder in encoders), strict=True):
        np.testing.assert_array_equal(one, two)
    # this process runs on another backend
    assert keras.backend.backend() == "tensorflow"
    features = np.asarray(encoders[0](np.asarray(Dataset(dataset).images("test"))))
    assert np.isfinite(features).all()
    assert features.std(axis=0).max() > 0
