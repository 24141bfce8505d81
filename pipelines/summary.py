"""What the last run found, as a table: accuracies, gain, verdict, registered version."""

from __future__ import annotations

import textwrap

import numpy as np

from components.shared.artifacts import Result, read_record
from components.shared.evaluation.gate import Blessing, read_blessing
from components.shared.evaluation.predictions import CANDIDATES
from components.shared.evaluation.statistics import spread
from components.shared.evaluation.wording import TITLES, interval_in_words, points
from components.shared.repository import in_repository

WIDTH = 78
REPORT = "evaluation/report.html; `make ui` opens the MLflow page on all runs"


def print_summary() -> None:
    """Print the table of the repository's evaluation/ and registration/.

    Raises:
        UserError: a folder is missing or damaged.
    """
    evaluation = in_repository("evaluation")
    record, blessing = read_record(evaluation, Result), read_blessing(evaluation)
    registration = read_record(in_repository("registration"), Result)
    print("\n".join(table(record, blessing, registration, REPORT)))


def table(evaluation: Result, blessing: Blessing, registration: Result | None, report: str) -> list[str]:
    """The summary as lines of plain text under 80 columns.

    Args:
        evaluation: record of `evaluate`.
        blessing: its verdict.
        registration: record of `register`, None where that was not run.
        report: where to read more.
    """
    lines = [f"{'':24}{'test accuracy':>15}   seeds"]
    for name in CANDIDATES:
        values = 100 * np.array(evaluation.details.get("accuracies", {}).get(name, []))
        number = f"{values.mean():.1f} ± {spread(values):.1f} %" if len(values) else "not scored"
        won = "   winner on validation" if name == blessing.winner else ""
        lines.append(f"{TITLES[name]:24}{number:>15}   {len(values):>5}{won}")
    if blessing.gain is not None and blessing.interval is not None:
        interval = interval_in_words(blessing.interval, blessing.confidence)
        lines.append(f"{'gain over the baseline':24}{points(blessing.gain, '+'):>15}   {interval}")
    lines.append("")
    lines += _wrapped("verdict", "blessed: every check of the gate passed" if blessing.blessed else "not blessed")
    for reason in blessing.reasons():
        lines += _wrapped("", f"- {reason}")
    registered = {} if registration is None else registration.details
    why = str(registered.get("why", ""))
    if registered.get("registered") is not True:
        # the checks above have told why already, unless all passed
        why = f"not registered: {why}" if blessing.blessed and why else "not registered"
    return [*lines, *_wrapped("registry", why), *_wrapped("details", report)]


def _wrapped(label: str, text: str) -> list[str]:
    # a path must stay whole
    wrapper = textwrap.TextWrapper(WIDTH, f"{label:10}", " " * 10, break_long_words=False, break_on_hyphens=False)
    return wrapper.wrap(text)
