"""Pictures of a comparison: training curves, accuracy, recall of each class, confusion.

Colours are Okabe and Ito's, which readers with any colour vision tell apart; shape or line style says it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from components.shared.evaluation.gate import Scores
from components.shared.training.curves import PRETRAINING_PROBE, Curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {
    "baseline": "baseline (from scratch)",
    "probe": "linear probe",
    "finetune": "fine-tuned",
    PRETRAINING_PROBE: "probe during pretraining",
}
COLOURS = {"baseline": "#D55E00", "probe": "#009E73", "finetune": "#0072B2", PRETRAINING_PROBE: "#009E73"}
MARKERS = {"baseline": "s", "probe": "^", "finetune": "o", PRETRAINING_PROBE: "^"}
_DASHES = {"baseline": "--", "finetune": "-", PRETRAINING_PROBE: ":"}
_MAX_NAMES = 40


def draw_curves(curves: Sequence[Curve]) -> Figure | None:
    """Accuracy over epochs of every model in one plot, mean and range over seeds; None without any curve."""
    drawable = [(curve, measure) for curve in curves if (measure := curve.shown()) is not None]
    if not drawable:
        return None
    figure, axes = _figure(7.2, 4.2)
    for curve, measure in drawable:
        colour = COLOURS[curve.model]
        title = TITLES[curve.model] + ("" if measure == "validation_accuracy" else " (on training batches)")
        marker = MARKERS[curve.model] if len(curve.epochs) == 1 else None
        axes.plot(
            curve.epochs,
            100 * curve.means[measure],
            _DASHES[curve.model],
            color=colour,
            label=title,
            linewidth=2,
            marker=marker,
        )
        axes.fill_between(
            curve.epochs,
            100 * curve.lows[measure],
            100 * curve.highs[measure],
            color=colour,
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
    figure, axes = _figure(7.2, 0.9 + 0.75 * len(scores))
    for row, (name, score) in enumerate(scores.items()):
        low, high = (100 * end for end in intervals[name])
        axes.plot([low, high], [row, row], color=COLOURS[name], linewidth=3, alpha=0.45, solid_capstyle="butt")
        axes.plot(100 * score.accuracy, np.full(len(score.accuracy), row), "|", color="#333333", markersize=12)
        mean = 100 * score.accuracy.mean()
        axes.plot(mean, row, MARKERS[name], color=COLOURS[name], markersize=9)
        axes.annotate(f"{mean:.1f}", (mean, row), (0, 11), textcoords="offset points", ha="center")
    axes.set_yticks(range(len(scores)), [TITLES[name] for name in scores])
    axes.set_ylim(len(scores) - 0.5, -0.6)
    axes.margins(x=0.08)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"accuracy on test (%): mean with its {100 * confidence:g} % interval; ticks are single seeds")
    return figure


def draw_recall(model: str, scores: Mapping[str, Scores], class_names: Sequence[str]) -> Figure:
    """Recall of each class, `model` against the baseline, classes ordered by how much they gain."""
    before = 100 * scores["baseline"].recall.mean(axis=0)
    after = 100 * scores[model].recall.mean(axis=0)
    order = np.argsort(np.nan_to_num(after - before))
    if len(order) > _MAX_NAMES:
        # the ends tell the story; hundreds of rows can't be read
        order = np.concatenate([order[: _MAX_NAMES // 2], order[-_MAX_NAMES // 2 :]])
    figure, axes = _figure(7.2, 1.3 + 0.3 * len(order))
    rows = np.arange(len(order))
    axes.hlines(rows, before[order], after[order], color="#999999", linewidth=2)
    for name, values in (("baseline", before), (model, after)):
        axes.plot(values[order], rows, MARKERS[name], color=COLOURS[name], markersize=8, label=TITLES[name])
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
    figure, axes = _figure(side + 0.9, side)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    axes.grid(visible=False)
    named = classes <= _MAX_NAMES
    ticks = range(classes) if named else []
    names = [_short(name) for name in class_names] if named else []
    axes.set_xticks(ticks, names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, names)
    if classes <= 20:
        for row, column in np.argwhere(np.rint(share) > 0):
            colour = "white" if share[row, column] > 55 else "#333333"
            axes.text(column, row, f"{share[row, column]:.0f}", ha="center", va="center", color=colour, fontsize=9)
    axes.set_xlabel("predicted")
    axes.set_ylabel("actual")
    axes.set_title(title)
    figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03, label="% of the actual class")
    return figure


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)  # type: ignore[union-attr,call-arg]
    axes = figure.subplots()
    axes.grid(color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.title.set_fontsize(11)
    return figure, axes


def _short(name: str, longest: int = 18) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"
