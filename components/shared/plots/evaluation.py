"""Pictures of a comparison: training curves, accuracy, recall per class, confusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from components.shared.evaluation.calibration import Coverage, Reliability
from components.shared.evaluation.evidence import Scores
from components.shared.evaluation.wording import TITLES
from components.shared.plots.style import COLORS, DASHES, MARKERS, WIDTH, make_figure
from components.shared.training.curves import Curve

_MAX_NAMES = 40


def draw_curves(curves: Sequence[Curve]) -> Figure | None:
    """Accuracy over epochs of every model in one plot, mean and range over replicates; None without any curve."""
    drawable = [(curve, measure) for curve in curves if (measure := curve.measure_to_draw()) is not None]
    if not drawable:
        return None
    figure, axes = make_figure(3.6)
    for curve, measure in drawable:
        name, means = curve.model, 100 * curve.means[measure]
        title = TITLES[name] + ("" if measure == "validation_accuracy" else " (on training batches)")
        marker = MARKERS[name] if len(means) == 1 else None
        axes.plot(means.index, means, DASHES[name], color=COLORS[name], label=title, linewidth=2, marker=marker)
        low, high = 100 * curve.lows[measure], 100 * curve.highs[measure]
        axes.fill_between(means.index, low, high, color=COLORS[name], alpha=0.15, linewidth=0)
    axes.set_xlabel("epoch")
    on_validation = all(measure == "validation_accuracy" for _, measure in drawable)
    axes.set_ylabel("accuracy on validation (%)" if on_validation else "accuracy (%)")
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0.0, 1.0))
    return figure


def draw_accuracies(rows: Sequence[tuple[str, str, np.ndarray, tuple[float, float]]]) -> Figure:
    """Test accuracy of each model: every replicate, the mean and its interval.

    Args:
        rows: at least one: name for the look, title, accuracies (replicates,), interval; fractions.
    """
    figure, axes = make_figure(0.9 + 0.6 * len(rows))
    for row, (name, _, values, interval) in enumerate(rows):
        low, high = (100 * end for end in interval)
        axes.plot([low, high], [row, row], color=COLORS[name], linewidth=3, alpha=0.45, solid_capstyle="butt")
        axes.plot(100 * values, np.full(len(values), row), "|", color="#333333", markersize=12)
        mean = 100 * values.mean()
        axes.plot(mean, row, MARKERS[name], color=COLORS[name], markersize=9)
        axes.annotate(f"{mean:.1f}", (mean, row), (0, 9), textcoords="offset points", ha="center", fontsize=9)
    axes.set_yticks(range(len(rows)), [title for _, title, *_ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.7)
    axes.margins(x=0.08)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("accuracy on test (%)")
    return figure


def draw_recall(model: str, scores: Mapping[str, Scores], class_names: Sequence[str]) -> Figure:
    """Recall per class, `model` against the baseline, classes ordered by how much they gain."""
    before = 100 * scores["baseline"].recall.mean(axis=0)
    after = 100 * scores[model].recall.mean(axis=0)
    order = np.argsort(np.nan_to_num(after - before))
    if len(order) > _MAX_NAMES:
        # the ends tell the story; hundreds of rows can't be read
        order = np.concatenate([order[: _MAX_NAMES // 2], order[-_MAX_NAMES // 2 :]])
    figure, axes = make_figure(1.3 + 0.27 * len(order))
    rows = np.arange(len(order))
    axes.hlines(rows, before[order], after[order], color="#999999", linewidth=2)
    for name, values in (("baseline", before), (model, after)):
        axes.plot(values[order], rows, MARKERS[name], color=COLORS[name], markersize=8, label=TITLES[name])
    axes.set_yticks(rows, [_short(class_names[index]) for index in order])
    axes.set_xlabel("recall on test (%)")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2, columnspacing=1)
    return figure


def draw_confusion(counts: np.ndarray, class_names: Sequence[str], title: str) -> Figure:
    """Confusion matrix in per cent of each actual class.

    Args:
        counts: int, shape (classes, classes); row = actual, column = predicted.
        class_names: in the order of rows and columns.
        title: above the picture.
    """
    classes = len(counts)
    share = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    named = classes <= _MAX_NAMES
    side = 2.2 + 0.28 * classes if named else WIDTH
    figure, axes = make_figure(side, side + 0.3)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    axes.grid(visible=False)
    ticks = range(classes) if named else []
    names = [_short(name) for name in class_names] if named else []
    axes.set_xticks(ticks, names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, names)
    if classes <= 20:
        for row, column in np.argwhere(np.rint(share) > 0):
            color = "white" if share[row, column] > 55 else "#333333"
            axes.text(column, row, f"{share[row, column]:.0f}", ha="center", va="center", color=color, fontsize=9)
    axes.set_title(title)
    figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03, label="% of the actual class")
    return figure


def draw_reliability(bins: Mapping[str, Reliability]) -> Figure:
    """How often answers of a confidence are right, per model; on the diagonal, confidence means what it says."""
    figure, axes = make_figure(4.2, 4.2)
    axes.plot([0, 100], [0, 100], color="#777777", linewidth=1, label="as it should be")
    for name, found in bins.items():
        known = found.images > 0
        look = {"color": COLORS[name], "marker": MARKERS[name], "linestyle": DASHES.get(name, "-")}
        axes.plot(100 * found.confidence[known], 100 * found.accuracy[known], label=TITLES[name], **look)
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.set_aspect("equal")
    axes.set_xlabel("confidence (%)")
    axes.set_ylabel("right among them (%)")
    axes.legend(frameon=False, loc="lower right")
    return figure


def draw_coverage(curves: Mapping[str, Coverage], wanted: float) -> Figure:
    """Accuracy on the share of images that a model is surest of, and the accuracy that is wanted."""
    figure, axes = make_figure(4.2, 4.2)
    for name, found in curves.items():
        look = {"color": COLORS[name], "linestyle": DASHES.get(name, "-")}
        # of the surest few, one wrong answer is a cliff
        shown = found.coverage >= 0.02
        axes.plot(100 * found.coverage[shown], 100 * found.accuracy[shown], label=TITLES[name], linewidth=2, **look)
    axes.axhline(100 * wanted, color="#777777", linewidth=1, linestyle=":", label=f"{wanted:.0%} right")
    axes.set_xlim(0, 100)
    axes.set_ylim(top=100.5)
    axes.set_xlabel("images answered, the surest first (%)")
    axes.set_ylabel("right among them (%)")
    axes.legend(frameon=False, loc="lower left")
    return figure


def draw_budgets(budgets: Mapping[int, np.ndarray], baseline: np.ndarray) -> Figure:
    """Test accuracy of the linear probe over labels per class: mean, and range over replicates.

    Args:
        budgets: labels per class → accuracies (replicates,).
        baseline: accuracies of the baseline, which has all labels, (replicates,).
    """
    figure, axes = make_figure(3.4)
    labels = sorted(budgets)
    values = 100 * np.stack([budgets[label] for label in labels])
    means = values.mean(axis=1)
    reach = np.maximum(np.stack([means - values.min(axis=1), values.max(axis=1) - means]), 0)
    look = {"marker": MARKERS["probe"], "color": COLORS["probe"]}
    axes.errorbar(labels, means, yerr=reach, capsize=3, label=TITLES["probe"], **look)
    line = {"color": COLORS["baseline"], "linestyle": DASHES["baseline"]}
    axes.axhline(100 * baseline.mean(), label=f"{TITLES['baseline']}, all labels", **line)
    axes.set_xscale("log")
    axes.set_xticks(labels, [f"{label:g}" for label in labels])
    axes.minorticks_off()
    axes.set_xlabel("labels per class")
    axes.set_ylabel("accuracy on test (%)")
    axes.legend(frameon=False)
    return figure


def _short(name: str, longest: int = 18) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"
