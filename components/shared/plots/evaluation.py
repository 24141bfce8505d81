"""Pictures of a comparison: training curves, accuracy, recall per class, confusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from components.shared.evaluation.evidence import Scores
from components.shared.evaluation.wording import TITLES
from components.shared.plots.style import COLORS, DASHES, MARKERS, make_figure
from components.shared.training.curves import Curve

_MAX_NAMES = 40


def draw_curves(curves: Sequence[Curve]) -> Figure | None:
    """Accuracy over epochs of every model in one plot, mean and range over seeds; None without any curve."""
    drawable = [(curve, measure) for curve in curves if (measure := curve.shown()) is not None]
    if not drawable:
        return None
    figure, axes = make_figure(7.2, 4.2)
    for curve, measure in drawable:
        color = COLORS[curve.model]
        title = TITLES[curve.model] + ("" if measure == "validation_accuracy" else " (on training batches)")
        marker = MARKERS[curve.model] if len(curve.epochs) == 1 else None
        axes.plot(
            curve.epochs,
            100 * curve.means[measure],
            DASHES[curve.model],
            color=color,
            label=title,
            linewidth=2,
            marker=marker,
        )
        axes.fill_between(
            curve.epochs,
            100 * curve.lows[measure],
            100 * curve.highs[measure],
            color=color,
            alpha=0.15,
            linewidth=0,
        )
    axes.set_xlabel("epoch")
    axes.set_ylabel("accuracy on validation (%)")
    axes.set_title("Accuracy during training: mean over seeds, band from lowest to highest")
    axes.legend(frameon=False)
    return figure


def draw_accuracies(
    scores: Mapping[str, Scores], intervals: Mapping[str, tuple[float, float]], confidence: float
) -> Figure | None:
    """Test accuracy of each model: every seed, the mean and its interval; None without any model."""
    if not scores:
        return None
    figure, axes = make_figure(7.2, 0.9 + 0.75 * len(scores))
    for row, (name, score) in enumerate(scores.items()):
        low, high = (100 * end for end in intervals[name])
        axes.plot([low, high], [row, row], color=COLORS[name], linewidth=3, alpha=0.45, solid_capstyle="butt")
        axes.plot(100 * score.accuracy, np.full(len(score.accuracy), row), "|", color="#333333", markersize=12)
        mean = 100 * score.accuracy.mean()
        axes.plot(mean, row, MARKERS[name], color=COLORS[name], markersize=9)
        axes.annotate(f"{mean:.1f}", (mean, row), (0, 11), textcoords="offset points", ha="center")
    axes.set_yticks(range(len(scores)), [TITLES[name] for name in scores])
    axes.set_ylim(len(scores) - 0.5, -0.6)
    axes.margins(x=0.08)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"accuracy on test (%): mean with its {100 * confidence:g} % interval; ticks are single seeds")
    return figure


def draw_recall(model: str, scores: Mapping[str, Scores], class_names: Sequence[str]) -> Figure:
    """Recall per class, `model` against the baseline, classes ordered by how much they gain."""
    before = 100 * scores["baseline"].recall.mean(axis=0)
    after = 100 * scores[model].recall.mean(axis=0)
    order = np.argsort(np.nan_to_num(after - before))
    if len(order) > _MAX_NAMES:
        # the ends tell the story; hundreds of rows can't be read
        order = np.concatenate([order[: _MAX_NAMES // 2], order[-_MAX_NAMES // 2 :]])
    figure, axes = make_figure(7.2, 1.3 + 0.3 * len(order))
    rows = np.arange(len(order))
    axes.hlines(rows, before[order], after[order], color="#999999", linewidth=2)
    for name, values in (("baseline", before), (model, after)):
        axes.plot(values[order], rows, MARKERS[name], color=COLORS[name], markersize=8, label=TITLES[name])
    axes.set_yticks(rows, [_short(class_names[index]) for index in order])
    axes.set_xlabel("recall on test (%), mean over seeds; the worst change comes first")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
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
    side = min(3.2 + 0.32 * classes, 12)
    figure, axes = make_figure(side + 0.9, side)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    axes.grid(visible=False)
    named = classes <= _MAX_NAMES
    ticks = range(classes) if named else []
    names = [_short(name) for name in class_names] if named else []
    axes.set_xticks(ticks, names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, names)
    if classes <= 20:
        for row, column in np.argwhere(np.rint(share) > 0):
            color = "white" if share[row, column] > 55 else "#333333"
            axes.text(column, row, f"{share[row, column]:.0f}", ha="center", va="center", color=color, fontsize=9)
    axes.set_xlabel("predicted")
    axes.set_ylabel("actual")
    axes.set_title(title)
    figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03, label="% of the actual class")
    return figure


def _short(name: str, longest: int = 18) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"
