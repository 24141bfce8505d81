"""The page a reviewer reads: the verdict, why, the numbers, the pictures, and how to get them again.

One HTML file with everything inside and no script, so that it can be mailed or opened from MLflow. It says nothing
of a test set that stayed closed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from components.shared.artifacts import Manifest, Result
from components.shared.checks.verdict import Verdict
from components.shared.cost import Cost, total
from components.shared.evaluation.calibration import (
    coverage,
    reliability,
)
from components.shared.evaluation.evidence import Rivals, Scores
from components.shared.evaluation.examples import Examples
from components.shared.evaluation.fairness import RIVALS
from components.shared.evaluation.gate import NOT_ASKED, Blessing
from components.shared.evaluation.markdown import to_markdown
from components.shared.evaluation.measured import Measured
from components.shared.evaluation.predictions import CONTENDERS, HELD_OUT, TEST, Candidate, Truth
from components.shared.evaluation.pretraining import FOUND, LOSS
from components.shared.evaluation.statistics import confusion
from components.shared.evaluation.wording import (
    TITLES,
    check_in_words,
    choice_in_words,
    gain_in_words,
    hundredths,
    look_in_words,
    mean_and_spread,
    percent,
    points,
    provable_in_words,
    span,
)
from components.shared.plots import evaluation as draw
from components.shared.plots.svg import inline_svg
from components.shared.templates import Picture, render
from components.shared.tracking.lineage import made_again
from components.shared.tracking.run import flatten
from components.shared.training.curves import Curve

TEMPLATES = Path(__file__).with_name("templates")
# how often a model should be right that answers only where it is sure enough
WANTED = 0.95
# slices that are named one by one; the others can be unfolded
_SHOWN_SLICES = 8
_SHOWN_SUSPECTS = 10


@dataclass(frozen=True)
class Findings:
    """Everything an evaluation found.

    Attributes:
        manifest: of the dataset.
        truth: the dataset's labels and classes.
        blessing: the verdict.
        candidates: the models that could be read.
        validated: model → accuracy on held-out images of each replicate, of the models that are sound.
        scores: of the sound models on test; empty where it stayed closed.
        curves: how the models learned.
        search: record of `search`, with both grids; None where there is none to read.
        measured: the numbers of test, likewise.
        costs: step → what it cost.
        lineage: tags that say which code and data this is.
        params: of the evaluation, plain values.
        run_id: MLflow run of the evaluation.
        overrides: of the whole run; None where they are not known.
        rivals: the champions, with how far the images have moved in the features of the one that reigns.
        suspects: labels that may be wrong, see `read_suspects`.
        suspects_picture: of the first ones; None where there is none.
        augmentations_picture: of what the search could choose from, likewise.
        examples: single test images.
        pretraining: how it went; None where that is not known.
        checks: what those of the data found, likewise.
    """

    manifest: Manifest
    truth: Truth
    blessing: Blessing
    candidates: Mapping[str, Candidate]
    validated: Mapping[str, np.ndarray]
    scores: Mapping[str, Scores]
    curves: Sequence[Curve]
    search: Result | None
    measured: Measured
    costs: Mapping[str, Cost]
    lineage: Mapping[str, str]
    params: Mapping[str, Any]
    run_id: str
    overrides: Sequence[str] | None = None
    rivals: Rivals = field(default_factory=Rivals)
    suspects: pd.DataFrame = field(default_factory=pd.DataFrame)
    suspects_picture: Path | None = None
    augmentations_picture: Path | None = None
    examples: Examples = field(default_factory=Examples)
    pretraining: Curve | None = None
    checks: Verdict | None = None

    @property
    def drift(self) -> list[str]:
        """How far images have moved in the champion's features, a line for each split; or why that is not known."""
        if not self.rivals.drift:
            return [f"feature drift: not measured: {self.rivals.no_drift}"] if self.rivals.no_drift else []
        version = self.rivals.found[0].version
        return [f"feature drift: {moved.in_words(version)}" for moved in self.rivals.drift]

    @property
    def twins(self) -> list[str]:
        """In a line, what near-copies of test images among those that were learned from are worth; or nothing."""
        known = self.measured
        if not known.without_twins:
            return []
        said = ", ".join(
            f"{TITLES[name]} {percent(accuracy)} instead of {percent(float(np.mean(known.accuracies[name])))}"
            for name, accuracy in known.without_twins.items()
        )
        return [f"near-copies of {known.twins:,} test images were learned from; accuracy on the others: {said}"]

    @property
    def winner(self) -> Candidate | None:
        """The model whose answers on test may be shown."""
        return self.candidates[self.blessing.winner] if self.blessing.judged and self.blessing.winner else None

    def predicted(self) -> np.ndarray | None:
        """Classes that the winner's exported model answers on test, int, shape (N,); None where there are none."""
        return None if self.winner is None else self.winner.exported_answers().argmax(axis=1)


