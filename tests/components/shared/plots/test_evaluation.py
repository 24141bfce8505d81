"""Pictures of the evaluation: what is drawn where."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
from matplotlib.text import Text

from components.shared.evaluation.calibration import Coverage, Reliability
from components.shared.plots.evaluation import (
    draw_accuracies,
    draw_budgets,
    draw_confusion,
    draw_coverage,
    draw_recall,
    draw_reliability,
)


def test_budgets_are_drawn_in_percent_with_their_range_and_the_rival():
    budgets = {10: np.array([0.65, 0.7, 0.75]), 1: np.array([0.3, 0.4, 0.5])}
    axes = draw_budgets(budgets, np.array([0.6, 0.64])).axes[0]
    line, rival = axes.lines[0], axes.lines[-1]
    np.testing.assert_allclose(line.get_xdata(orig=False), [1, 10])
    np.testing.assert_allclose(line.get_ydata(orig=False), [40, 70])
    np.testing.assert_allclose(rival.get_ydata(), [62, 62])
    segments = axes.collections[0].get_segments()
    np.testing.assert_allclose([segment[:, 1] for segment in segments], [[30, 50], [65, 75]])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "10"]


def test_equal_accuracies_have_no_range_though_their_mean_is_rounded():
    values = np.array([0.1, 0.1, 0.1])
    assert draw_budgets({10: values}, values).axes[0].get_xlabel() == "labels per class"


def test_each_replicate_the_mean_and_the_interval_are_drawn():
    rows = [("finetune", "ours", np.array([0.7, 0.72, 0.8]), (0.65, 0.83))]
    axes = draw_accuracies(rows).axes[0]
    interval, ticks, mean = (line.get_xdata() for line in axes.lines)
    np.testing.assert_allclose(interval, [65, 83])
    np.testing.assert_allclose(ticks, [70, 72, 80])
    np.testing.assert_allclose(mean, [74])


def test_empty_bins_are_left_out_of_the_reliability():
    bins = Reliability(np.array([0, 4, 2]), np.array([np.nan, 0.5, 0.9]), np.array([np.nan, 0.25, 1]))
    line = draw_reliability({"finetune": bins}).axes[0].lines[1]
    np.testing.assert_allclose(line.get_xydata(), [[50, 25], [90, 100]])


def test_the_surest_few_are_left_out_of_the_coverage():
    found = Coverage(np.array([0.001, 0.5, 1]), np.array([0.0, 0.9, 0.8]), 0.7)
    figure = draw_coverage({"finetune": found}, 0.95)
    np.testing.assert_allclose(figure.axes[0].lines[0].get_xydata(), [[50, 90], [100, 80]])


def test_many_classes_are_drawn_without_names_in_the_width_of_a_page():
    wide, narrow = (draw_confusion(np.eye(n, dtype=int), ["x"] * n, "t").get_figwidth() for n in (40, 41))
    assert wide > narrow


def test_names_of_classes_and_models_are_drawn_as_written():
    name = "US$_and_$2"
    scores = {model: SimpleNamespace(recall=np.ones((2, 2))) for model in ("baseline", "finetune")}
    rows = [("finetune", name, np.array([0.7, 0.8]), (0.6, 0.9))]
    confusion = draw_confusion(np.eye(2, dtype=int), [name, "b"], name)
    for figure in (confusion, draw_recall("finetune", scores, [name, "b"]), draw_accuracies(rows)):
        figure.savefig(io.BytesIO())
        assert name in {text.get_text() for text in figure.findobj(Text)}
