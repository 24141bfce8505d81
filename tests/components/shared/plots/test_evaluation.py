"""Pictures of the evaluation: what is drawn where."""

from __future__ import annotations

import io
import json
import re
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from components.shared.evaluation.calibration import Coverage, Reliability
from components.shared.plots.evaluation import (
    draw_accuracies,
    draw_budgets,
    draw_confusion,
    draw_coverage,
    draw_curves,
    draw_map,
    draw_pretraining,
    draw_recall,
    draw_reliability,
)
from components.shared.plots.style import COLORS
from components.shared.plots.svg import inline_svg
from components.shared.training.curves import Curve
from tests.helpers.repository import ROOT


def drawn_lines(axes, color):
    """Lines between points, of one colour; the markers of the mouse, and the ends of ranges, are none."""
    return [line for line in axes.lines if line.get_color() == color and line.get_linestyle() != "None"]


def test_budgets_are_drawn_in_percent_with_their_range_and_the_rival():
    probe = {10: np.array([0.65, 0.7, 0.75]), 1: np.array([0.3, 0.4, 0.5])}
    axes = draw_budgets({"baseline": {1: np.array([0.2, 0.3]), 10: np.array([0.6, 0.64])}, "probe": probe}).axes[0]
    (line,) = drawn_lines(axes, COLORS["probe"])
    np.testing.assert_allclose(line.get_xdata(orig=False), [1, 10])
    np.testing.assert_allclose(line.get_ydata(orig=False), [40, 70])
    rival, all_labels = drawn_lines(axes, COLORS["baseline"])
    np.testing.assert_allclose(rival.get_ydata(orig=False), [25, 62])
    np.testing.assert_allclose(all_labels.get_ydata(), [62, 62])
    segments = axes.collections[1].get_segments()
    np.testing.assert_allclose([segment[:, 1] for segment in segments], [[30, 50], [65, 75]])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "10"]


def test_equal_accuracies_have_no_range_though_their_mean_is_rounded():
    values = np.array([0.1, 0.1, 0.1])
    assert draw_budgets({"probe": {10: values}}).axes[0].get_xlabel() == "labels per class"


def curve(model, epochs, **measures):
    table = pd.DataFrame(measures, index=epochs, dtype=float)
    return Curve(model, table, table, table)


def test_trainings_of_any_length_are_drawn_over_their_own_on_validation_where_it_was_measured():
    curves = [
        curve("baseline", [300, 600], accuracy=[0.5, 0.9], loss=[2, 1], validation_loss=[np.nan, np.nan]),
        curve("finetune", [1, 2, 4], accuracy=[0.5, 0.6, 0.7], loss=[3, 2, 1], validation_loss=[5, np.nan, 4]),
    ]
    axes = draw_curves(curves, "loss").axes[0]
    baseline, finetune = axes.lines
    np.testing.assert_allclose(baseline.get_xydata(), [[50, 2], [100, 1]])
    np.testing.assert_allclose(finetune.get_xydata(), [[25, 5], [100, 4]])
    said = [text.get_text() for text in axes.get_legend().get_texts()]
    assert said == [
        "baseline, from scratch, 600 epochs (on training batches)", "fine-tuned model, 4 epochs (on validation)",
    ]  # fmt: skip
    np.testing.assert_allclose(draw_curves(curves).axes[0].lines[1].get_ydata(), [50, 60, 70])
    assert draw_curves([curve("baseline", [1], loss=[1])]) is None


def test_the_pretraining_is_drawn_by_epoch_as_far_as_it_was_measured():
    found = curve("pretraining", [1, 2, 3], top1=[0.1, 0.2, 0.4], probe=[np.nan, 0.5, np.nan], none=[np.nan] * 3)
    measures = {"top1": "view found", "probe": "probe", "none": "nothing"}
    axes = draw_pretraining(found, measures, "accuracy (%)", shares=True).axes[0]
    lines = [line for line in axes.lines if line.get_linestyle() != "None"]
    assert [line.get_label() for line in lines] == ["view found", "probe"]
    np.testing.assert_allclose(lines[0].get_xydata(), [[1, 10], [2, 20], [3, 40]])
    np.testing.assert_allclose(lines[1].get_xydata(), [[2, 50]])
    said = [line.get_gid() for line in axes.lines if line.get_gid()]
    assert said[0] == "tip:view found, epoch 1: 10.0 %" and len(said) == 4
    assert draw_pretraining(found, {"none": "nothing", "missing": "nothing"}, "loss") is None


def test_a_map_rings_what_is_answered_wrong():
    points, labels = np.arange(12.0).reshape(6, 2), np.array([0, 0, 1, 1, 2, 2])
    axes = draw_map(points, labels, np.array([0, 1, 1, 1, 2, 0]), ["a", "b", "c"]).axes[0]
    said = {line.get_gid(): line.get_xydata() for line in axes.lines if line.get_gid()}
    np.testing.assert_allclose(said["tip:b"], points[2:4])
    np.testing.assert_allclose(said["tip:a, taken for b"], points[1:2])
    np.testing.assert_allclose(said["tip:c, taken for a"], points[5:])
    assert len(said) == 3 + 2
    # of many classes no two look alike
    looks = draw_map(np.zeros((60, 2)), np.arange(60), np.arange(60), [str(n) for n in range(60)]).axes[0].lines
    assert len({(line.get_color(), line.get_marker()) for line in looks if line.get_gid()}) == 60


