"""What the Kubeflow page shows of a finished step: numbers, pictures and tables, made from the step's folder."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.shared.artifacts import SPLITS, Manifest, Record, Result, read_record
from components.shared.evaluation.markdown import excerpt
from components.shared.templates import Picture, render
from components.shared.tracking.journal import FILE as UNSENT
from pipelines.summary import table

TEMPLATES = Path(__file__).with_name("templates")
_PICTURES = {
    "pretrain": ("Pretraining", {"views.png": "Images, and the views that the encoder learned to match."}),
    "probe": (
        "What the frozen encoder knows",
        {
            "neighbours.png": "Validation images, each with its nearest others in the encoder's features.",
            "suspects.png": "Labels that may be wrong: the image, and the nearest images of the label that its"
            " neighbours give it; label_suspects.csv lists all.",
        },
    ),
}


def facts(folder: Path) -> dict[str, Any]:
    """Metadata of a step's artifact: the MLflow run, and what it was made from and of."""
    unsent = {"mlflow_run": "was not whole when the step ended: contrastive resend"}
    tracking = unsent if (folder / UNSENT).exists() else {}
    if (folder / "manifest.json").exists():
        manifest = read_record(folder, Manifest)
        return {
            "digest": manifest.digest,
            "mlflow_run_id": manifest.mlflow_run_id,
            **tracking,
            "source": manifest.source,
            "classes": ", ".join(manifest.class_names)[:500],
        }
    result = read_record(folder, Result)
    return {"dataset_digest": result.dataset_digest, "mlflow_run_id": result.mlflow_run_id, **tracking}


def show(
    step: str,
    folder: Path,
    inputs: Sequence[Path],
    metrics: Any = None,
    page: Any = None,
    confusion: Any = None,
    text: Any = None,
) -> None:
    """Fill the artifacts that the page shows.

    Args:
        step: the step's name.
        folder: what the step wrote.
        inputs: the folders that it read, in the order of the step function's arguments.
        metrics: KFP artifact for single numbers.
        page: KFP artifact for HTML or Markdown.
        confusion: KFP artifact for the confusion matrix.
        text: KFP artifact for the report as Markdown.
    """
    if metrics is not None:
        numbers = _numbers(step, folder)
        for name, value in numbers.items():
            metrics.log_metric(name, value)
        # the numbers themselves are metadata; without a file a local run would not find the artifact again
        _write(metrics.path, json.dumps(numbers, indent=2) + "\n")
    if page is not None:
        # register reads the dataset and the evaluation
        _write(page.path, outcome(inputs[1], folder) if step == "register" else _page(step, folder))
    if text is not None:
        _write(text.path, excerpt((folder / "report.md").read_text(encoding="utf-8"), 10**6))
    if confusion is not None:
        names, counts = confusion_counts(folder / "confusion.csv", read_record(inputs[0], Manifest).class_names)
        if counts:
            confusion.log_confusion_matrix(names, counts)
        _write(confusion.path, json.dumps({"classes": names, "counts": counts}) + "\n")


def outcome(evaluation: Path, registration: Path | None) -> str:
    """The table that ends every run, as Markdown."""
    registered = read_record(registration, Result) if registration is not None else None
    report = "the artifact `report` of evaluate, and MLflow"
    lines = table(evaluation, registration, report)
    good = registered is not None and bool(registered.details.get("registered"))
    return render(TEMPLATES / "outcome.md.j2", registered=good, lines=lines)


def confusion_counts(path: Path, classes: Sequence[str]) -> tuple[list[str], list[list[int]]]:
    """Count the pairs of `confusion.csv`.

    Args:
        path: columns `actual` and `predicted`, one row per image.
        classes: in the order of the matrix.

    Returns:
        Classes and counts, one row per true class; no counts where no model won.
    """
    index = {name: number for number, name in enumerate(classes)}
    counts = [[0] * len(classes) for _ in classes]
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            counts[index[row["actual"]]][index[row["predicted"]]] += 1
    return list(classes), counts if any(map(sum, counts)) else []


def _numbers(step: str, folder: Path) -> dict[str, float]:
    if step == "ingest":
        manifest = read_record(folder, Manifest)
        return {
            **{f"{split}_images": manifest.counts[split] for split in SPLITS},
            "classes": len(manifest.class_names),
            **_cost(manifest),
        }
    result = read_record(folder, Result)
    # JSON has no NaN
    return {**{name: value for name, value in result.metrics.items() if math.isfinite(value)}, **_cost(result)}


def _cost(record: Record) -> dict[str, float]:
    return {f"cost_{name}": value for name, value in record.cost.model_dump().items()} if record.cost else {}


def _page(step: str, folder: Path) -> str:
    if step == "ingest":
        return render(TEMPLATES / "dataset.md.j2", manifest=read_record(folder, Manifest), splits=SPLITS)
    if step == "validate":
        verdict = json.loads((folder / "verdict.json").read_text(encoding="utf-8"))
        return render(TEMPLATES / "verdict.md.j2", verdict=verdict)
    if step == "evaluate":
        return (folder / "report.html").read_text(encoding="utf-8")
    title, captions = _PICTURES[step]
    there = {name: caption for name, caption in captions.items() if (folder / name).exists()}
    pictures = [Picture.read(folder / name, caption) for name, caption in there.items()]
    return render(TEMPLATES / "pictures.html.j2", title=title, pictures=pictures)


def _write(path: str, text: str) -> None:
    Path(path).write_text(text, encoding="utf-8")