def write_report(out: Path, findings: Findings) -> None:
    """Write the pictures, `report.html` and `report.md` into a folder that is there."""
    pictures = {}
    for name, figure, caption, alt in _figures(findings):
        path = out / f"{name}.png"
        figure.savefig(path)
        pictures[name] = Picture.read(path, caption, alt, inline_svg(figure, name, alt or caption))
    if findings.suspects_picture is not None:
        caption = "Each of the first ones, and the nearest images of the label that its neighbours give it."
        pictures["suspects"] = Picture.read(findings.suspects_picture, caption)
    if findings.augmentations_picture is not None:
        caption = "Labelled images as they are, weakly augmented, and twice as the pretraining sees them."
        pictures["augmentations"] = Picture.read(findings.augmentations_picture, caption)
    page = render_report(findings, pictures)
    (out / "report.html").write_text(page, encoding="utf-8")
    (out / "report.md").write_text(to_markdown(page), encoding="utf-8")


def _figures(findings: Findings) -> Iterator[tuple[str, Figure, str, str]]:
    """What there are numbers for: name, picture, caption, and what the picture shows in words where these don't."""
    blessing, names = findings.blessing, findings.truth.class_names
    for name, kind in (("curves", "accuracy"), ("losses", "loss")):
        figure = draw.draw_curves(findings.curves, kind)
        if figure is not None:
            caption = f"{kind.capitalize()} over the training: mean over replicates, band from lowest to highest."
            if any(curve.searched for curve in findings.curves):
                caption += " Held out in the search: the same training there, with fewer labels."
            yield name, figure, caption, f"{caption} {_ends_of_curves(findings.curves, kind)}"
    yield from _of_pretraining(findings.pretraining)
    winner, predicted = findings.winner, findings.predicted()
    if winner is None or predicted is None:
        return
    spans = findings.measured.intervals
    rows = [(name, TITLES[name], score.accuracy, spans[name]) for name, score in findings.scores.items()]
    caption = f"Accuracy on test: mean and {percent(blessing.confidence, '.3g')} interval; ticks are replicates."
    means = ", ".join(f"{title} {percent(values.mean())}" for _, title, values, _ in rows)
    yield "accuracies", draw.draw_accuracies(rows), caption, f"{caption} {means}."
    title, labels = TITLES[winner.name], findings.truth.labels[TEST]
    caption = f"Recall per class, mean over replicates: {title} against the baseline; the worst change first."
    yield "recall", draw.draw_recall(winner.name, findings.scores, names), caption, ""
    heading = f"Confusion of the {title} that ships"
    figure = draw.draw_confusion(confusion(predicted, labels, len(names)), names, heading, winner.name)
    yield "confusion", figure, f"{heading}, on test: a row per actual class, a column per predicted one.", ""
    answers = {name: findings.candidates[name].exported_answers() for name in (winner.name, "baseline")}
    bins = {name: reliability(found, labels) for name, found in answers.items()}
    caption = "How often answers of a confidence are right. On the diagonal, confidence means what it says."
    yield "reliability", draw.draw_reliability(bins), caption, ""
    shares = {name: coverage(found, labels, WANTED) for name, found in answers.items()}
    caption = "How often a model is right on the images that it is surest of."
    yield "coverage", draw.draw_coverage(shares, WANTED), caption, ""
    budgets = _budgets(findings)
    if budgets:
        caption = (
            "Accuracy on test over labels per class: mean, and range over replicates. Both are given the same "
            "labels. The baseline passes over its images as often as it does over all. Dotted: with all of them."
        )
        said = "; ".join(
            f"{TITLES[name]}: "
            + ", ".join(f"{percent(values.mean())} with {label:,}" for label, values in sorted(known.items()))
            for name, known in budgets.items()
        )
        yield "budgets", draw.draw_budgets(budgets), caption, f"{caption} {said}."
    shown = findings.examples
    if shown.points is not None and shown.rows is not None:
        caption = (
            f"{len(shown.rows):,} test images in the features of the first encoder, by t-SNE: what is near, the "
            "encoder holds to be alike; distances between groups mean little. "
            f"Rings: the {title} that ships is wrong."
        )
        yield "map", draw.draw_map(shown.points, labels[shown.rows], predicted[shown.rows], names), caption, ""


