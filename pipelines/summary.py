"""What the last run found, as a table: accuracies, gain, verdict, registered version."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np

from components.shared.artifacts import Result, read_record
from components.shared.cost import in_words, read_cost, total
from components.shared.evaluation.gate import Blessing, read_blessing
from components.shared.evaluation.measured import Measured, read_measured
from components.shared.evaluation.predictions import CANDIDATES, CONTENDERS
from components.shared.evaluation.wording import (
    TITLES,
    choice_in_words,
    hundredths,
    look_in_words,
    mean_and_spread,
    percent,
    span,
)
from components.shared.repository import in_repository

WIDTH = 78
REPORT = "evaluation/report.html; `make ui` opens the MLflow page on all runs"


def print_summary() -> None:
    """Print the table of the repository's evaluation/ and registration/, and what the test images can prove.

    The latter is what `validate` found, and all there is to say before anything was trained.

    Raises:
        UserError: a folder is missing or damaged.
    """
    evaluation, validation = in_repository("evaluation"), in_repository("validation")
    provable = read_record(validation, Result).details.get("provable") if validation.exists() else None
    lines = [] if provable is None else _wrapped("can prove", str(provable))
    if evaluation.exists() or not lines:
        lines = [*table(evaluation, in_repository("registration"), REPORT), *lines]
    print("\n".join(lines))


def table(evaluation: Path, registration: Path | None, report: str) -> list[str]:
    """The summary as lines of plain text under 80 columns.

    Args:
        evaluation: folder of `evaluate`.
        registration: folder of `register`, None where that was not run.
        report: where to read more.

    Raises:
        UserError: a folder is missing or damaged.
    """
    record, blessing = read_record(evaluation, Result), read_blessing(evaluation)
    registered = {} if registration is None else read_record(registration, Result).details
    lines = _accuracies(record, blessing, read_measured(evaluation))
    lines += ["", *_wrapped("verdict", _verdict(blessing))]
    if blessing.verdict == "not blessed":
        for reason in blessing.reasons():
            lines += _wrapped("", f"- {reason}")
    for weaker in blessing.weaker:
        lines += _wrapped("", f"- weaker than the default gate: {weaker}")
    lines += _choice(record, blessing)
    look = look_in_words(blessing.look, blessing.alpha, blessing.policy.get("alpha"))
    if look:
        lines += _wrapped("look", look)
    why = str(registered.get("why", ""))
    if registered.get("registered") is not True:
        # the checks above have told why already, unless all passed
        why = f"not registered: {why}" if blessing.blessed and why else "not registered"
    lines += _wrapped("registry", why)
    spent = total(read_cost(values) for values in (record.details.get("costs") or {}).values())
    lines += _wrapped("cost", in_words(spent)) if spent else []
    return [*lines, *_wrapped("details", report)]


def _choice(record: Result, blessing: Blessing) -> list[str]:
    probe, finetune = (record.metrics.get(f"{name}_validation_accuracy", 0.0) for name in CONTENDERS)
    why = choice_in_words(blessing.winner, probe, finetune)
    return _wrapped("winner", why) if why else []


def _accuracies(record: Result, blessing: Blessing, test: Measured) -> list[str]:
    """A line per model: on held-out images and, where the test set was opened, on test."""
    heads = ("test", f"{percent(blessing.confidence, '.3g')} interval") if blessing.judged else ()
    lines = [_row("accuracy in per cent", "validation", *heads)]
    for name in CANDIDATES:
        known = record.metrics.get(f"{name}_validation_accuracy")
        title = f"{TITLES[name]} (winner)" if name == blessing.winner else TITLES[name]
        tested = mean_and_spread(np.array(test.accuracies[name])) if name in test.accuracies else ""
        validation = "not scored" if known is None else hundredths(known)
        lines.append(_row(title, validation, tested, _ends(test.intervals.get(name))))
    gain = record.metrics.get("validation_gain")
    if gain is not None:
        tested = "" if blessing.gain is None else hundredths(blessing.gain, "+")
        lines.append(_row("gain over the baseline", hundredths(gain, "+"), tested, _ends(blessing.interval, "+")))
    own = blessing.artefact
    if own is not None:
        lines.append(_row("the model that ships", "", hundredths(own.accuracy), _ends((own.low, own.high))))
    return lines


def _row(title: str, validation: str, test: str = "", interval: str = "") -> str:
    return f"{title:26}{validation:>12}{test:>14}   {interval}".rstrip()


def _ends(interval: tuple[float, float] | None, sign: str = "") -> str:
    return "" if interval is None else span(interval, sign)


def _verdict(blessing: Blessing) -> str:
    if blessing.closed:
        return f"{blessing.verdict}: the test set stayed closed: {blessing.closed}"
    return f"{blessing.verdict}: every check of the gate passed" if blessing.blessed else blessing.verdict


def _wrapped(label: str, text: str) -> list[str]:
    # a path must stay whole
    wrapper = textwrap.TextWrapper(WIDTH, f"{label:10}", " " * 10, break_long_words=False, break_on_hyphens=False)
    return wrapper.wrap(text)
