"""TensorBoard and Weights & Biases get the curves of trainings, where a variable asks for them."""

from __future__ import annotations

import importlib.util

import pytest
import tensorflow as tf

from components.shared.errors import UserError
from components.shared.tracking import loggers
from components.shared.tracking.run import tracked
from components.shared.training.curves import Curves

WITHOUT_WANDB = importlib.util.find_spec("wandb") is None


def train(name):
    """A training of two epochs; returns its run."""
    with tracked("baseline", {"runtime": {"epochs": 2}}, "p", {}, name, seed=3) as run:
        curves = Curves(run)
        for epoch in (1, 2):
            curves.log(epoch, {"learning_rate": 0.1})
            curves.add(epoch, {"loss": 1 / epoch, "validation_accuracy": epoch / 4})
    return run


def events(file):
    """(step, tag, value) of an event file."""
    found = [tf.compat.v1.Event.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(file))]
    assert found[0].file_version == "brain.Event:2"
    return [(event.step, value.tag, value.simple_value) for event in found[1:] for value in event.summary.value]


def test_tensorboard_gets_the_curves_of_a_training_and_nothing_of_other_steps(tracking_uri, in_tmp, monkeypatch):
    monkeypatch.setenv(loggers.TENSORBOARD, "runs")
    run = train("drawn")
    with tracked("champion", {}, "p", {}, "drawn"):
        pass
    (file,) = (path for path in (in_tmp / "runs").rglob("*") if path.is_file())
    assert file.parent == in_tmp / "runs" / "contrastive-drawn" / f"baseline-3-{run.id[:8]}"
    assert events(file) == [
        (epoch, tag, pytest.approx(value))
        for epoch in (1, 2)
        for tag, value in (
            ("train/learning_rate", 0.1), ("train/loss", 1 / epoch), ("validation/accuracy", epoch / 4),
        )
    ]  # fmt: skip


def test_without_the_variables_nothing_is_written(tracking_uri, in_tmp):
    train("plain")
    assert list(in_tmp.iterdir()) == []


def test_a_logger_that_breaks_does_not_end_the_training(tracking_uri, in_tmp, monkeypatch, capsys):
    def full(self, values, step):
        raise OSError("no space left on device")

    monkeypatch.setenv(loggers.TENSORBOARD, "runs")
    monkeypatch.setattr(loggers._TensorBoard, "log", full)
    train("full")
    said = [line for line in capsys.readouterr().err.splitlines() if "TensorBoard" in line]
    assert said == ["warning: TensorBoard: no space left on device; it gets no more curves"]


def test_a_folder_that_can_t_be_written_is_refused_before_the_run(tracking_uri, in_tmp, monkeypatch):
    (in_tmp / "file").touch()
    monkeypatch.setenv(loggers.TENSORBOARD, "file/runs")
    with pytest.raises(UserError, match="what TensorBoard shows can't be written there"):
        train("refused")


@pytest.mark.skipif(not WITHOUT_WANDB, reason="wandb is installed")
def test_w_and_b_that_is_not_installed_is_an_error_in_one_line(tracking_uri, in_tmp, monkeypatch):
    monkeypatch.setenv(loggers.WANDB, "textures")
    with pytest.raises(
        UserError, match=r"^CONTRASTIVE_WANDB = textures: wandb is not installed; install it, or un"
    ):
        train("absent")


@pytest.mark.skipif(WITHOUT_WANDB, reason="wandb is not installed, and no part of the locked environment")
def test_w_and_b_keeps_a_run_while_it_is_offline(tracking_uri, in_tmp, monkeypatch):
    monkeypatch.setenv(loggers.WANDB, "textures")
    monkeypatch.setenv("WANDB_MODE", "offline")
    train("offline")
    (folder,) = (in_tmp / "wandb").glob("offline-run-*")
    assert next(folder.glob("run-*.wandb")).stat().st_size > 0
