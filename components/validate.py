"""Validate: is the dataset fit to learn from? A critical failure stops the pipeline.

Reads `dataset/`; writes `validation/`: `verdict.json` (what holds and what does not), `statistics.json`,
`schema.json` (classes, sizes, ranges, all expectations with their bounds), `docs/` (Data Docs: open
`docs/index.html`; `docs/findings/` lists all images of each finding), a picture of the classes, `result.json`,
and `digest.txt`, the digest of the dataset that passed. Of a dataset that fails, the same files but the last two
lie in `validation.failed/`, until the next one that passes. Where the registry has a champion, the dataset is
compared with the one that it was trained on. The last line printed says what the test images can prove with the
replicates that are asked for.

The stages that wait for the verdict ask `digest.txt`: another expectation, bound or champion does not make them
train again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from components.shared.artifacts import SPLITS, UNLABELLED, Dataset, Result, output_folder, refuse_foreign
from components.shared.checks.checker import Checker
from components.shared.checks.drift import drift_table, in_words, moved_images, summarize
from components.shared.checks.expectations import Outcome, Table, array_expectations, content_expectations
from components.shared.checks.findings import Finding, find_images, other_tables
from components.shared.checks.image_table import (
    LABELLED,
    array_table,
    class_means,
    class_table,
    image_table,
    split_table,
)
from components.shared.checks.page import write_page
from components.shared.checks.verdict import VERDICT, Verdict
from components.shared.errors import UserError
from components.shared.evaluation.predictions import TEST, image_digests
from components.shared.evaluation.wording import provable_in_words
from components.shared.params.schema import Params, ValidationParams
from components.shared.plots.grids import draw_rows
from components.shared.registry.accepted_dataset import AcceptedDataset, accepted_dataset
from components.shared.registry.ledger import RegistryLedger
from components.shared.step import Work, command_line, working

MAX_CLASSES_DRAWN = 20


def validate(dataset: Path, out: Path, params: Params) -> Result:
    """Check a dataset and describe it.

    Args:
        dataset: folder written by `ingest`.
        out: folder to write. Beside it, `<out>.failed/` keeps what was found when the dataset fails.
        params: reads validation; gate.alpha and runtime.replicates to tell what the test images can prove; and
            registry, to tell what changed since the champion.

    Returns:
        The record that is written to `result.json`.

    Raises:
        UserError: the dataset is missing or damaged, a file of it was replaced since it was ingested, or it fails a
            critical expectation; or an expectation can't be asked.
    """
    data, out = Dataset(dataset), Path(out)
    data.check_digests()
    failed = out.with_name(f"{out.name}.failed")
    refuse_foreign(failed, [VERDICT])
    with working("validate", out, params, {"dataset": Path(dataset)}, data.manifest.name) as work:
        checker = Checker(work.out / "docs", data.manifest.name)
        accepted, origin = accepted_dataset(params.registry.champion_model)
        outcomes, tables = examine(data, params.validation, checker, accepted)
        drift = [origin]
        if "drift" in tables:
            drift = [f"since {origin}: {line}" for line in in_words(tables["drift"])]
        findings = [find_images(outcome, tables) for outcome in outcomes if not outcome.success]
        checker.write_docs()
        write_page(work.out / "docs", data, checker, outcomes, findings, tables, drift)
        verdict = _verdict(outcomes, findings)
        _describe(work, data, outcomes, tables, verdict)
        for line in drift:
            print(f"validate: {line}", flush=True)
        failures: dict[str, list[Finding]] = {"critical": [], "warning": []}
        for finding in findings:
            failures[finding.outcome.expectation.severity].append(finding)
        critical, warnings = failures["critical"], failures["warning"]
        for finding in warnings:
            print(f"validate: warning: {finding.line()}", flush=True)
        if critical:
            with output_folder(failed, [VERDICT]) as kept:
                shutil.copytree(work.out, kept, dirs_exist_ok=True)
            more = f" ({len(critical) - 1} more critical)" if len(critical) > 1 else ""
            raise UserError(f"{dataset}: {critical[0].line()}{more}; see {failed / 'docs' / 'index.html'}")
        passed = len(outcomes) - len(warnings)
        metrics = {"expectations": len(outcomes), "passed": passed, "warnings": len(warnings), "critical": 0}
        provable = _provable(data, params)
        (work.out / "digest.txt").write_text(data.manifest.digest + "\n")
        result = work.finish(
            data.manifest.digest, metrics, expectations=verdict.expectations, provable=provable, drift=drift
        )
    if failed.exists():
        shutil.rmtree(failed)
    print(f"{out}: {verdict.in_words()}", flush=True)
    print(f"validate: {provable}", flush=True)
    return result


def _provable(data: Dataset, params: Params) -> str:
    """What these test images can prove, in words, before anything is trained."""
    if not data.classes:
        return "without labels nothing can be proven: pretrain, and use the encoder (`contrastive embed`)"
    place, assumed = 1, ""
    try:
        place = RegistryLedger().expected("not trained yet", image_digests(data, TEST))
    except UserError as error:
        assumed = f" (assumed: the first look; {error})"
    alpha, replicates = params.gate.alpha, len(params.runtime.replicates)
    return provable_in_words(len(data.labels(TEST)), replicates, alpha, place) + assumed


def examine(
    data: Dataset, params: ValidationParams, checker: Checker, accepted: AcceptedDataset | None = None
) -> tuple[list[Outcome], dict[Table, pd.DataFrame]]:
    """Hold a dataset against what is expected of it.

    Args:
        data: the dataset.
        params: the bounds.
        checker: a new one; it keeps the results for the Data Docs.
        accepted: what the last accepted dataset was like, None where there is none.

    Returns:
        What became of each expectation, and the tables (images, splits, classes, drift). Where the
        arrays are not what the manifest promises, only that was looked at, and there are no tables.

    Raises:
        UserError: an array is missing or unreadable, or an expectation can't be asked.
    """
    outcomes = checker.check("arrays", array_table(data), array_expectations(data.manifest))
    if not all(outcome.success for outcome in outcomes):
        return outcomes, {}
    images = image_table(data, params.min_pixel_std)
    tables: dict[Table, pd.DataFrame] = {
        "images": images,
        "splits": split_table(images),
        "classes": class_table(images, data.manifest),
    }
    others = other_tables(data.folder)
    if "near_copies" in others:
        tables["near_copies"] = others["near_copies"]
    if accepted is not None:
        now = summarize(tables["splits"], tables["classes"], data.manifest.class_names)
        moved = moved_images(data, accepted.training, accepted.test)
        tables["drift"] = drift_table(accepted.statistics, now, moved)
    expectations = content_expectations(tables, data.classes, params)
    for name, table in tables.items():
        outcomes += checker.check(name, table, [e for e in expectations if e.table == name])
    return outcomes, tables


def _verdict(outcomes: Sequence[Outcome], findings: Sequence[Finding]) -> Verdict:
    return Verdict(
        passed=all(finding.outcome.expectation.severity == "warning" for finding in findings),
        expectations=[outcome.verdict() for outcome in outcomes],
        findings=[finding.found() for finding in findings],
    )


def _describe(
    work: Work,
    data: Dataset,
    outcomes: Sequence[Outcome],
    tables: Mapping[Table, pd.DataFrame],
    verdict: Verdict,
) -> None:
    """Write and log everything that is known."""
    out = work.out
    _write(out / VERDICT, verdict.model_dump())
    _write(out / "schema.json", _schema(data, outcomes))
    if tables:
        work.run.dataset(data, "validation")
        _write(out / "statistics.json", _statistics(tables["splits"], tables["classes"]))
        if data.classes:
            draw_rows(class_means(data, MAX_CLASSES_DRAWN), titles=LABELLED).savefig(
                out / "class_means.png", dpi=160
            )
    for path in sorted(out.glob("*.*")):
        work.run.file(path, "pictures" if path.suffix == ".png" else None)
    work.run.file(out / "docs", "docs")


def _schema(data: Dataset, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    manifest = data.manifest
    return {
        "class_names": manifest.class_names,
        "image": {"dtype": "uint8", "shape": manifest.image_shape, "range": [0, 255]},
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


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    command_line("validate", validate)
