"""What a registered version's tags say of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from components.shared.artifacts import Manifest, Result
from components.shared.evaluation.gate import Blessing
from components.shared.evaluation.measured import Measured
from components.shared.evaluation.wording import gain_in_words
from components.shared.registry.versions import DETAILS, tagged_numbers
from components.shared.tracking.earlier_runs import StepRun

# what people want at a glance, and what decisions depend on: the page shows few tags at a time
_OWN = ("verdict", "weaker", "test_accuracy", "gain", "dataset", "dataset_digest", "method")
# of what was measured, what a reviewer compares versions by, and how the model card words it
MEASURED = {
    "model_mebibytes": "file {:,.1f} MiB",
    "memory_mebibytes": "memory {:,.0f} MiB",
    "load_seconds": "loads in {:,.1f} s",
    "latency_ms_batch_1": "answers one image in {:,.0f} ms",
    "latency_ms_batch_32": "32 in {:,.0f} ms",
    "http_latency_ms_batch_1": "over HTTP one in {:,.0f} ms",
    "http_latency_ms_batch_32": "32 in {:,.0f} ms",
}


@dataclass(frozen=True)
class Subject:
    """What a version is made from.

    Attributes:
        blessing: the verdict.
        manifest: of the dataset.
        winner: record of the winner.
        probe: record of the probe, which names the method behind the encoder.
        evaluation: record of the evaluation.
        test: what the evaluation measured on test.
        lineage: tags that say which code, data and pipeline run this is.
        runs: step → its MLflow run.
        measured: by the infrastructure validation, such as `load_seconds`.
        overrides: of the whole run; None where they are not known.
    """

    blessing: Blessing
    manifest: Manifest
    winner: Result
    probe: Result
    evaluation: Result
    test: Measured
    lineage: Mapping[str, str]
    runs: Mapping[str, StepRun]
    measured: Mapping[str, float]
    overrides: Sequence[str] | None = None


def version_tags(subject: Subject) -> dict[str, str]:
    """Tags of the version, all text; what is not known is left out.

    Most stand in `details`, from which `components.shared.registry.versions.all_tags` reads them.
    `test_accuracy` and its interval are those of the exported model itself. `weaker` names the gate's options that
    ask less than its defaults. `run.<step>` names each step's MLflow run.
    """
    blessing, lineage = subject.blessing, subject.lineage
    low, high = blessing.interval or (None, None)
    own = blessing.artefact
    tags = {
        "verdict": blessing.verdict,
        "weaker": "; ".join(blessing.weaker),
        "look": str(blessing.look or ""),
        "options_changed": "true" if blessing.options_changed else "",
        "replicates": str(blessing.replicates or ""),
        "winner": blessing.winner,
        "gain": _number(blessing.gain),
        "gain_interval": f"{_number(low)} {_number(high)}",
        "confidence": _number(blessing.confidence),
        "dataset": subject.manifest.name,
        "dataset_digest": blessing.dataset_digest,
        "test_digest": blessing.test_digest,
        "test_accuracy": _number(own.accuracy) if own else "",
        "test_accuracy_interval": f"{_number(own.low)} {_number(own.high)}" if own else "",
        "git_commit": lineage.get("git.commit"),
        "git_dirty": lineage.get("git.dirty"),
        "pipeline_run": lineage.get("pipeline.run"),
        "evaluation_run": subject.evaluation.mlflow_run_id,
        "training_run": subject.winner.mlflow_run_id,
        "method": recorded_name(subject, "method"),
        "encoder": recorded_name(subject, "encoder"),
        **{f"run.{step}": run.run_id for step, run in subject.runs.items()},
        **{name: _number(subject.measured.get(name)) for name in MEASURED},
    }
    known = {key: value for key, value in tags.items() if value}
    details = {key: value for key, value in known.items() if key not in _OWN}
    return {**{key: known[key] for key in _OWN if key in known}, DETAILS: json.dumps(details)}


def recorded_name(subject: Subject, section: str) -> str | None:
    """The name of the method or encoder, from what the steps noted of the encoder."""
    found = subject.winner.details.get(section) or subject.probe.details.get(section)
    return str(found) if found else None


def tagged_gain(tags: Mapping[str, str]) -> str:
    """The gain that a version's tags tell, in words; empty where they do not tell it."""
    gain, interval, confidence = (tagged_numbers(tags, name) for name in ("gain", "gain_interval", "confidence"))
    if len(gain) != 1:
        return ""
    known = (interval[0], interval[1]) if len(interval) == 2 else None
    return gain_in_words(gain[0], known, confidence[0] if confidence else None)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"
