"""Validate: is the dataset fit to learn from? A critical failure stops the pipeline.

Reads `dataset/`; writes `validation/`: `verdict.json` (what holds and what does not), `statistics.json`,
`schema.json` (classes, sizes, ranges, all expectations with their bounds), `docs/` (Data Docs: open
`docs/index.html`), pictures and `result.json`. Of a dataset that fails, the same files but the record lie in
`validation.failed/`, until the next one that passes.

`verdict.json` holds no times, ids or bounds: it changes only with what was found in the images, so that a loosened
bound does not make the stages that wait for the verdict train again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from components.shared.artifacts import SPLITS, UNLABELLED, Dataset, Result, output_folder, refuse_foreign
from components.shared.checks import expectations as expect
from components.shared.checks.checker import Checker
from components.shared.checks.expectations import Outcome
from components.shared.checks.image_table import (
    LABELLED,
    MeanImages,
    array_table,
    class_table,
    image_table,
    split_table,
)
from components.shared.errors import UserError
from components.shared.params.schema import Params, ValidationParams
from components.shared.plots.grids import draw_rows
from components.shared.progress import Progress
from components.shared.step import Work, command_line, working

MAX_CLASSES_DRAWN = 20
VERDICT = "verdict.json"


def validate(dataset: Path, out: Path, params: Params) -> Result:
    """Check a dataset and describe it.

    Args:
        dataset: folder written by `ingest`.
        out: folder to write. Beside it, `<out>.failed/` keeps what was found when the dataset fails.
        params: reads validation.

    Returns:
        The record that is written to `result.json`.

    Raises:
        UserError: the dataset is missing or damaged, or fails a critical expectation.
    """
    data, out = Dataset(dataset), Path(out)
    failed = out.with_name(f"{out.name}.failed")
    refuse_foreign(failed, [VERDICT])
    with working("validate", out, params, {"dataset": Path(dataset)}, data.manifest.name) as work:
        checker = Checker(work.out / "docs", data.manifest.name)
        outcomes, tables = examine(data, params.validation, checker)
        checker.write_docs()
        _describe(work, data, outcomes, tables)
        for outcome in outcomes:
            if not outcome.success and outcome.expectation.severity == "warning":
                print(f"validate: warning: {outcome.line()}", flush=True)
        critical = [o for o in outcomes if not o.success and o.expectation.severity == "critical"]
        if critical:
            with output_folder(failed, [VERDICT]) as kept:
                shutil.copytree(work.out, kept, dirs_exist_ok=True)
            more = f" ({len(critical) - 1} more critical)" if len(critical) > 1 else ""
            raise UserError(f"{dataset}: {critical[0].line()}{more}; see {failed / 'docs' / 'index.html'}")
        result = work.finish(data.manifest.digest, _metrics(outcomes), expectations=[o.verdict() for o in outcomes])
    if failed.exists():
        shutil.rmtree(failed)
    passed = sum(o.success for o in outcomes)
    print(f"{out}: {passed} of {len(outcomes)} expectations hold, none critical fails", flush=True)
    return result


@dataclass(frozen=True)
class Tables:
    """What was measured on the images: one row per split, one row per class of a split, and the mean images."""

    splits: pd.DataFrame
    classes: pd.DataFrame
    means: MeanImages


def examine(data: Dataset, params: ValidationParams, checker: Checker) -> tuple[list[Outcome], Tables | None]:
    """Hold a dataset against what is expected of it.

    Args:
        data: the dataset.
        params: the bounds.
        checker: a new one; it keeps the results for the Data Docs.

    Returns:
        What became of each expectation, and the tables. Where the arrays are not what the manifest promises, only
        that was looked at, and there are no tables.

    Raises:
        UserError: an array is missing or unreadable.
    """
    manifest = data.manifest
    outcomes = checker.check("arrays", array_table(data), expect.array_expectations(manifest))
    if not all(outcome.success for outcome in outcomes):
        return outcomes, None
    means = MeanImages(min(data.classes, MAX_CLASSES_DRAWN), manifest.image_size)
    progress = Progress("validate", sum(manifest.counts.values()), "image")
    try:
        images = image_table(data, params.min_pixel_std, means, lambda count: progress.step(count=count))
    finally:
        progress.close()
    splits, classes = split_table(images), class_table(images, manifest)
    about_images = [*expect.image_expectations(data.classes, params), *expect.drift_expectations(splits, params)]
    outcomes += checker.check("images", images, about_images)
    outcomes += checker.check("splits", splits, expect.split_expectations(splits, params))
    outcomes += checker.check("classes", classes, expect.class_expectations(params))
    return outcomes, Tables(splits, classes, means)


def _describe(work: Work, data: Dataset, outcomes: Sequence[Outcome], tables: Tables | None) -> None:
    """Write and log everything that is known."""
    out = work.out
    _write(out / VERDICT, _verdict(outcomes))
    _write(out / "schema.json", _schema(data, outcomes))
    if tables is not None:
        work.run.dataset(data, "validation")
        _write(out / "statistics.json", _statistics(tables.splits, tables.classes))
        draw_counts(tables.classes).savefig(out / "class_counts.png", dpi=110)
        rows = tables.means.rows(data.manifest.class_names)
        draw_rows(rows, titles=LABELLED).savefig(out / "class_means.png", dpi=160)
    for path in sorted(out.glob("*.*")):
        work.run.file(path, "pictures" if path.suffix == ".png" else None)
    work.run.folder(out / "docs", "docs")


def draw_counts(classes: pd.DataFrame) -> Figure:
    """Bars of the number of images of each class (at most 20), one panel per split.

    Args:
        classes: table of `components.shared.checks.image_table.class_table`.
    """
    drawn = classes[classes["label"] < MAX_CLASSES_DRAWN]
    height = 1.2 + 0.24 * drawn["label"].nunique()
    figure = Figure(figsize=(9, height), layout="constrained")
    panels: Any = figure.subplots(1, len(LABELLED), sharey=True)
    for panel, split in zip(panels, LABELLED, strict=True):
        part = drawn[drawn["split"] == split]
        positions = np.arange(len(part))
        bars = panel.barh(positions, part["images"], color="#0072B2")
        panel.bar_label(bars, padding=2, fontsize=8)
        panel.set_yticks(positions, [name[:24] for name in part["class_name"]])
        panel.margins(x=0.18)
        panel.set_title(split)
        panel.set_xlabel("images")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].invert_yaxis()  # shared by all panels
    return figure


def _verdict(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    passed = all(o.success or o.expectation.severity == "warning" for o in outcomes)
    return {"passed": passed, "expectations": [outcome.verdict() for outcome in outcomes]}


def _schema(data: Dataset, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    manifest = data.manifest
    return {
        "class_names": manifest.class_names,
        "image": {"dtype": "uint8", "shape": [manifest.image_size, manifest.image_size, 3], "range": [0, 255]},
        "label": {"dtype": "int64", "range": [0, data.classes - 1], "unlabelled": UNLABELLED},
        "splits": {split: manifest.counts.get(split, 0) for split in SPLITS},
        "expectations": [
            {
                "expectation": o.expectation.name,
                "severity": o.expectation.severity,
                "about": f"{o.expectation.table}.{o.expectation.column}",
                "expected": o.expectation.threshold,
                "meaning": o.expectation.meaning,
            }
            for o in outcomes
        ],
    }


def _statistics(splits: pd.DataFrame, classes: pd.DataFrame) -> dict[str, Any]:
    """Numbers of each split and of each of its classes; brightness in grey levels of 0 to 255."""
    found = {}
    for row in splits.to_dict("records"):
        own = classes[classes["split"] == row["split"]].drop(columns=["split", "missing_images"])
        rest = {str(key): value for key, value in row.items() if key != "split"}
        found[row["split"]] = {**rest, "classes": own.to_dict("records")}
    return found


def _metrics(outcomes: Sequence[Outcome]) -> dict[str, float]:
    failed = [o.expectation.severity for o in outcomes if not o.success]
    return {
        "expectations": len(outcomes),
        "passed": len(outcomes) - len(failed),
        "warnings": failed.count("warning"),
        "critical": failed.count("critical"),
    }


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    command_line("validate", validate)
