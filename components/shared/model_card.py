"""What a registered version says of itself: its tags, and a short model card for reviewers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from components.shared.artifacts import Manifest, Result
from components.shared.gate import NAMES, Blessing, Check

_MAX_CLASS_NAMES = 20


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
    """

    blessing: Blessing
    manifest: Manifest
    winner: Result
    probe: Result | None
    evaluation: Result
    lineage: Mapping[str, str]


def version_tags(subject: Subject) -> dict[str, str]:
    """Tags of the version, all text; what is not known is left out.

    `test_digest` and `test_accuracy` are what the gate compares the next candidate with, once this version is
    champion.
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
        "test_accuracy": _number(_mean_accuracy(blessing)),
        "git_commit": lineage.get("git.commit"),
        "git_dirty": lineage.get("git.dirty"),
        "pipeline_run": lineage.get("pipeline.run"),
        "evaluation_run": subject.evaluation.mlflow_run_id,
        "training_run": subject.winner.mlflow_run_id,
        "method": _name(subject, "method"),
        "encoder": _name(subject, "encoder"),
    }
    return {key: value for key, value in tags.items() if value}


def model_card(subject: Subject) -> str:
    """A short model card in Markdown."""
    tags, blessing = version_tags(subject), subject.blessing
    manifest, evaluation = subject.manifest, subject.evaluation
    size, classes = manifest.image_size, manifest.class_names
    names = ", ".join(classes[:_MAX_CLASS_NAMES]) + (", …" if len(classes) > _MAX_CLASS_NAMES else "")
    origin = " ".join(filter(None, [tags.get("encoder"), "pretrained with", tags.get("method", "contrast")]))
    lines = [
        f"**{NAMES[blessing.winner or ''].capitalize()}** on {manifest.name}: {origin}, "
        f"{manifest.counts['unlabelled']:,} unlabelled and {manifest.counts['train']:,} labelled images.",
        "",
        f"In: uint8 images (N, {size}, {size}, 3). Out: float32 probabilities (N, {len(classes)}) of {names}.",
        "",
        *_accuracy_table(evaluation),
        "",
        "| check | passed | why |",
        "|---|---|---|",
        *(_check_row(check) for check in blessing.checks),
        "",
        f"Judged once on {manifest.counts['test']:,} test images; the encoder was pretrained once, and the "
        "exported model is one of several seeds. Nothing is known of images from elsewhere.",
        "",
        f"Commit {tags.get('git_commit', 'unknown')}, dataset {manifest.digest[:12]}, "
        f"report: `report.html` of MLflow run {evaluation.mlflow_run_id}.",
    ]
    return "\n".join(lines)


def _accuracy_table(evaluation: Result) -> list[str]:
    rows = [
        f"| {name} | {value:.1%} |"
        for name in ("baseline", "probe", "finetune")
        if (value := evaluation.metrics.get(f"{name}_accuracy")) is not None
    ]
    return ["| model | test accuracy, mean over seeds |", "|---|---|", *rows]


def _check_row(check: Check) -> str:
    return f"| {check.name} | {'yes' if check.passed else 'no'} | {check.why.replace('|', '/')} |"


def _mean_accuracy(blessing: Blessing) -> float | None:
    return next((check.value for check in blessing.checks if check.name == "floor"), None)


def _name(subject: Subject, section: str) -> str | None:
    """The name of the method or encoder, from what the steps were given or noted of the encoder."""
    for record in filter(None, (subject.winner, subject.probe)):
        for place in (record.params, record.details):
            value = place.get(section)
            if isinstance(value, dict):
                value = value.get("name")
            if isinstance(value, str):
                return value
    return None


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"
