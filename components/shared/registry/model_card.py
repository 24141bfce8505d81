"""The model card of a registered version: what a reviewer, and whoever calls the model, must know of it.

Markdown (`templates/model_card.md.j2`), within the 5,000 characters that the registry keeps. MLflow's page sets the
columns of a table close to each other, so tables are text of fixed width, with what varies in width last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from components.shared.cost import in_words, read_cost, total
from components.shared.evaluation.predictions import CANDIDATES
from components.shared.evaluation.wording import (
    TITLES,
    hundredths,
    look_in_words,
    mean_and_spread,
    percent,
    points,
    span,
)
from components.shared.registry.uris import version_uri
from components.shared.registry.version_tags import MEASURED, Subject, recorded_name, tagged_gain, version_tags
from components.shared.templates import render
from components.shared.tracking.lineage import made_again

LONGEST = 5000
_TEMPLATE = Path(__file__).with_name("templates") / "model_card.md.j2"
# how many classes are named, and how many of the best and of the worst are in the table: the first that fits
_SHORTER = ((30, 5), (20, 4), (12, 3), (8, 2), (4, 1), (0, 1), (0, 0))
_LONGEST_NAME, _LONGEST_WHY, _LONGEST_COMMAND = 40, 150, 600


def model_card(subject: Subject, name: str, number: str) -> str:
    """The card, with as many classes as it has room for.

    Args:
        subject: what the version is made from.
        name: of the registered model.
        number: of the version.
    """
    blessing, test, changes = subject.blessing, subject.test, _changes(subject)
    facts = {
        **vars(subject),
        "model": name,
        "number": number,
        "code": _code,
        "plain": _plain,
        "sentence": _sentence,
        "titles": TITLES,
        "candidates": CANDIDATES,
        "percent": percent,
        "hundredths": hundredths,
        "span": span,
        "accuracies": {name: mean_and_spread(np.array(values)) for name, values in test.accuracies.items()},
        "intervals": test.intervals,
        "own": blessing.artefact,
        "look": look_in_words(blessing.look, blessing.alpha, blessing.policy.get("alpha")),
        "confidence": _confidence(subject),
        "gain": tagged_gain(version_tags(subject)),
        "encoder": recorded_name(subject, "encoder"),
        "method": recorded_name(subject, "method"),
        "scored": len(changes),
        "weakest": min(changes, key=lambda row: row["recall"], default=None),
        "in_use": [text.format(subject.measured[key]) for key, text in MEASURED.items() if key in subject.measured],
        "cost": _cost(subject),
        "again": _again(subject),
        "uri": version_uri(name, number),
    }
    card = ""
    for classes, ends in _SHORTER:
        slices = changes if len(changes) <= 2 * ends else [*changes[:ends], *changes[len(changes) - ends :]]
        card = render(_TEMPLATE, **facts, classes=classes, slices=slices).strip()
        if len(card) <= LONGEST:
            break
    return card


def about_model(subject: Subject, name: str) -> str:
    """What a registered model is, for its own page: Markdown.

    Args:
        subject: what its first version is made from.
        name: of the registered model.
    """
    classes = len(subject.manifest.class_names)
    return (
        f"Classifiers of images of the kind of {_code(subject.manifest.name)}, {classes:,} classes, each from an "
        "encoder that was pretrained by contrast. A version is here because the gate has blessed it.\n\n"
        f"- A version's description is its **model card**: accuracy, intended use, limits, how to call it.\n"
        f"- The alias `challenger` waits for **review**: `contrastive review show <version> --model {name}`; "
        "`champion` is the one to use.\n"
        "- The card's last lines lead to the runs, and so to the report with its pictures.\n"
    )


def _cost(subject: Subject) -> str:
    """What all steps cost that the evaluation knows of; empty where it knows of none."""
    known = subject.evaluation.details.get("costs") or {}
    spent = total(read_cost(values) for values in known.values())
    return in_words(spent) if spent else ""


def _again(subject: Subject) -> str:
    """The command that makes the run again; empty where the card has no room for it."""
    command = made_again(subject.lineage, subject.overrides)
    return command if len(command) <= _LONGEST_COMMAND else ""


def _confidence(subject: Subject) -> str:
    """What a probability is worth, as far as it was measured."""
    measured = subject.test.calibration.get(subject.blessing.winner or "", {})
    if "ece" not in measured:
        return ""
    temperature, why = (subject.winner.details.get(name) for name in ("temperature", "temperature_why"))
    how = f", after a temperature of {temperature:.3g}{f' ({_cut(why, 60)})' if why else ''}" if temperature else ""
    return f"A probability is off by {points(measured['ece'])} on average (ECE){how}. "


def _changes(subject: Subject) -> list[dict[str, Any]]:
    """Each class's recall, and how it changed against the baseline's; the one that lost most comes first."""
    recall: Mapping[str, Any] = subject.test.recall
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
    return f"`{_plain(text, longest)}`"


def _plain(text: str, longest: int = _LONGEST_NAME) -> str:
    """The same within a block of code."""
    return _cut(text.replace("`", "'").replace("|", "/"), longest)


def _sentence(text: str) -> str:
    """A sentence that quotes others' names, as it reads."""
    escaped = re.sub(r"([\\`*_\[\]])", r"\\\1", _cut(text, _LONGEST_WHY).replace("|", "/"))
    return escaped.replace("<", "&lt;")


def _cut(text: str, longest: int) -> str:
    joined = " ".join(text.split())
    return joined if len(joined) <= longest else joined[: longest - 1] + "…"
