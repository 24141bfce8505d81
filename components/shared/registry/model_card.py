"""The model card of a registered version: what a reviewer, and whoever calls the model, must know of it.

Markdown, within the 5,000 characters that the registry keeps. MLflow's page sets the columns of a table close to
each other, so what varies in width comes last.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from components.shared.evaluation.evidence import Check
from components.shared.evaluation.wording import TITLES, gain_in_words
from components.shared.registry.version_tags import Subject, recorded_name

LONGEST = 5000
# how many classes are named, and how many of the best and of the worst are in the table: the first that fits
_SHORTER = ((30, 5), (20, 4), (12, 3), (8, 2), (4, 1), (0, 1), (0, 0))
_LONGEST_NAME, _LONGEST_WHY = 40, 150


def model_card(subject: Subject, name: str, number: str) -> str:
    """The card, with as many classes as it has room for.

    Args:
        subject: what the version is made from.
        name: of the registered model.
        number: of the version.
    """
    card = ""
    for classes, slices in _SHORTER:
        card = "\n\n".join(filter(None, _sections(subject, f"models:/{name}/{number}", classes, slices)))
        if len(card) <= LONGEST:
            break
    return card


def _sections(subject: Subject, uri: str, classes: int, slices: int) -> list[str]:
    return [
        _headline(subject),
        _intended_use(subject, classes),
        _data(subject),
        _method(subject),
        _numbers(subject),
        _slices(subject, slices),
        _infrastructure(subject.measured),
        _limits(subject),
        _reproduce(subject),
        _call(subject, uri),
        _runs(subject),
    ]


def _headline(subject: Subject) -> str:
    blessing = subject.blessing
    verdict = "Blessed" if blessing.blessed else "Not blessed"
    if blessing.gain is None:
        return f"**{verdict}.**"
    gain = gain_in_words(blessing.gain, blessing.interval, blessing.confidence)
    return (
        f"**{verdict}: {gain} of accuracy over the same network trained from scratch**, "
        f"on {subject.manifest.counts['test']:,} test images."
    )


def _intended_use(subject: Subject, classes: int) -> str:
    names, size = subject.manifest.class_names, subject.manifest.image_size
    listed = ", ".join(_code(name) for name in names[:classes])
    if listed and len(names) > classes:
        listed += f" and {len(names) - classes:,} more"
    return (
        f"### Intended use\nTo tell which of {len(names):,} classes an image of the kind of "
        f"{_code(subject.manifest.name)} shows{': ' + listed if listed else ''}. It takes colour images of "
        f"{size}×{size} pixels and answers a probability for each class. Not for images that show none of the "
        "classes (it always answers one), nor for decisions about people without a check of its own."
    )


def _data(subject: Subject) -> str:
    manifest = subject.manifest
    counts = manifest.counts
    each = f" ({manifest.labels_per_class:,} per class)" if manifest.labels_per_class else ""
    return (
        f"### Data\n{_code(manifest.name)}, from {_code(manifest.source, 80)}: {counts['unlabelled']:,} images "
        f"without labels and {counts['train']:,} with labels{each} to learn from, {counts['validation']:,} to "
        f"choose by, {counts['test']:,} to judge by. Digest {_code(manifest.digest[:12])}, of the test images "
        f"{_code(manifest.test_digest[:12])}."
    )


def _method(subject: Subject) -> str:
    encoder, method = (recorded_name(subject, section) for section in ("encoder", "method"))
    winner, details = subject.blessing.winner or "", subject.winner.details
    rate = details.get("learning_rate")
    trained = {
        "probe": "a linear classifier on its frozen features",
        "finetune": "then trained on, with a classifier on top, on the images with labels"
        + (f" (learning rate {rate:g})" if isinstance(rate, float) else ""),
    }.get(winner, winner)
    seeds = len(subject.evaluation.details.get("accuracies", {}).get(winner, []))
    return (
        f"### Method\n{TITLES[winner].capitalize()}: the encoder {_code(encoder or 'unknown')}, pretrained once "
        f"with {_code(method or 'contrast')} on all training images, {trained}. "
        + (f"Of {seeds} seeds this is the one that was best on validation. " if seeds > 1 else "")
        + "The baseline is the same network from random weights, with the same labels and at least as many steps."
    )


def _numbers(subject: Subject) -> str:
    blessing, evaluation = subject.blessing, subject.evaluation
    intervals = evaluation.details.get("intervals", {})
    rows = [
        f"| {value:.1%} | {_range(intervals.get(name))} | {title}{' (this)' if name == blessing.winner else ''} |"
        for name, title in TITLES.items()
        if (value := evaluation.metrics.get(f"{name}_accuracy")) is not None
    ]
    return "\n".join(
        [
            "### Numbers\nMeans over seeds, on the test images, which chose nothing.",
            "",
            *_table(("test accuracy", f"{_confidence(subject)} interval", "model"), rows),
            "",
            *_table(("passed", "check of the gate"), map(_check, blessing.checks)),
        ]
    )


def _slices(subject: Subject, slices: int) -> str:
    """Classes by how their recall changed against the baseline, the worst and the best of them."""
    recall = subject.evaluation.details.get("recall", {})
    ours, theirs = recall.get(subject.blessing.winner), recall.get("baseline")
    if not ours or not theirs or not slices:
        return ""
    known = [
        (our - their, our, their, name)
        for name, our, their in zip(subject.manifest.class_names, ours, theirs, strict=False)
        if our is not None and their is not None
    ]
    known.sort()
    shown = known if len(known) <= 2 * slices else [*known[:slices], *known[-slices:]]
    which = f", the {slices} that lost and the {slices} that gained most" if len(shown) < len(known) else ""
    weakest = min(known, key=lambda row: row[1])
    rows = (f"| {100 * gain:+.1f} | {our:.1%} against {their:.1%} | {_code(n)} |" for gain, our, their, n in shown)
    return "\n".join(
        [
            f"### Slices\nRecall per class{which}. The weakest is {_code(weakest[3])}, with {weakest[1]:.1%}.",
            "",
            *_table(("points", "recall against the baseline's", "class"), rows),
        ]
    )


def _infrastructure(measured: Mapping[str, float]) -> str:
    parts = [
        f"{text} {measured[name]:,.{digits}f} {unit}"
        for name, text, digits, unit in (
            ("model_mebibytes", "file", 1, "MiB"),
            ("memory_mebibytes", "memory", 0, "MiB"),
            ("load_seconds", "loads in", 1, "s"),
            ("latency_ms_batch_1", "answers one image in", 0, "ms"),
            ("latency_ms_batch_32", "32 in", 0, "ms"),
            ("http_latency_ms_batch_1", "over HTTP one in", 0, "ms"),
            ("http_latency_ms_batch_32", "32 in", 0, "ms"),
        )
        if name in measured
    ]
    if not parts:
        return ""
    return (
        "### In use\nLoaded in a fresh process and served by MLflow, it answered as in training and refused "
        f"malformed requests. On the registering machine: {', '.join(parts)}."
    )


def _limits(subject: Subject) -> str:
    return (
        f"### Limits\nJudged once, on {subject.manifest.counts['test']:,} images from the same source; nothing is "
        "known of others. Intervals cover test images and seeds, not another pretraining. Probabilities are not "
        "calibrated. The server cuts fractions off pixel values: send whole numbers from 0 to 255, not 0 to 1."
    )


def _reproduce(subject: Subject) -> str:
    lineage = subject.lineage
    commit, data = lineage.get("git.commit", "unknown"), lineage.get("dvc.data")
    dirty = " with changes that were not committed" if "git.dirty" in lineage else ""
    checkout = f"git checkout {commit}\n" if commit != "unknown" else ""
    digests = {"ingest": subject.manifest, subject.winner.step: subject.winner, "evaluate": subject.evaluation}
    return (
        f"### Reproduce\n```\n{checkout}make repro\n```\nfrom commit {_code(commit[:12])}{dirty}"
        + (f", data {_code(data[:12])}" if data else "")
        + ", with each run's parameters (digests: "
        + ", ".join(f"{step} {_code(record.params_digest[:8])}" for step, record in digests.items())
        + ")."
    )


def _call(subject: Subject, uri: str) -> str:
    size = subject.manifest.image_size
    return (
        f"### Call\nWith `MLFLOW_TRACKING_URI` set:\n```\nimport mlflow\n"
        f'model = mlflow.pyfunc.load_model("{uri}")\n'
        f"model.predict(images)  # uint8 (N, {size}, {size}, 3) to (N, {len(subject.manifest.class_names)})\n"
        'model.metadata.metadata["class_names"]\n```\n```\n'
        f"mlflow models serve -m {uri} --env-manager local -p 5001 &\n"
        f"mlflow artifacts download -u {uri}/serving_input_example.json -d .\n"
        "curl -d @serving_input_example.json -H 'Content-Type: application/json' \\\n"
        "  http://127.0.0.1:5001/invocations\n```"
    )


def _runs(subject: Subject) -> str:
    linked = [
        f"[{step}]({run.link})" if run.link else f"{step} {_code(run.run_id)}" for step, run in subject.runs.items()
    ]
    return f"### Runs\n{', '.join(linked)}. The report is `report.html` of evaluate." if linked else ""


def _table(head: Iterable[str], rows: Iterable[str]) -> list[str]:
    names = list(head)
    return [f"| {' | '.join(names)} |", "|" + "---|" * len(names), *rows]


def _check(check: Check) -> str:
    return f"| {'yes' if check.passed else 'no'} | {check.name}: {_escaped(_cut(check.why, _LONGEST_WHY))} |"


def _confidence(subject: Subject) -> str:
    return f"{100 * subject.blessing.confidence:g} %"


def _range(interval: Any) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}" if interval else ""


def _code(text: str, longest: int = _LONGEST_NAME) -> str:
    """Text of others' making, which Markdown must not take for its own."""
    return f"`{_cut(text.replace('`', chr(39)).replace('|', '/'), longest)}`"


def _escaped(text: str) -> str:
    """A sentence that quotes others' names, as it reads."""
    return re.sub(r"([\\`*_\[\]])", r"\\\1", text.replace("|", "/")).replace("<", "&lt;")


def _cut(text: str, longest: int) -> str:
    joined = " ".join(text.split())
    return joined if len(joined) <= longest else joined[: longest - 1] + "…"
