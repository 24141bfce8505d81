"""Pictures of a comparison: training curves, accuracy, recall per class, confusion."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from components.shared.evaluation.calibration import Coverage, Reliability
from components.shared.evaluation.evidence import Scores
from components.shared.evaluation.wording import TITLES, hundredths, percent, span
from components.shared.plots.style import COLORS, DASHES, MARKERS, WIDTH, make_figure
from components.shared.plots.svg import dot, tip
from components.shared.training.curves import Curve

# the probe's colour for what is the pretraining's, and others that no model has
_PRETRAINING_LOOKS = ((COLORS["probe"], "-"), ("#CC79A7", "--"), ("#7A7A7A", ":"))
# points of a curve that tell their number
_TIPS = 60
_MAX_NAMES = 40
# a page has no place for the names of more
_MAX_LEGEND = 20
# of classes: mostly Tol's muted ones, since those of models mean a model everywhere; shapes say it again
_CLASS_COLORS = ("#88CCEE", "#CC6677", "#B5A03C", "#44AA99", "#AA4499", "#6F7FD8", "#8A8A8A", "#B06A2C")
_CLASS_MARKERS = "osD^vPX*"


def draw_curves(curves: Sequence[Curve], kind: str = "accuracy") -> Figure | None:
    """Accuracy or loss of every model in one plot, mean and range over replicates; None without any curve.

    Trainings of 14 and of 600 epochs stand side by side: they are drawn over the share of their own length.

    Args:
        curves: of the models.
        kind: "accuracy", or "loss" in nats.
    """
    drawable = [(curve, measure) for curve in curves if (measure := curve.measure_to_draw(kind)) is not None]
    if not drawable:
        return None
    figure, axes = make_figure(3.7)
    places = {_place(curve, measure == kind) for curve, measure in drawable}
    shares, mixed = kind == "accuracy", len(places) > 1
    scale = 100 if shares else 1
    for curve, measure in drawable:
        name, means = curve.model, curve.means[measure].dropna()
        epochs = f"{curve.means.index.max():,.0f} epochs"
        title = f"{TITLES[name]}, {epochs}" + (f" ({_place(curve, measure == kind)})" if mixed else "")
        done = 100 * means.index / curve.means.index.max()
        marker = MARKERS[name] if len(means) == 1 else None
        look = {"color": COLORS[name], "label": title, "linewidth": 2, "marker": marker}
        (line,) = axes.plot(done, scale * means, DASHES[name], **look)
        tip(line, f"{title}: {percent(means.iloc[-1]) if shares else format(means.iloc[-1], '.3g')} at the end")
        low, high = (scale * found[measure].reindex(means.index) for found in (curve.lows, curve.highs))
        axes.fill_between(done, low, high, color=COLORS[name], alpha=0.15, linewidth=0)
    axes.set_xlabel("training done (%)")
    where = "" if mixed else f" {places.pop()}"
    axes.set_ylabel(f"accuracy{where} (%)" if kind == "accuracy" else f"cross-entropy{where} (nats)")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(-0.1, 1.0), fontsize=9)
    return figure


def _place(curve: Curve, training: bool) -> str:
    if training:
        return "on training batches"
    return "held out in the search" if curve.searched else "on validation"


def draw_pretraining(curve: Curve, measures: Mapping[str, str], label: str, shares: bool = False) -> Figure | None:
    """How the pretraining went, epoch by epoch: mean and range over replicates; None where nothing was measured.

    Args:
        curve: of the pretraining.
        measures: those to draw: name → title.
        label: of the vertical axis.
        shares: they are fractions, to be drawn in per cent.
    """
    measured = [name for name in measures if name in curve.means and curve.means[name].notna().any()]
    if not measured:
        return None
    figure, axes = make_figure(3.4)
    scale = 100 if shares else 1
    for name, (color, dash) in zip(measured, _PRETRAINING_LOOKS, strict=False):
        means = curve.means[name].dropna()
        low, high = (scale * found[name].reindex(means.index) for found in (curve.lows, curve.highs))
        axes.plot(means.index, scale * means, dash, color=color, label=measures[name], linewidth=2)
        axes.fill_between(means.index, low, high, color=color, alpha=0.15, linewidth=0)
        for epoch, value in means.iloc[:: -(-len(means) // _TIPS)].items():
            said = f"{measures[name]}, epoch {epoch:g}: {percent(value) if shares else format(value, '.3g')}"
            dot(axes, epoch, scale * value, said, color=color, markersize=4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0 if shares else None)
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(-0.1, 1.0), fontsize=9)
    return figure


def draw_accuracies(rows: Sequence[tuple[str, str, np.ndarray, tuple[float, float]]]) -> Figure:
    """Test accuracy of each model: every replicate, the mean and its interval.

    Args:
        rows: at least one: name for the look, title, accuracies (replicates,), interval; fractions.
    """
    figure, axes = make_figure(0.9 + 0.6 * len(rows))
    for row, (name, title, values, interval) in enumerate(rows):
        low, high = (100 * end for end in interval)
        axes.plot([low, high], [row, row], color=COLORS[name], linewidth=3, alpha=0.45, solid_capstyle="butt")
        axes.plot(100 * values, np.full(len(values), row), "|", color="black", markersize=12)
        mean = values.mean()
        said = f"{title}: {percent(mean)}, {span(interval)}"
        dot(axes, 100 * mean, row, said, MARKERS[name], color=COLORS[name], markersize=9)
        place = {"xytext": (0, 9), "textcoords": "offset points", "ha": "center"}
        axes.annotate(hundredths(mean), (100 * mean, row), **place, fontsize=9)
    axes.set_yticks(range(len(rows)), [title for _, title, *_ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.7)
    axes.margins(x=0.08)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("accuracy on test (%)")
    return figure


def draw_recall(model: str, scores: Mapping[str, Scores], class_names: Sequence[str]) -> Figure:
    """Recall per class, `model` against the baseline, classes ordered by how much they gain."""
    before, after = (scores[name].recall.mean(axis=0) for name in ("baseline", model))
    order = np.argsort(np.nan_to_num(after - before))
    if len(order) > _MAX_NAMES:
        # the ends tell the story; hundreds of rows can't be read
        order = np.concatenate([order[: _MAX_NAMES // 2], order[-_MAX_NAMES // 2 :]])
    figure, axes = make_figure(1.3 + 0.27 * len(order))
    rows = np.arange(len(order))
    axes.hlines(rows, 100 * before[order], 100 * after[order], color="#999999", linewidth=2)
    for name, values in (("baseline", before), (model, after)):
        axes.plot([], [], MARKERS[name], color=COLORS[name], markersize=8, label=TITLES[name])
        for row, index in zip(rows, order, strict=True):
            said = f"{class_names[index]}: {TITLES[name]} {percent(values[index])}"
            dot(axes, 100 * values[index], row, said, MARKERS[name], color=COLORS[name], markersize=8)
    axes.set_yticks(rows, [_short(class_names[index]) for index in order])
    axes.set_xlabel("recall on test (%)")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2, columnspacing=1)
    return figure


def draw_confusion(counts: np.ndarray, class_names: Sequence[str], title: str, model: str) -> Figure:
    """Confusion matrix in per cent of each actual class.

    Args:
        counts: int, shape (classes, classes); row = actual, column = predicted.
        class_names: in the order of rows and columns.
        title: above the picture.
        model: whose colour it has.
    """
    classes = len(counts)
    sums = counts.sum(axis=1)
    share = 100 * counts / np.maximum(sums[:, None], 1)
    named = classes <= _MAX_NAMES
    side = 2.2 + 0.28 * classes if named else WIDTH
    figure, axes = make_figure(side, side + 0.3)
    # paler by being see-through, so that an empty cell is as dark as its page
    color = to_rgb(COLORS[model])
    shades = LinearSegmentedColormap.from_list("share", [(*color, 0), (*color, 1)])
    image = axes.imshow(share, cmap=shades, vmin=0, vmax=100)
    axes.grid(visible=False)
    ticks = range(classes) if named else []
    names = [_short(name) for name in class_names] if named else []
    axes.set_xticks(ticks, names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, names)
    if classes <= 20:
        for row, column in np.argwhere(np.rint(share) > 0):
            letters = "white" if share[row, column] > 80 else "black"
            text = axes.text(
                column, row, f"{share[row, column]:.0f}", ha="center", va="center", color=letters, fontsize=9
            )
            tip(text, f"{class_names[row]} taken for {class_names[column]}: {counts[row, column]} of {sums[row]}")
    # of few classes the picture is narrower than a title; some nine letters are an inch
    figure.suptitle(textwrap.fill(title, round(9 * side)), fontsize="medium")
    figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03, label="% of the actual class")
    return figure


def draw_reliability(bins: Mapping[str, Reliability]) -> Figure:
    """How often answers of a confidence are right, per model; on the diagonal, confidence means what it says."""
    figure, axes = make_figure(4.2, 4.2)
    axes.plot([0, 100], [0, 100], color="#777777", linewidth=1, label="as it should be")
    for name, found in bins.items():
        known = found.images > 0
        look = {"color": COLORS[name], "marker": MARKERS[name], "linestyle": DASHES[name]}
        axes.plot(100 * found.confidence[known], 100 * found.accuracy[known], label=TITLES[name], **look)
        for images, sure, right in zip(found.images, found.confidence, found.accuracy, strict=True):
            if images:
                said = f"{TITLES[name]}: {percent(right)} right at a mean confidence of {percent(sure)}"
                dot(axes, 100 * sure, 100 * right, f"{said}, {images:,} images", MARKERS[name], color=COLORS[name])
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
        look = {"color": COLORS[name], "linestyle": DASHES[name]}
        # of the surest few, one wrong answer is a cliff
        shown = found.coverage >= 0.02
        share, right = found.coverage[shown], found.accuracy[shown]
        axes.plot(100 * share, 100 * right, label=TITLES[name], linewidth=2, **look)
        # the line itself has a point for each image
        for place in np.unique(np.searchsorted(share, np.linspace(0.05, share[-1], 20))):
            said = f"{TITLES[name]}: {percent(right[place])} right of the surest {percent(share[place], '.0f')}"
            dot(axes, 100 * share[place], 100 * right[place], said, MARKERS[name], color=COLORS[name], markersize=4)
    axes.axhline(100 * wanted, color="#777777", linewidth=1, linestyle=":", label=f"{percent(wanted, '.0f')} right")
    axes.set_xlim(0, 100)
    axes.set_ylim(top=100.5)
    axes.set_xlabel("images answered, the surest first (%)")
    axes.set_ylabel("right among them (%)")
    # above: a bad model's line lies low
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(-0.1, 1.0), ncols=2, fontsize=9, columnspacing=1)
    return figure


def draw_budgets(budgets: Mapping[str, Mapping[int, np.ndarray]]) -> Figure:
    """Test accuracy over labels per class: mean, and range over replicates, of each model.

    Args:
        budgets: model → labels per class → accuracies (replicates,). The baseline's with all labels is drawn
            through the whole picture, to see how few of them another model needs for it.
    """
    figure, axes = make_figure(3.6)
    all_labels = max(label for known in budgets.values() for label in known)
    for name, known in budgets.items():
        labels = sorted(known)
        lows, means, highs = (
            np.array([found(known[label]) for label in labels]) for found in (np.min, np.mean, np.max)
        )
        reach = np.maximum(np.stack([means - lows, highs - means]), 0)
        look = {"color": COLORS[name], "marker": MARKERS[name], "linestyle": DASHES[name]}
        axes.errorbar(labels, 100 * means, yerr=100 * reach, capsize=3, label=TITLES[name], **look)
        for label, mean in zip(labels, means, strict=True):
            said = f"{TITLES[name]}, {label:,} labels per class: {percent(mean)}"
            dot(axes, label, 100 * mean, said, MARKERS[name], color=COLORS[name])
    if all_labels in budgets.get("baseline", {}):
        rival = 100 * budgets["baseline"][all_labels].mean()
        axes.axhline(rival, color=COLORS["baseline"], linestyle=":", linewidth=1)
    ticks = sorted({label for known in budgets.values() for label in known})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{label:g}" for label in ticks])
    axes.minorticks_off()
    axes.set_xlabel("labels per class")
    axes.set_ylabel("accuracy on test (%)")
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(-0.1, 1.0), ncols=2, fontsize=9, columnspacing=1)
    return figure


def draw_map(points: np.ndarray, labels: np.ndarray, predicted: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Images as points in a plane, a colour and a shape per class, with a ring around what is taken for another.

    Args:
        points: float, shape (N, 2).
        labels: true classes, int, shape (N,).
        predicted: the model's, likewise.
        class_names: in the order of the labels.
    """
    named = len(class_names) <= _MAX_LEGEND
    figure, axes = make_figure(4.6 + 0.25 * named * -(-len(class_names) // 3))
    for label in np.unique(labels):
        own = points[labels == label]
        color = _CLASS_COLORS[label % len(_CLASS_COLORS)]
        # the shape moves on faster than the colour, so that no two of 64 classes look alike
        marker = _CLASS_MARKERS[(label + label // len(_CLASS_COLORS)) % len(_CLASS_MARKERS)]
        (dots,) = axes.plot(*own.T, marker, color=color, markersize=4, alpha=0.8, markeredgewidth=0)
        tip(dots, class_names[label])
        axes.plot([], [], marker, color=color, label=_short(class_names[label]))
    for row in np.flatnonzero(labels != predicted):
        (ring,) = axes.plot(*points[row], "o", color="none", markeredgecolor="black", markersize=6.5)
        tip(ring, f"{class_names[labels[row]]}, taken for {class_names[predicted[row]]}")
    axes.plot([], [], "o", color="none", markeredgecolor="black", markersize=6.5, label="answered wrong")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    if named:
        axes.legend(
            frameon=False, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=3, fontsize=9, columnspacing=1
        )
    return figure


def _short(name: str, longest: int = 18) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"