def _of_pretraining(curve: Curve | None) -> Iterator[tuple[str, Figure, str, str]]:
    band = "mean over replicates, band from lowest to highest."
    for name, measures, label, unit, caption in (
        ("pretraining_loss", LOSS, "loss", "", f"Loss of the pretraining: {band}"),
        ("pretraining", FOUND, "accuracy (%)", "%", f"What the encoder knows while it is pretrained: {band}"),
    ):
        figure = draw.draw_pretraining(curve, measures, label, unit == "%") if curve is not None else None
        if curve is not None and figure is not None:
            ends = {title: curve.means[measure].dropna() for measure, title in measures.items()}
            said = (f"{title} {_last(end, unit)}" for title, end in ends.items() if len(end))
            yield name, figure, caption, f"{caption} At the end: {', '.join(said)}."


def _ends_of_curves(curves: Sequence[Curve], kind: str) -> str:
    ends = [(curve.model, curve.means[name].dropna()) for curve in curves if (name := curve.measure_to_draw(kind))]
    unit = "%" if kind == "accuracy" else "nats"
    said = (f"{TITLES[model]} {_last(values, unit)}" for model, values in ends)
    return f"At the end: {', '.join(said)}."


def _last(values: pd.Series, unit: str) -> str:
    """The last value; of the unit "%" they are fractions."""
    return percent(values.iloc[-1]) if unit == "%" else f"{values.iloc[-1]:.3g} {unit}".rstrip()


def _budgets(findings: Findings) -> dict[str, dict[int, np.ndarray]]:
    """Model → labels per class → accuracies (replicates,), the baseline first.

    What was trained with all labels alone, as the fine-tuned model, is a point.
    """
    known = findings.measured
    found = {
        name: {number: np.array(values) for number, values in budgets.items()}
        for name, budgets in (("baseline", known.baseline_budgets), ("probe", known.budgets))
    }
    if not found["probe"]:
        return {}
    every = max(found["probe"])
    for name, score in findings.scores.items():
        found.setdefault(name, {}).setdefault(every, score.accuracy)
    return found


def _fewer_labels(findings: Findings) -> str:
    """How few labels the encoder needs to be as good as the baseline is with all."""
    budgets = _budgets(findings)
    if not budgets:
        return ""
    every = max(budgets["baseline"])
    rival = budgets["baseline"][every].mean()
    enough = [number for number, values in sorted(budgets["probe"].items()) if values.mean() >= rival]
    if not enough:
        return f"With all {every:,} labels per class the linear probe stays below the baseline's {percent(rival)}."
    fewest = enough[0]
    ours, theirs = budgets["probe"][fewest].mean(), budgets["baseline"].get(fewest)
    beside = "" if theirs is None or fewest == every else f", the baseline {percent(theirs.mean())}"
    return (
        f"With {fewest:,} label{'s' if fewest > 1 else ''} per class the linear probe answers {percent(ours)} right"
        f"{beside}; the baseline with all {every:,} answers {percent(rival)}."
    )


