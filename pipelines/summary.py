"""What the last run found, as a table: accuracies, gain, verdict, registered version."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from components.shared.artifacts import Result, read_record
from components.shared.evaluation.gate import Blessing, read_blessing
from components.shared.evaluation.predictions import CANDIDATES
from components.shared.evaluation.statistics import spread
from components.shared.evaluation.wording import TITLES, interval_in_words, points
from components.shared.repository import in_repository

WIDTH = 78
REPORT = "evaluation/report.html; `make ui` opens the MLflow page on all runs"


def print_summary(evaluation: Path | None = None, registration: Path | None = None) -> None:
    """Print the table.

    Args:
        evaluation, registration: folders of the two steps; None takes the repository's.

    Raises:
        UserError: a folder is missing or damaged.
    """
    evaluation = evaluation or in_repository("evaluation")
    registration = registration or in_repository("registration")
    record, blessing = read_record(evaluation, Result), read_blessing(evaluation)
    print("\n".join(table(record, blessing, read_record(registration, Result), REPORT)))


def table(evaluation: Result, blessing: Blessing, registration: Result | None, report: str) -> list[str]:
    """The summary as lines of plain text under 80 columns.

    Args:
        evaluation: record of `evaluate`.
        blessing: its verdict.
        registration: record of `register`, None where that was not run.
        report: where to read more.
    """
    accuracies = evaluation.details.get("accuracies", {})
    return [
        f"{'':24}{'test accuracy':>15}   seeds",
        *(_model(TITLES[name], accuracies.get(name, []), name == blessing.winner) for name in CANDIDATES),
        *_gain(blessing),
        "",
        *_verdict(blessing),
        *_wrapped("registry", _registered(blessing, registration)),
        *_wrapped("details", report),
    ]


def _model(title: str, accuracies: Sequence[float], won: bool) -> str:
    if not accuracies:
        return f"{title:24}{'not scored':>15}"
    values = 100 * np.array(accuracies)
    number = f"{values.mean():.1f} ± {spread(values):.1f} %"
    return f"{title:24}{number:>15}   {len(accuracies):>5}" + ("   winner on validation" if won else "")


def _gain(blessing: Blessing) -> list[str]:
    if blessing.gain is None or blessing.interval is None:
        return []
    interval = interval_in_words(blessing.interval, blessing.confidence)
    return [f"{'gain over the baseline':24}{points(blessing.gain, '+'):>15}   {interval}"]


def _verdict(blessing: Blessing) -> list[str]:
    if blessing.blessed:
        return _wrapped("verdict", "blessed: every check of the gate passed")
    lines = _wrapped("verdict", "not blessed")
    for reason in blessing.reasons():
        lines += textwrap.wrap(reason, WIDTH, initial_indent=" " * 10 + "- ", subsequent_indent=" " * 12)
    return lines


def _registered(blessing: Blessing, registration: Result | None) -> str:
    if registration is None:
        return "not registered"
    if registration.details.get("registered") is True:
        return str(registration.details["why"])
    # the checks above have told why already
    return f"not registered: {registration.details.get('why', 'unknown')}" if blessing.blessed else "not registered"


def _wrapped(label: str, text: str) -> list[str]:
    # a path must stay whole
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=f"{label:10}",
        subsequent_indent=" " * 10,
        break_long_words=False,
        break_on_hyphens=False,
    )
