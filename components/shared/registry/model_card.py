"""The model card of a registered version: what a reviewer, and whoever calls the model, must know of it.

Markdown (`templates/model_card.md.j2`), within the 5,000 characters that the registry keeps. MLflow's page sets the
columns of a table close to each other, so what varies in width comes last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.shared.evaluation.predictions import CANDIDATES
from components.shared.evaluation.wording import TITLES, gain_in_words
from components.shared.registry.uris import version_uri
from components.shared.registry.version_tags import Subject, recorded_name
from components.shared.templates import render

LONGEST = 5000
_TEMPLATE = Path(__file__).with_name("templates") / "model_card.md.j2"
# how many classes are named, and how many of the best and of the worst are in the table: the first that fits
_SHORTER = ((30, 5), (20, 4), (12, 3), (8, 2), (4, 1), (0, 1), (0, 0))
_LONGEST_NAME, _LONGEST_WHY = 40, 150
_MEASURED = {
    "model_mebibytes": "file {:,.1f} MiB",
    "memory_mebibytes": "memory {:,.0f} MiB",
    "load_seconds": "loads in {:,.1f} s",
    "latency_ms_batch_1": "answers one image in {:,.0f} ms",
    "latency_ms_batch_32": "32 in {:,.0f} ms",
    "http_latency_ms_batch_1": "over HTTP one in {:,.0f} ms",
    "http_latency_ms_batch_32": "32 in {:,.0f} ms",
}


def model_card(subject: Subject, name: str, number: str) -> str:
    """The card, with as many classes as it has room for.

    Args:
        subject: what the version is made from.
        name: of the registered model.
        number: of the version.
    """
    facts, changes = _facts(subject), _changes(subject)
    card = ""
    for classes, ends in _SHORTER:
        slices = changes if len(changes) <= 2 * ends else [*changes[:ends], *changes[len(changes) - ends :]]
        card = render(_TEMPLATE, **facts, uri=version_uri(name, number), classes=classes, slices=slices)
        if len(card) <= LONGEST:
            break
    return card


def _facts(subject: Subject) -> dict[str, Any]:
    blessing, manifest, evaluation = subject.blessing, subject.manifest, subject.evaluation
    records = {"ingest": manifest, subject.winner.step: subject.winner, "evaluate": evaluation}
    winner, intervals, changes = blessing.winner, evaluation.details.get("intervals", {}), _changes(subject)
    rate = subject.winner.details.get("learning_rate")
    return {
        "code": _code,
        "sentence": _sentence,
        "titles": TITLES,
        "blessing": blessing,
        "verdict": "Blessed" if blessing.blessed else "Not blessed",
        "gain": blessing.gain is not None and gain_in_words(blessing.gain, blessing.interval, blessing.confidence),
        "winner": winner,
        "manifest": manifest,
        "counts": manifest.counts,
        "size": manifest.image_size,
        "encoder": recorded_name(subject, "encoder"),
        "method": recorded_name(subject, "method"),
        "rate": f"{rate:g}" if isinstance(rate, float) else None,
        "seeds": len(evaluation.details.get("accuracies", {}).get(winner, [])),
        "models": [
            {"name": name, "accuracy": accuracy, "interval": intervals.get(name)}
            for name in CANDIDATES
            if (accuracy := evaluation.metrics.get(f"{name}_accuracy")) is not None
        ],
        "scored": len(changes),
        "weakest": min(changes, key=lambda row: row["recall"], default=None),
        "measured": [
            text.format(subject.measured[name]) for name, text in _MEASURED.items() if name in subject.measured
        ],
        "commit": subject.lineage.get("git.commit", "unknown"),
        "dirty": "git.dirty" in subject.lineage,
        "data": subject.lineage.get("dvc.data"),
        "digests": {step: record.params_digest for step, record in records.items()},
        "runs": subject.runs,
    }


def _changes(subject: Subject) -> list[dict[str, Any]]:
    """Each class's recall, and how it changed against the baseline's; the one that lost most comes first."""
    recall: Mapping[str, Any] = subject.evaluation.details.get("recall", {})
    pairs = zip(
        subject.manifest.class_names,
        recall.get(subject.blessing.winner or "", []),
        recall.get("baseline", []),
        strict=False,
    )
    known = [
        {"name": name, "recall": ours, "baseline": theirs, "change": ours - theirs}
        for name, ours, theirs in pairs
        if ours is not None and theirs is not None
    ]
    return sorted(known, key=lambda row: row["change"])


def _code(text: str, longest: int = _LONGEST_NAME) -> str:
    """Text of others' making, which Markdown must not take for its own."""
    return f"`{_cut(text.replace('`', chr(39)).replace('|', '/'), longest)}`"


def _sentence(text: str) -> str:
    """A sentence that quotes others' names, as it reads."""
    escaped = re.sub(r"([\\`*_\[\]])", r"\\\1", _cut(text, _LONGEST_WHY).replace("|", "/"))
    return escaped.replace("<", "&lt;")


def _cut(text: str, longest: int) -> str:
    joined = " ".join(text.split())
    return joined if len(joined) <= longest else joined[: longest - 1] + "…"
