"""The page a reviewer reads: the verdict, why, the numbers, the pictures, and how to get them again.

One HTML file with everything inside and no script, so that it can be mailed or opened from MLflow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.shared.artifacts import Manifest, Result
from components.shared.evaluation.evidence import Scores
from components.shared.evaluation.gate import NOT_ASKED, Blessing
from components.shared.evaluation.predictions import TEST, Candidate, Truth
from components.shared.evaluation.statistics import confusion, spread
from components.shared.evaluation.wording import TITLES, gain_in_words
from components.shared.plots import evaluation as draw
from components.shared.templates import Picture, render
from components.shared.tracking.run import flatten
from components.shared.training.curves import Curve

TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Findings:
    """Everything an evaluation found.

    Attributes:
        manifest: of the dataset.
        truth: the dataset's labels and classes.
        blessing: the verdict.
        candidates: the models that could be read.
        validated: model → accuracy on held-out images of each replicate, of the models that are sound.
        scores: of the same models on test; empty where the test set stayed closed.
        intervals: name → interval of its accuracy.
        curves: how the models learned.
        search: record of `search`, with both grids; None where there is none to read.
        published: right answers on test of the published training, bool (replicates, N); None where there is none.
        budgets: labels per class → right answers of the linear probe on test, bool (replicates, N).
        knn: right answers of the nearest neighbours on test, bool (replicates, N); None where there are none.
        lineage: tags that say which code and data this is.
        params: of the evaluation, plain values.
        run_id: MLflow run of the evaluation.
    """

    manifest: Manifest
    truth: Truth
    blessing: Blessing
    candidates: Mapping[str, Candidate]
    validated: Mapping[str, np.ndarray]
    scores: Mapping[str, Scores]
    intervals: Mapping[str, tuple[float, float]]
    curves: Sequence[Curve]
    search: Result | None
    published: np.ndarray | None
    budgets: Mapping[int, np.ndarray]
    knn: np.ndarray | None
    lineage: Mapping[str, str]
    params: Mapping[str, Any]
    run_id: str

    def predicted(self) -> np.ndarray | None:
        """Classes that the winner's exported model answers on test, int (N,); None where nothing was judged."""
        if self.blessing.winner is None or not self.blessing.judged:
            return None
        return self.candidates[self.blessing.winner].exported_answers().argmax(axis=1)


def write_report(out: Path, findings: Findings) -> None:
    """Write the pictures and `report.html` into a folder that is there."""
    (out / "report.html").write_text(render_report(findings, draw_pictures(out, findings)), encoding="utf-8")


def render_report(findings: Findings, pictures: Sequence[tuple[Path, str]]) -> str:
    """The report as HTML.

    Args:
        findings: what to tell.
        pictures: PNG files and their captions, in the order they are shown.
    """
    blessing = findings.blessing
    return render(
        TEMPLATES / "report.html.j2",
        title=f"Evaluation of {findings.manifest.name}",
        not_asked=NOT_ASKED,
        verdict=blessing.verdict,
        blessing=blessing,
        confidence=f"{100 * blessing.confidence:g} %",
        summary=_summary(findings),
        reasons=blessing.reasons(),
        models=[_row(findings, name) for name in findings.scores],
        pictures=[Picture.read(path, caption) for path, caption in pictures],
        manifest=findings.manifest,
        lineage=findings.lineage,
        runs=_runs(findings),
    )


def draw_pictures(out: Path, findings: Findings) -> list[tuple[Path, str]]:
    """Draw what there are numbers for; returns files and captions."""
    blessing, names = findings.blessing, findings.truth.class_names
    accuracies = draw.draw_accuracies(findings.scores, findings.intervals, blessing.confidence)
    figures = [
        ("accuracies.png", accuracies, "Accuracy on the test images."),
        ("curves.png", draw.draw_curves(findings.curves), "How the models learned."),
    ]
    predicted = findings.predicted()
    if blessing.winner is not None and predicted is not None:
        title = TITLES[blessing.winner]
        recall = draw.draw_recall(blessing.winner, findings.scores, names)
        counts = confusion(predicted, findings.truth.labels[TEST], len(names))
        heading = f"Confusion of the {title} that is exported"
        figures += [
            ("recall.png", recall, f"Recall per class: {title} against the baseline."),
            ("confusion.png", draw.draw_confusion(counts, names, heading), f"{heading}, on the test images."),
        ]
    drawn = []
    for name, figure, caption in figures:
        if figure is not None:
            figure.savefig(out / name)
            drawn.append((out / name, caption))
    return drawn


def _summary(findings: Findings) -> str:
    blessing = findings.blessing
    if blessing.winner is None or blessing.gain is None:
        return ""
    winner, baseline = (findings.scores[name].accuracy.mean() for name in (blessing.winner, "baseline"))
    return (
        f"The {TITLES[blessing.winner]} answers {winner:.1%} of {findings.manifest.counts['test']:,} test images "
        f"right, the same network trained from scratch on the same labels {baseline:.1%}: a gain of "
        f"{gain_in_words(blessing.gain, blessing.interval, blessing.confidence)}."
    )


def _row(findings: Findings, name: str) -> dict[str, Any]:
    score = findings.scores[name]
    low, high = findings.intervals[name]
    return {
        "name": name,
        "title": TITLES[name],
        "test": _mean_and_spread(score.accuracy),
        "interval": f"{100 * low:.1f} to {100 * high:.1f}",
        "validation": _mean_and_spread(score.validation_accuracy),
        "seeds": len(score.accuracy),
        "steps": findings.candidates[name].result.details.get("optimisation_steps", ""),
    }


def _mean_and_spread(accuracies: Any) -> str:
    return f"{100 * accuracies.mean():.1f} ± {100 * spread(accuracies):.1f}"


def _runs(findings: Findings) -> list[dict[str, str]]:
    runs = [("ingest", findings.manifest.mlflow_run_id, findings.manifest.params)]
    for name, candidate in findings.candidates.items():
        runs.append((name, candidate.result.mlflow_run_id, candidate.result.params))
    runs.append(("evaluate", findings.run_id, dict(findings.params)))
    return [
        {"step": step, "id": run, "params": ", ".join(f"{key}={value}" for key, value in flatten(params).items())}
        for step, run, params in runs
    ]
