"""What a registered version's tags say of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from components.shared.artifacts import Manifest, Result
from components.shared.evaluation.gate import Blessing
from components.shared.evaluation.wording import gain_in_words
from components.shared.tracking.earlier_runs import StepRun

# of what was measured, those that a reviewer compares versions by
_COMPARED = (
    *("model_mebibytes", "memory_mebibytes", "load_seconds"),
    *("latency_ms_batch_1", "latency_ms_batch_32", "http_latency_ms_batch_1", "http_latency_ms_batch_32"),
)


@dataclass(frozen=True)
class Subject:
    """What a version is made from.

    Attributes:
        blessing: the verdict.
        manifest: of the dataset.
        winner: record of the winner.
        probe: record of the probe, which names the method behind the encoder; None if there is none.
        evaluation: record of the evaluation.
        lineage: tags that say which code, data and pipeline run this is.
        runs: step → its MLflow run.
        measured: by the infrastructure validation, such as `load_seconds`.
    """

    blessing: Blessing
    manifest: Manifest
    winner: Result
    probe: Result | None
    evaluation: Result
    lineage: Mapping[str, str]
    runs: Mapping[str, StepRun]
    measured: Mapping[str, float]


def version_tags(subject: Subject) -> dict[str, str]:
    """Tags of the version, all text; what is not known is left out.

    `test_digest` and `test_accuracy` are what the gate compares the next candidate with, once this version is
    champion. `run.<step>` names each step's MLflow run.
    """
    blessing, lineage = subject.blessing, subject.lineage
    low, high = blessing.interval or (None, None)
    tags = {
        "verdict": "blessed" if blessing.blessed else "not blessed",
        "winner": blessing.winner,
        "gain": _number(blessing.gain),
        "gain_interval": f"{_number(low)} {_number(high)}",
        "confidence": _number(blessing.confidence),
        "dataset": subject.manifest.name,
        "dataset_digest": blessing.dataset_digest,
        "test_digest": blessing.test_digest,
        "test_accuracy": _number(subject.evaluation.metrics.get(f"{blessing.winner}_accuracy")),
        "git_commit": lineage.get("git.commit"),
        "git_dirty": lineage.get("git.dirty"),
        "pipeline_run": lineage.get("pipeline.run"),
        "evaluation_run": subject.evaluation.mlflow_run_id,
        "training_run": subject.winner.mlflow_run_id,
        "method": recorded_name(subject, "method"),
        "encoder": recorded_name(subject, "encoder"),
        **{f"run.{step}": run.run_id for step, run in subject.runs.items()},
        **{name: _number(subject.measured.get(name)) for name in _COMPARED},
    }
    return {key: value for key, value in tags.items() if value}


def recorded_name(subject: Subject, section: str) -> str | None:
    """The name of the method or encoder, from what the steps were given or noted of the encoder."""
    for record in filter(None, (subject.winner, subject.probe)):
        for place in (record.params, record.details):
            value = place.get(section)
            if isinstance(value, dict):
                value = value.get("name")
            if isinstance(value, str):
                return value
    return None


def tagged_gain(tags: Mapping[str, str]) -> str:
    """The gain that a version's tags tell, in words; empty where they do not tell it."""
    gain = _floats(tags.get("gain"))
    interval, confidence = _floats(tags.get("gain_interval")), _floats(tags.get("confidence"))
    if len(gain) != 1:
        return ""
    known = (interval[0], interval[1]) if len(interval) == 2 else None
    return gain_in_words(gain[0], known, confidence[0] if confidence else None)


def _floats(text: str | None) -> list[float]:
    """Numbers of a tag, which somebody may have changed in MLflow's page; none where one is no number."""
    try:
        numbers = [float(part) for part in (text or "").split()]
    except ValueError:
        return []
    return numbers if all(map(math.isfinite, numbers)) else []


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"