def render_report(findings: Findings, pictures: Mapping[str, Picture]) -> str:
    """The report as HTML.

    Args:
        findings: what to tell.
        pictures: those that there are, by name.
    """
    blessing, probe = findings.blessing, findings.candidates.get("probe")
    slices = sorted(blessing.slices, key=lambda part: (part.unknown, -(part.drop if part.drop is not None else -1)))
    known = [part for part in slices if not part.unknown]
    page = render(
        TEMPLATES / "report.html.j2",
        title=f"Evaluation of {findings.manifest.name}",
        not_asked=NOT_ASKED,
        blessing=blessing,
        confidence=percent(blessing.confidence, ".3g"),
        summary=_summary(findings),
        look=look_in_words(blessing.look, blessing.alpha, blessing.policy.get("alpha")),
        reasons=blessing.reasons(),
        models=_models(findings),
        networks=_networks(findings),
        replicates=max((candidate.replicates for candidate in findings.candidates.values()), default=0),
        artefact=_artefact(findings),
        provable=_provable(findings),
        search=_search(findings.search),
        slices=known[:_SHOWN_SLICES],
        more_slices=known[_SHOWN_SLICES:],
        unknown_slices=[part for part in slices if part.unknown],
        calibration=_calibration(findings),
        surest=_surest(findings),
        drift=findings.drift,
        twins=findings.twins,
        warns=any(moved.warns for moved in findings.rivals.drift),
        checks=findings.checks,
        suspects=findings.suspects.head(_SHOWN_SUSPECTS).to_dict("records"),
        suspected=len(findings.suspects),
        agreement=probe.result.metrics.get("knn_validation_accuracy") if probe else None,
        pictures=pictures,
        manifest=findings.manifest,
        lineage=findings.lineage,
        again=made_again(findings.lineage, findings.overrides),
        options_known=findings.overrides is not None,
        runs=_runs(findings),
        costs={**findings.costs, "all": total(findings.costs.values())} if findings.costs else {},
        points=points,
        percent=percent,
        hundredths=hundredths,
        measured_by=check_in_words,
        changes=_changes(findings),
        fewer_labels=_fewer_labels(findings),
        examples=findings.examples,
        shipped=TITLES[blessing.winner] if blessing.winner else "",
    )
    headings = re.findall(r'<h2 id="([^"]+)">([^<]+)</h2>', page)
    links = "\n".join(f'<a href="#{anchor}">{title}</a>' for anchor, title in headings)
    return page.replace("<nav></nav>", f"<nav>{links}</nav>")


def _changes(findings: Findings) -> list[dict[str, Any]]:
    """Recall per class of baseline and winner, means over replicates; the most changed first."""
    if findings.winner is None:
        return []
    recall = findings.measured.recall
    rows = [
        {"name": name, "before": before, "after": after, "images": images}
        for name, before, after, images in zip(
            findings.truth.class_names,
            recall["baseline"],
            recall[findings.winner.name],
            np.bincount(findings.truth.labels[TEST], minlength=len(findings.truth.class_names)),
            strict=True,
        )
        if before is not None and after is not None
    ]
    return sorted(rows, key=lambda row: -abs(row["after"] - row["before"]))[:_SHOWN_SLICES]


def _summary(findings: Findings) -> str:
    blessing, winner = findings.blessing, findings.winner
    if winner is None or blessing.gain is None:
        return ""
    ours, theirs = (findings.scores[name].accuracy.mean() for name in (winner.name, "baseline"))
    return (
        f"The {TITLES[winner.name]} answers {percent(ours)} of {findings.manifest.counts['test']:,} test images "
        "right, the same network trained from scratch on the same labels, with a training searched as widely, "
        f"{percent(theirs)}: a gain of {gain_in_words(blessing.gain, blessing.interval, blessing.confidence)}. "
        f"{choice_in_words(winner.name, *(float(findings.validated[name].mean()) for name in CONTENDERS))}"
    ).rstrip()


def _models(findings: Findings) -> list[dict[str, Any]]:
    rows = [_row(findings, name) for name in findings.validated]
    if findings.measured.published:
        known = {
            "test": mean_and_spread(np.array(findings.measured.published)),
            "validation": "",
            "training": "",
            "steps": "",
            "minutes": "",
        }
        rows.append({"name": "", "title": "fine-tuned as published (not gated)", **known})
    return rows