def test_a_figure_in_a_page_is_in_its_colours_says_what_the_mouse_asks_and_shares_no_name():
    rows = [("finetune", "<ours>", np.array([0.7, 0.72]), (0.65, 0.83))]
    figures = [inline_svg(draw_accuracies(rows), name, 'a "quoted" <text>') for name in ("one", "two")]
    assert figures[0] == inline_svg(draw_accuracies(rows), "one", 'a "quoted" <text>')
    ids = [set(re.findall(r' id="([^"]+)"', figure)) for figure in figures]
    assert ids[0] and not ids[0] & ids[1]
    for figure, own in zip(figures, ids, strict=True):
        root = ElementTree.fromstring(figure)
        assert root.get("aria-label") == 'a "quoted" <text>'
        assert "<ours>: 71.0 %, 65.0 to 83.0" in [node.text for node in root.iter("title")]
        assert set(re.findall(r"(?:url\(|href=\")#([^\")]+)", figure)) <= own
        assert "#000000" not in figure and "currentColor" in figure and "var(--line)" in figure
        assert not re.findall(r"https?:|font:|<metadata", figure)


def test_the_plots_of_dvc_have_the_colours_of_the_report():
    scale = json.loads((ROOT / ".dvc/plots/models.json").read_text())["encoding"]["color"]["scale"]
    models = [file.split("/")[0] for file in scale["domain"]]
    assert scale["range"] == [COLORS[model] for model in models] and models == ["baseline", "finetune"]
    pretraining = json.loads((ROOT / ".dvc/plots/seeds.json").read_text())["encoding"]["color"]
    assert pretraining == {"value": COLORS["probe"]}


def test_each_replicate_the_mean_and_the_interval_are_drawn():
    rows = [("finetune", "ours", np.array([0.7, 0.72, 0.8]), (0.65, 0.83))]
    axes = draw_accuracies(rows).axes[0]
    interval, ticks, mean = (line.get_xdata() for line in axes.lines)
    np.testing.assert_allclose(interval, [65, 83])
    np.testing.assert_allclose(ticks, [70, 72, 80])
    np.testing.assert_allclose(mean, [74])


def test_empty_bins_are_left_out_of_the_reliability():
    bins = Reliability(np.array([0, 4, 2]), np.array([np.nan, 0.5, 0.9]), np.array([np.nan, 0.25, 1]))
    axes = draw_reliability({"finetune": bins}).axes[0]
    np.testing.assert_allclose(axes.lines[1].get_xydata(), [[50, 25], [90, 100]])
    assert [line.get_gid() for line in axes.lines if line.get_gid()] == [
        "tip:fine-tuned model: 25.0 % right at a mean confidence of 50.0 %, 4 images",
        "tip:fine-tuned model: 100.0 % right at a mean confidence of 90.0 %, 2 images",
    ]


def test_the_surest_few_are_left_out_of_the_coverage():
    found = Coverage(np.array([0.001, 0.5, 1]), np.array([0.0, 0.9, 0.8]), 0.7)
    figure = draw_coverage({"finetune": found}, 0.95)
    np.testing.assert_allclose(figure.axes[0].lines[0].get_xydata(), [[50, 90], [100, 80]])
    assert [line.get_gid() for line in figure.axes[0].lines if line.get_gid()] == [
        "tip:fine-tuned model: 90.0 % right of the surest 50 %",
        "tip:fine-tuned model: 80.0 % right of the surest 100 %",
    ]


def test_many_classes_are_drawn_without_names_in_the_width_of_a_page():
    wide, narrow = (draw_confusion(np.eye(n, dtype=int), ["x"] * n, "t", "probe").get_figwidth() for n in (40, 41))
    assert wide > narrow


@pytest.mark.parametrize("classes", [2, 5, 10, 41])
def test_the_title_of_a_confusion_is_as_wide_as_its_picture_at_most(classes):
    title = "Confusion of the linear probe that ships"
    figure = draw_confusion(np.eye(classes, dtype=int), ["x"] * classes, title, "probe")
    figure.draw_without_rendering()
    (drawn,) = (text for text in figure.findobj(Text) if text.get_text().split() == title.split())
    box = drawn.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height


def test_names_of_classes_and_models_are_drawn_as_written():
    name = "US$_and_$2"
    scores = {model: SimpleNamespace(recall=np.ones((2, 2))) for model in ("baseline", "finetune")}
    rows = [("finetune", name, np.array([0.7, 0.8]), (0.6, 0.9))]
    confusion = draw_confusion(np.eye(2, dtype=int), [name, "b"], name, "probe")
    for figure in (confusion, draw_recall("finetune", scores, [name, "b"]), draw_accuracies(rows)):
        figure.savefig(io.BytesIO())
        assert name in {text.get_text() for text in figure.findobj(Text)}
