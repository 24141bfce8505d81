"""Ending a pretraining early: when, that a killed run ends where another does, and what is refused."""

from __future__ import annotations

import csv

import keras
import numpy as np
import pytest

from components.pretrain import pretrain
from components.shared.errors import UserError
from components.shared.params.composing import compose_params
from components.shared.params.schema import select
from components.shared.training.monitor import Monitor
from components.shared.training.stopping import LOWER, best_epoch, is_over
from tests.helpers.datasets import make_dataset

SMALL = (
    "encoder=conv_small", "encoder.width=8", "method.projection.hidden=16", "method.projection.width=8",
    "runtime.batch_size=32", "runtime.epochs=9", "monitor.every=2",
)  # fmt: skip


def params(*overrides):
    return select(compose_params([*SMALL, *overrides])[0], "pretrain")


def monitor(figure, patience):
    return params(f"monitor.stop_by={figure}", f"monitor.stop_after={patience}").monitor


def rows(values, figure="knn_accuracy"):
    """A row an epoch from 1; None: not measured."""
    return [{"epoch": e, "loss": 1.0} | ({} if v is None else {figure: v}) for e, v in enumerate(values, 1)]


@pytest.mark.parametrize("figure", ["knn_accuracy", "validation_view_top5", *LOWER])
@pytest.mark.parametrize("patience", [1, 2, 3])
def test_it_ends_where_so_many_epochs_brought_nothing_better(figure, patience):
    sign = -1 if figure in LOWER else 1
    values = sign * np.random.default_rng(patience).integers(0, 9, 40).astype(float)
    # a plain loop that counts epochs without a new best
    best, waited, expected = -np.inf, 0, []
    for value in sign * values:
        best, waited = (value, 0) if value > best else (best, waited + 1)
        expected.append(waited >= patience)
    assert any(expected) and not all(expected)
    options = monitor(figure, patience)
    assert [is_over(rows(values[:n], figure), options) for n in range(1, 41)] == expected


def test_epochs_that_are_not_measured_count_and_decide_nothing():
    options = monitor("knn_accuracy", 3)
    values = [None, 0.5, None, 0.4, None, 0.4]
    assert [is_over(rows(values[:n]), options) for n in range(7)] == [False] * 6 + [True]
    assert best_epoch(rows(values), "knn_accuracy") == (2, 6)


def test_what_is_no_number_is_never_best_and_nothing_is_asked_by_default():
    assert best_epoch(rows([np.nan, 0.1, np.nan]), "knn_accuracy") == (2, 3)
    assert best_epoch([], "knn_accuracy") == (0, 0)
    assert not is_over(rows([0.5] * 100), params().monitor)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data") / "dataset", name="stopping")


def curves(folder):
    with (folder / "curves.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_training_ends_early_and_a_killed_one_goes_on_to_the_same_end(
    dataset, tracking_uri, tmp_path, monkeypatch, capsys
):
    states = tmp_path / "states"
    whole = pretrain(dataset, tmp_path / "whole", params(), 0, states)
    assert whole.details["epochs"] == 9 and "ended" not in capsys.readouterr().out
    # what never improves after the first epochs ends it as soon as may be
    losses = [float(row["validation_probe_loss"]) for row in curves(tmp_path / "whole")]
    figure = "validation_probe_loss" if losses[1] > losses[0] else "validation_probe_accuracy"
    chosen = params(f"monitor.stop_by={figure}", "monitor.stop_after=2")
    early = pretrain(dataset, tmp_path / "early", chosen, 0, states)
    found, all_rows = curves(tmp_path / "early"), curves(tmp_path / "whole")
    ends = early.details["epochs"]
    assert 3 <= ends < 9 and [row["epoch"] for row in found] == [str(n) for n in range(1, ends + 1)]
    assert (
        f"pretrain: ended after epoch {ends}: {figure} was best after epoch {ends - 2}" in capsys.readouterr().out
    )
    # so far it was the same training, and what is measured at the end was
    assert [row["contrastive_loss"] for row in found] == [row["contrastive_loss"] for row in all_rows[:ends]]
    assert found[-1]["knn_accuracy"] and early.metrics["knn_accuracy"] == float(found[-1]["knn_accuracy"])

    def interrupt(*arguments):
        raise KeyboardInterrupt

    # killed after its last epoch, before anything was written
    with monkeypatch.context() as patched:
        patched.setattr("components.shared.training.pretraining.draw_rows", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pretrain(dataset, tmp_path / "killed", chosen, 0, states)
    again = pretrain(dataset, tmp_path / "killed", chosen, 0, states)
    assert f"going on after epoch {ends}" in capsys.readouterr().out
    assert again.metrics == early.metrics and again.details == early.details
    one, other = (keras.saving.load_model(tmp_path / name / "encoder.keras") for name in ("early", "killed"))
    for kept, expected in zip(other.get_weights(), one.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, expected)


def test_the_epoch_that_ends_a_training_is_measured_once(dataset, tracking_uri, tmp_path, monkeypatch):
    look, epochs = Monitor._shape, []

    def watched(self):
        epochs.append(1)
        return look(self)

    monkeypatch.setattr(Monitor, "_shape", watched)
    # without a step nothing gets better
    still = ("monitor.stop_by=knn_accuracy", "monitor.stop_after=1", "monitor.every=1", "optimizer=adam")
    rate = ("method.optimizer.learning_rate=1e-12", "method.optimizer.warmup_epochs=0")
    record = pretrain(dataset, tmp_path / "encoder", params(*still, *rate), 0, tmp_path / "states")
    assert len(epochs) == record.details["epochs"] == 2


@pytest.mark.parametrize(
    ("figure", "counts", "options", "why"),
    [
        ("knn_accuracy", {"validation": 0}, (), "the dataset has 0 validation images"),
        ("validation_view_top5", {"validation": 1}, (), "the dataset has 1 validation images"),
        ("knn_accuracy", {"train": 0}, (), "the dataset has no labelled training images"),
        (
            "validation_view_rank",
            {},
            ("method=supcon", "method.views=1", "method.unlabelled=leave_out"),
            "the method has one view of each image",
        ),
    ],
)
def test_a_figure_that_is_never_measured_is_refused(tracking_uri, tmp_path, figure, counts, options, why):
    made = make_dataset(tmp_path / "dataset", **counts)
    message = rf"^monitor.stop_by = {figure}: is never measured: {why}; set it to null$"
    with pytest.raises(UserError, match=message):
        pretrain(made, tmp_path / "out", params(*options, f"monitor.stop_by={figure}"), 0, tmp_path / "states")
    assert not (tmp_path / "out").exists()


def test_a_figure_that_is_never_due_is_refused():
    with pytest.raises(UserError, match=r"monitor\.stop_by = knn_accuracy: is never measured with every = 0; set"):
        params("monitor.stop_by=knn_accuracy", "monitor.every=0")