def _row(findings: Findings, name: str) -> dict[str, Any]:
    candidate = findings.candidates[name]
    row = {
        "name": name,
        "title": TITLES[name],
        "validation": mean_and_spread(findings.validated[name]),
        "training": _training_accuracy(candidate.result.metrics),
        "minutes": _minutes(findings, name),
        "steps": candidate.result.details.get("optimisation_steps", ""),
    }
    if name in findings.scores:
        score = findings.scores[name]
        row |= {"test": mean_and_spread(score.accuracy), "interval": span(findings.measured.intervals[name])}
    return row


def _training_accuracy(metrics: Mapping[str, float]) -> str:
    """As `mean_and_spread`; empty where the record is of before it was measured."""
    if "training_accuracy" not in metrics:
        return ""
    deviation = metrics.get("training_accuracy_std")
    mean = hundredths(metrics["training_accuracy"])
    return mean if deviation is None else f"{mean} ± {hundredths(deviation)}"


def _minutes(findings: Findings, name: str) -> str:
    """How long a replicate took by the clock, its pretraining included: mean over replicates; empty if unknown."""
    own: Any = findings.candidates[name].result.details.get("replicate_seconds")
    probe = findings.candidates.get("probe")
    before: Any = probe.result.details.get("pretraining_seconds") if probe and name != "baseline" else [0.0]
    try:
        return f"{(np.mean(own) + np.mean(before)) / 60:.1f}"
    except TypeError:  # of a record of before it was told
        return ""


class _Layer(BaseModel):
    """What a network is made of, as `models.layers.layers_of` tells it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    kind: str
    output: list[int | None]
    weights: int


_NETWORKS = TypeAdapter(dict[str, list[_Layer]])


def _networks(findings: Findings) -> list[dict[str, Any]]:
    """The networks of the models, each once: title, layers and weights; of records that do not tell them none."""
    tables: dict[str, list[_Layer]] = {}
    for name, title in (("probe", "linear probe"), ("finetune", "fine-tuned model and baseline")):
        details = findings.candidates[name].result.details if name in findings.candidates else {}
        try:
            known = _NETWORKS.validate_python(details.get("networks", {}))
        except ValidationError:
            continue
        for part, layers in known.items():
            # all start from one encoder, but where layers of the projection head are kept
            if part != "encoder" or layers != tables.get(part):
                tables[part if part not in tables and part != "classifier" else f"{part} of the {title}"] = layers
    return [
        {"title": title, "layers": layers, "weights": sum(layer.weights for layer in layers)}
        for title, layers in tables.items()
    ]


def _artefact(findings: Findings) -> str:
    found, winner = findings.blessing.artefact, findings.winner
    if found is None or winner is None:
        return ""
    # where all labels were trained on, the search's answers stand for those of every replicate
    chosen = "of the first seed" if winner.result.details.get("answers_of_search") else "best on held-out images"
    confident = percent(findings.blessing.confidence, ".3g")
    return (
        f"What ships is one of them: the {TITLES[winner.name]} {chosen}. It answers "
        f"{percent(found.accuracy)} of the test images right "
        f"({confident} interval {span((found.low, found.high))}, over test images)."
    )


def _provable(findings: Findings) -> str:
    blessing = findings.blessing
    if blessing.look is None or not blessing.judged:
        return ""
    alpha = blessing.policy["alpha"]
    said = provable_in_words(findings.manifest.counts["test"], blessing.replicates, alpha, blessing.look)
    return f"{said[0].upper()}{said[1:]}: not blessed is no proof that there is no gain."


class _Point(BaseModel):
    """One training that a search can choose."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    augmentation: str
    learning_rate: float
    weight_decay: float
    epochs: int

    @property
    def point(self) -> tuple[str, float, float, int]:
        """What makes it the same training for both sides."""
        return self.augmentation, self.learning_rate, self.weight_decay, self.epochs


class _Trial(_Point):
    """How it went on held-out images."""

    log_loss: float
    accuracy: float


