"""Evaluate: is the contrastive model better than its rival, surely enough to be put up for review?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from components.shared.artifacts import Dataset
from components.shared.errors import UserError
from components.shared.evaluation.champion import Champion, read_champion
from components.shared.evaluation.evidence import Scores
from components.shared.evaluation.gate import BLESSING, BOOTSTRAP_SEED, Blessing, decide, score
from components.shared.evaluation.predictions import CANDIDATES, TEST, Candidate, Truth, read_candidate
from components.shared.evaluation.report import Findings, write_report
from components.shared.evaluation.statistics import accuracy_interval
from components.shared.evaluation.wording import PRETRAINING_PROBE
from components.shared.params.schema import Params, to_plain
from components.shared.step import Work, command_line, working
from components.shared.tracking.lineage import lineage
from components.shared.training.curves import Curve, read_curve, write_curves


def evaluate(
    dataset: Path, probe: Path, baseline: Path, finetune: Path, champion: Path, out: Path, params: Params
) -> Blessing:
    """Compare the probe and the fine-tuned model with the baseline.

    Writes into `out`: `blessing.json` (the verdict and its reasons), `metrics.json`, `curves.csv`,
    `confusion.csv`, pictures, `report.html` and `result.json`. A model that is missing, damaged or about other
    images makes the verdict "not blessed"; it does not stop the step.

    Args:
        dataset: folder of `ingest`.
        probe: folder of `probe`.
        baseline: folder of `baseline`.
        finetune: folder of `finetune`.
        champion: folder of `champion`.
        out: folder to write.
        params: with section `gate`.

    Raises:
        UserError: the dataset or the champion's record is missing or damaged, or `out` can't be written.
    """
    data = Dataset(dataset)
    folders = {"probe": Path(probe), "baseline": Path(baseline), "finetune": Path(finetune)}
    inputs = {"dataset": Path(dataset), **folders, "champion": Path(champion)}
    best = read_champion(champion)
    with working("evaluate", out, params, inputs, data.manifest.name) as work:
        work.run.dataset(data, TEST)
        findings = _compare(work, data, folders, best)
        _write(work, findings)
    blessing = findings.blessing
    print(f"evaluate: {'blessed' if blessing.blessed else 'not blessed'}")
    for reason in blessing.reasons():
        print(f"  {reason}")
    return blessing


def _compare(work: Work, data: Dataset, folders: Mapping[str, Path], champion: Champion) -> Findings:
    truth, gate = Truth.of(data), work.params.gate
    candidates, unreadable = _read(folders)
    blessing = decide(candidates, unreadable, truth, gate, champion)
    scores = score(candidates, truth)
    intervals = {
        name: accuracy_interval(found.right, gate.confidence, gate.resamples, BOOTSTRAP_SEED)
        for name, found in scores.items()
    }
    return Findings(
        manifest=data.manifest,
        truth=truth,
        blessing=blessing,
        candidates=candidates,
        scores=scores,
        intervals=intervals,
        curves=_curves(folders),
        search=None,
        published=None,
        budgets={},
        lineage=lineage(),
        params=to_plain(work.params),
        run_id=work.run.id,
    )


def _read(folders: Mapping[str, Path]) -> tuple[dict[str, Candidate], list[str]]:
    candidates, unreadable = {}, []
    for name in CANDIDATES:
        try:
            candidates[name] = read_candidate(name, folders[name])
        except UserError as error:
            unreadable.append(str(error))
    return candidates, unreadable


def _curves(folders: Mapping[str, Path]) -> list[Curve]:
    models = {"baseline": "baseline", PRETRAINING_PROBE: "probe", "finetune": "finetune"}
    found = [read_curve(model, folders[name] / "curves.csv") for model, name in models.items()]
    return [curve for curve in found if curve is not None]


def _write(work: Work, findings: Findings) -> None:
    blessing = findings.blessing
    (work.out / BLESSING).write_text(blessing.model_dump_json(indent=2) + "\n")
    write_curves(work.out / "curves.csv", findings.curves)
    _write_confusion(work.out / "confusion.csv", findings)
    write_report(work.out, findings)
    metrics = _metrics(findings)
    (work.out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    for path in sorted(work.out.iterdir()):
        work.run.file(path)
    work.run.tags({"blessed": str(blessing.blessed).lower(), "winner": blessing.winner or "none"})
    work.finish(
        findings.manifest.digest,
        metrics,
        blessed=blessing.blessed,
        winner=blessing.winner,
        accuracies={name: found.accuracy.tolist() for name, found in findings.scores.items()},
        intervals={name: list(interval) for name, interval in findings.intervals.items()},
        recall={name: _recall(found) for name, found in findings.scores.items()},
        runs={name: candidate.result.mlflow_run_id for name, candidate in findings.candidates.items()},
    )


def _recall(scores: Scores) -> list[float | None]:
    """Per class, mean over seeds; None without test images of the class."""
    return [float(value) if np.isfinite(value) else None for value in scores.recall.mean(axis=0)]


def _metrics(findings: Findings) -> dict[str, float]:
    """Flat numbers for `dvc metrics`; one that could not be computed is left out, never NaN."""
    blessing = findings.blessing
    metrics = {f"{name}_accuracy": float(found.accuracy.mean()) for name, found in findings.scores.items()}
    if "probe" in findings.scores:
        known = findings.candidates["probe"].result.metrics
        metrics |= {name: value for name, value in known.items() if name.startswith("knn") and np.isfinite(value)}
    if blessing.gain is not None and blessing.interval is not None:
        metrics |= {"gain": blessing.gain, "gain_low": blessing.interval[0], "gain_high": blessing.interval[1]}
    metrics["blessed"] = int(blessing.blessed)
    return metrics


def _write_confusion(path: Path, findings: Findings) -> None:
    predicted, names = findings.predicted(), np.array(findings.truth.class_names)
    table = pd.DataFrame(columns=["actual", "predicted"])
    if predicted is not None:
        table = pd.DataFrame({"actual": names[findings.truth.labels[TEST]], "predicted": names[predicted]})
    table.to_csv(path, index=False)


if __name__ == "__main__":
    command_line("evaluate", evaluate)
