"""Evaluate: is the contrastive model better than its rival, surely enough to be put up for review?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from components.shared.artifacts import Dataset, Result, read_record
from components.shared.checks.verdict import VERDICT, Verdict, read_verdict
from components.shared.cost import Cost, read_cost
from components.shared.errors import UserError
from components.shared.evaluation.champion import Champion, read_champion
from components.shared.evaluation.evidence import Rivals
from components.shared.evaluation.examples import Examples, find_examples
from components.shared.evaluation.gate import BLESSING, Blessing, decide, held_out, score
from components.shared.evaluation.markdown import excerpt
from components.shared.evaluation.measured import MEASURED, Measured, measure
from components.shared.evaluation.predictions import (
    CANDIDATES,
    TEST,
    Candidate,
    Truth,
    read_candidate,
    read_suspects,
    twins_of_test,
)
from components.shared.evaluation.pretraining import read_pretraining
from components.shared.evaluation.report import Findings, write_report
from components.shared.evaluation.slices import find_slices
from components.shared.evaluation.statistics import accuracy
from components.shared.evaluation.tables import classes_table, mistakes_table, write_table
from components.shared.evaluation.wording import PRETRAINING_PROBE
from components.shared.params.schema import Params, to_plain
from components.shared.registry.ledger import RegistryLedger
from components.shared.registry.rivals import ask_rivals
from components.shared.step import Work, command_line, working
from components.shared.steps import STEPS
from components.shared.tracking.lineage import lineage
from components.shared.tracking.run import under
from components.shared.training.curves import Curve, read_curve, with_search, write_curves

# for MLflow's evaluation view
TABLES = ("mistakes.json", "classes.json")


def evaluate(
    dataset: Path,
    validation: Path,
    search: Path,
    probe: Path,
    baseline: Path,
    finetune: Path,
    champion: Path,
    out: Path,
    params: Params,
    overrides: Sequence[str] | None = None,
) -> Blessing:
    """Compare the probe and the fine-tuned model with the baseline, and the winner with the champion.

    Writes into `out`: `blessing.json` (the verdict and its reasons), `metrics.json` (held-out numbers and the
    verdict, to choose by), `curves.csv`, `confusion.csv`, pictures, `report.html` and the same as `report.md`,
    `result.json` and, only if the test set was opened, `test.json` (what was measured there), `mistakes.json` and
    `classes.json` (tables for MLflow's page). What is missing, damaged or about other images, of the models, the
    search and the checks of the data, makes the verdict "not blessed"; it does not stop the step.

    Args:
        dataset: folder of `ingest`.
        validation: folder of `validate`.
        search: folder of `search`.
        probe: folder of `probe`.
        baseline: folder of `baseline`.
        finetune: folder of `finetune`.
        champion: folder of `champion`.
        out: folder to write.
        params: with section `gate`, and `registry.require_signature`.
        overrides: of the whole run, for the report, which tells how to make it again; None: not known.

    Raises:
        UserError: the dataset or the champion's record is missing or damaged, no image has a label, or `out` can't
            be written.
    """
    data = Dataset(dataset)
    data.require_labels()
    data.check_digests()
    folders = {
        "validation": Path(validation),
        "search": Path(search),
        "probe": Path(probe),
        "baseline": Path(baseline),
        "finetune": Path(finetune),
    }
    inputs = {"dataset": Path(dataset), **folders, "champion": Path(champion)}
    # the file alone has what counts of it
    inputs["validation"] /= VERDICT
    best = read_champion(champion)
    with working("evaluate", out, params, inputs, data.manifest.name) as work:
        work.run.dataset(data, TEST)
        findings = _compare(work, data, folders, best, overrides)
        for name, candidate in findings.candidates.items():
            if candidate.exported_run is not None:
                work.run.uses(candidate.exported_run, name)
        _write(work, data, findings)
    blessing = findings.blessing
    print(f"evaluate: {blessing.verdict}")
    for reason in blessing.reasons():
        print(f"  {reason}")
    for line in [*findings.drift, *findings.twins]:
        print(f"evaluate: {line}")
    return blessing


def _compare(
    work: Work,
    data: Dataset,
    folders: Mapping[str, Path],
    champion: Champion,
    overrides: Sequence[str] | None,
) -> Findings:
    truth, gate, signed = Truth.of(data), work.params.gate, work.params.registry.require_signature
    candidates, search, checks, unreadable = _read(folders, data.manifest.digest)
    asked: list[Rivals] = []

    def rivals() -> Rivals:
        asked.append(ask_rivals(champion, data, gate.skip_champions, signed))
        return asked[-1]

    blessing = decide(candidates, unreadable, search, truth, gate, RegistryLedger(), rivals, find_slices(data))
    scores = score(candidates, truth) if blessing.judged else {}
    measured, examples = Measured(), Examples()
    if scores and blessing.winner is not None:
        measured = measure(blessing, candidates, scores, truth, folders, twins_of_test(data))
        before, after = (candidates[name].exported_answers() for name in ("baseline", blessing.winner))
        examples = find_examples(data, before, after, folders["probe"])
    picture, augmentations = folders["probe"] / "suspects.png", folders["search"] / "augmentations.png"
    return Findings(
        manifest=data.manifest,
        truth=truth,
        blessing=blessing,
        candidates=candidates,
        validated={name: accuracy(right) for name, right in held_out(candidates, truth).items()},
        scores=scores,
        curves=_curves(folders),
        pretraining=read_pretraining(folders["probe"] / "curves.csv"),
        search=search,
        measured=measured,
        costs=_costs(data, candidates, search),
        lineage=lineage(),
        params=to_plain(work.params),
        run_id=work.run.id,
        overrides=overrides,
        rivals=asked[0] if asked else Rivals(no_drift="the champion was not asked"),
        suspects=read_suspects(folders["probe"]),
        suspects_picture=picture if picture.exists() else None,
        augmentations_picture=augmentations if augmentations.exists() else None,
        examples=examples,
        checks=checks,
    )


def _read(
    folders: Mapping[str, Path], dataset_digest: str
) -> tuple[dict[str, Candidate], Result | None, Verdict | None, list[str]]:
    candidates, search, checks, unreadable = {}, None, None, []
    try:
        checks = read_verdict(folders["validation"], dataset_digest)
    except UserError as error:
        unreadable.append(str(error))
    try:
        search = read_record(folders["search"], Result)
    except UserError as error:
        unreadable.append(str(error))
    for name in CANDIDATES:
        try:
            candidates[name] = read_candidate(name, folders[name])
        except UserError as error:
            unreadable.append(str(error))
    return candidates, search, checks, unreadable


def _costs(data: Dataset, candidates: Mapping[str, Candidate], search: Result | None) -> dict[str, Cost]:
    """What each step cost, of those whose records tell it; that of pretraining is in the probe's."""
    records = {"ingest": data.manifest, "search": search}
    records |= {name: candidates[name].result if name in candidates else None for name in CANDIDATES}
    found = {name: record.cost if record else None for name, record in records.items()}
    if "probe" in candidates:
        found["pretrain"] = read_cost(candidates["probe"].result.details.get("pretraining_cost"))
    return {step: cost for step in STEPS if (cost := found.get(step)) is not None}


def _curves(folders: Mapping[str, Path]) -> list[Curve]:
    models = {"baseline": "baseline", PRETRAINING_PROBE: "probe", "finetune": "finetune"}
    found = [read_curve(model, folders[name] / "curves.csv") for model, name in models.items()]
    return [with_search(curve, folders["search"] / f"{curve.model}.csv") for curve in found if curve is not None]


def _write(work: Work, data: Dataset, findings: Findings) -> None:
    blessing = findings.blessing
    (work.out / BLESSING).write_text(blessing.model_dump_json(indent=2) + "\n")
    write_curves(work.out / "curves.csv", findings.curves)
    _write_confusion(work.out / "confusion.csv", findings)
    _write_tables(work.out, data, findings)
    if blessing.judged:
        (work.out / MEASURED).write_text(findings.measured.model_dump_json(indent=2) + "\n")
    write_report(work.out, findings)
    metrics = _metrics(findings)
    (work.out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    for path in sorted(work.out.iterdir()):
        work.run.file(path)
    work.run.show_tables([name for name in TABLES if (work.out / name).exists()])
    records = {name: candidate.result for name, candidate in findings.candidates.items()}
    if findings.search is not None:
        records = {"search": findings.search, **records}
    tags = {"verdict": blessing.verdict, "blessed": str(blessing.blessed).lower()}
    # MLflow's page shows it as the run's description
    tags["mlflow.note.content"] = excerpt((work.out / "report.md").read_text(encoding="utf-8"))
    work.run.tags({**tags, "winner": blessing.winner or "none"})
    # what one compares pipelines by
    work.run.pipeline.metrics(under("result", metrics))
    work.finish(
        findings.manifest.digest,
        metrics,
        verdict=blessing.verdict,
        blessed=blessing.blessed,
        winner=blessing.winner,
        drift=findings.drift,
        runs={name: record.mlflow_run_id for name, record in records.items()},
        costs={step: cost.model_dump() for step, cost in findings.costs.items()},
    )


def _metrics(findings: Findings) -> dict[str, float]:
    """Flat numbers to choose by, for `dvc metrics`: of held-out images, the verdict, and how far images have moved.

    None tells how well a model does on test.
    """
    blessing, means = findings.blessing, {name: float(found.mean()) for name, found in findings.validated.items()}
    metrics = {f"{name}_validation_accuracy": mean for name, mean in means.items()}
    if blessing.winner is not None:
        metrics["validation_gain"] = means[blessing.winner] - means["baseline"]
    metrics |= {f"feature_drift_{moved.split}": round(moved.times, 3) for moved in findings.rivals.drift}
    return {**metrics, "judged": int(blessing.judged), "blessed": int(blessing.blessed)}


def _write_tables(out: Path, data: Dataset, findings: Findings) -> None:
    predicted = findings.predicted()
    if predicted is None or findings.winner is None:
        return
    answers = findings.winner.exported_answers()
    mistakes = mistakes_table(data, findings.candidates["baseline"].exported_answers(), answers)
    for name, table in zip(TABLES, (mistakes, classes_table(data, findings.measured, predicted)), strict=True):
        write_table(out / name, table)


def _write_confusion(path: Path, findings: Findings) -> None:
    predicted, names = findings.predicted(), np.array(findings.truth.class_names)
    table = pd.DataFrame(columns=["actual", "predicted"])
    if predicted is not None:
        table = pd.DataFrame({"actual": names[findings.truth.labels[TEST]], "predicted": names[predicted]})
    table.to_csv(path, index=False)


if __name__ == "__main__":
    command_line("evaluate", evaluate)