def _search(record: Result | None) -> dict[str, Any] | None:
    """Both grids side by side: a row per point, the best first; None where the record does not tell them."""
    if record is None:
        return None
    details = record.details
    try:
        trials = {side: [_Trial.model_validate(trial) for trial in details["trials"][side]] for side in RIVALS}
        more = int(details.get("baseline_more_epochs", 0))
        chosen = {side: _Point.model_validate(details["chosen"][side]) for side in RIVALS}
        # a row is what both sides have tried, the baseline perhaps for longer
        chosen["baseline"] = chosen["baseline"].model_copy(update={"epochs": chosen["baseline"].epochs - more})
    except (ValueError, KeyError, TypeError):
        return None
    tried: dict[tuple[Any, ...], dict[str, _Trial]] = {}
    for side in RIVALS:
        for trial in trials[side]:
            tried.setdefault(trial.point, {})[side] = trial
    rows: list[dict[str, Any]] = [
        {"point": point, "sides": sides, "chosen": [side for side in RIVALS if chosen[side].point == point]}
        for point, sides in tried.items()
    ]
    # NaN, of a training that failed, comes last
    rows.sort(key=lambda row: np.nanmin([math.inf, *(trial.log_loss for trial in row["sides"].values())]))
    return {
        "sides": RIVALS,
        "count": {side: len(found) for side, found in trials.items()},
        "rows": rows,
        "best": [row for row in rows if row["chosen"]],
        "capped": [TITLES[side] for side in RIVALS if side in details.get("capped", [])],
        "held_out": details.get("held_out"),
        "more_epochs": more,
    }


def _calibration(findings: Findings) -> list[dict[str, Any]]:
    """How far confidence can be trusted, of the files that the winner and the baseline export."""
    if findings.winner is None:
        return []
    rows = []
    for name in (findings.winner.name, "baseline"):
        details = findings.candidates[name].result.details
        known = {"temperature": details.get("temperature"), "why": details.get("temperature_why", "")}
        rows.append({"title": TITLES[name], **findings.measured.calibration[name], **known})
    return rows


def _surest(findings: Findings) -> str:
    """Below which confidence to ask a person, as held-out images tell, and what that is worth on test."""
    winner = findings.winner
    if winner is None:
        return ""
    title, wanted = f"the {TITLES[winner.name]} that ships", percent(WANTED, ".0f")
    held_out = winner.probabilities[HELD_OUT]
    chosen = coverage(held_out[(winner.exported_seed or 0) % len(held_out)], winner.labels[HELD_OUT], WANTED)
    if chosen.threshold is None:
        return f"On held-out images, no confidence is high enough for {title} to be {wanted} right."
    threshold = percent(chosen.threshold)
    answers, labels = winner.exported_answers(), findings.truth.labels[TEST]
    sure = answers.max(axis=1) >= chosen.threshold
    if not sure.any():
        return f"No test image gets the confidence {threshold} that makes {title} {wanted} right."
    right = float((answers.argmax(axis=1) == labels)[sure].mean())
    return (
        f"Answering only with a confidence of {threshold} or more, {title} is {wanted} right on "
        f"held-out images. On test this leaves {percent(sure.mean())} of the images, and {percent(right)} of them "
        "are right."
    )


def _runs(findings: Findings) -> list[dict[str, str]]:
    runs = [("ingest", findings.manifest.mlflow_run_id, findings.manifest.params)]
    if "probe" in findings.candidates:
        pretrained = findings.candidates["probe"].result.details.get("pretraining_runs") or []
        runs += [("pretrain", " ".join(map(str, pretrained)), {})] if pretrained else []
    if findings.search is not None:
        runs.append(("search", findings.search.mlflow_run_id, findings.search.params))
    for name, candidate in findings.candidates.items():
        runs.append((name, candidate.result.mlflow_run_id, candidate.result.params))
    runs.append(("evaluate", findings.run_id, dict(findings.params)))
    return [
        {"step": step, "id": run, "params": ", ".join(f"{key}={value}" for key, value in flatten(params).items())}
        for step, run, params in runs
    ]
