"""What the Kubeflow page shows of a finished step: numbers, pictures and tables, made from the step's folder."""

from __future__ import annotations

import base64
import csv
import html
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.shared.artifacts import SPLITS, Manifest, Result, read_record
from components.shared.evaluation.gate import read_blessing
from pipelines.summary import table

_PICTURES = {
    "pretrain": ("Pretraining", [("views.png", "Images, and the views that the encoder learned to match.")]),
    "probe": (
        "What the frozen encoder knows",
        [
            ("budgets.png", "Accuracy of the linear probe on test images over labels a class."),
            ("neighbours.png", "Test images, and their nearest training images in the encoder's features."),
        ],
    ),
}
_HTML = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body {{ font: 16px/1.5 system-ui, sans-serif; margin: 1rem; }} img {{ max-width: 100%; }}
figure {{ margin: 1rem 0; }} figcaption {{ color: #555; }}</style></head>
<body><h1>{title}</h1>{figures}</body></html>
"""


def facts(folder: Path) -> dict[str, Any]:
    """Metadata of a step's artifact: the MLflow run, and what it was made from and of."""
    if (folder / "manifest.json").exists():
        manifest = read_record(folder, Manifest)
        return {
            "digest": manifest.digest,
            "mlflow_run_id": manifest.mlflow_run_id,
            "source": manifest.source,
            "classes": ", ".join(manifest.class_names)[:500],
        }
    result = read_record(folder, Result)
    return {"dataset_digest": result.dataset_digest, "mlflow_run_id": result.mlflow_run_id}


def show(
    step: str, folder: Path, inputs: Sequence[Path], metrics: Any = None, page: Any = None, confusion: Any = None
) -> None:
    """Fill the artifacts that the page shows.

    Args:
        step: the step's name.
        folder: what the step wrote.
        inputs: the folders that it read, in the order of the step function's arguments.
        metrics: KFP artifact for single numbers.
        page: KFP artifact for HTML or Markdown.
        confusion: KFP artifact for the confusion matrix.
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
    if confusion is not None:
        names, counts = confusion_counts(folder / "confusion.csv", read_record(inputs[0], Manifest).class_names)
        if counts:
            confusion.log_confusion_matrix(names, counts)
        _write(confusion.path, json.dumps({"classes": names, "counts": counts}) + "\n")


def outcome(evaluation: Path, registration: Path | None) -> str:
    """The table that ends every run, as Markdown."""
    blessing, result = read_blessing(evaluation), read_record(evaluation, Result)
    registered = read_record(registration, Result) if registration is not None else None
    lines = table(result, blessing, registered, "the artifact `report` of evaluate, and MLflow")
    title = "Put up for review" if registered and registered.details.get("registered") else "Not registered"
    return "\n".join([f"# {title}", "", "```", *lines, "```", ""])


def confusion_counts(path: Path, classes: Sequence[str]) -> tuple[list[str], list[list[int]]]:
    """Count the pairs of `confusion.csv`.

    Args:
        path: columns `actual` and `predicted`, a row an image.
        classes: in the order of the matrix.

    Returns:
        Classes and counts, a row for each true class; no counts where no model could be judged.
    """
    index = {name: place for place, name in enumerate(classes)}
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
        }
    # JSON has no NaN
    return {name: value for name, value in read_record(folder, Result).metrics.items() if math.isfinite(value)}


def _page(step: str, folder: Path) -> str:
    if step == "ingest":
        return _dataset(read_record(folder, Manifest))
    if step == "validate":
        return _verdict(json.loads((folder / "verdict.json").read_text(encoding="utf-8")))
    if step == "evaluate":
        return (folder / "report.html").read_text(encoding="utf-8")
    title, pictures = _PICTURES[step]
    figures = [_figure(folder / name, caption) for name, caption in pictures]
    return _HTML.format(title=html.escape(title), figures="".join(figures))


def _dataset(manifest: Manifest) -> str:
    lines = [
        f"# {manifest.name}",
        "",
        f"{manifest.image_size}×{manifest.image_size} pixels, from `{manifest.source}`",
        "",
        "| | " + " | ".join(SPLITS) + " |",
        "|---|" + "---:|" * len(SPLITS),
        "| **images** | " + " | ".join(f"**{manifest.counts[split]:,}**" for split in SPLITS) + " |",
    ]
    for label, name in enumerate(manifest.class_names):
        cells = [f"{manifest.class_counts[split][label]:,}" for split in SPLITS]
        lines.append(f"| {_cell(name)} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def _verdict(verdict: dict[str, Any]) -> str:
    lines = [
        f"# {'Fit to learn from' if verdict['passed'] else 'Not fit to learn from'}",
        "",
        "| | expectation | severity | looked at | observed |",
        "|---|---|---|---|---|",
    ]
    for found in verdict["expectations"]:
        sign = "✓" if found["success"] else "✗"
        cells = (found["expectation"], found["severity"], found["subject"], found["observed"])
        lines.append(f"| {sign} | " + " | ".join(_cell(cell) for cell in cells) + " |")
    return "\n".join([*lines, ""])


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _figure(path: Path, caption: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    text = html.escape(caption)
    return f'<figure><img src="data:image/png;base64,{data}" alt="{text}"><figcaption>{text}</figcaption></figure>'


def _write(path: str, text: str) -> None:
    Path(path).write_text(text, encoding="utf-8")
