"""What the last run found, as a table: accuracies, gain, verdict, registered version."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np

from components.shared.artifacts import Manifest, Result, read_record
from components.shared.evaluation.gate import Blessing, read_blessing
from components.shared.evaluation.measured import Measured, read_measured
from components.shared.evaluation.predictions import CANDIDATES
from components.shared.evaluation.wording import (
    TITLES,
    look_in_words,
    mean_and_spread,
    provable_in_words,
)
from components.shared.params.schema import load_params
from components.shared.repository import in_repository

WIDTH = 78
REPORT = "evaluation/report.html; `make ui` opens the MLflow page on all runs"


def print_summary() -> None:
    """Print the table of the repository's evaluation/ and registration/, and what the test images can prove.

    Before anything was evaluated, what the test images can prove is all there is to say.

    Raises:
        UserError: a folder is missing or damaged.
    """
    evaluation, dataset = in_repository("evaluation"), in_repository("dataset")
    lines = []
    if evaluation.exists() or not dataset.exists():
        lines = table(evaluation, in_repository("registration"), REPORT)
    if dataset.exists():
        place = read_blessing(evaluation).look if lines else None
        lines += _provable(read_record(dataset, Manifest).counts["test"], place or 1)
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
    look = look_in_words(blessing.look, blessing.alpha, blessing.policy.get("alpha"))
    if look:
        lines += _wrapped("look", look)
    why = str(registered.get("why", ""))
    if registered.get("registered") is not True:
        # the checks above have told why already, unless all passed
        why = f"not registered: {why}" if blessing.blessed and why else "not registered"
    return [*lines, *_wrapped("registry", why), *_wrapped("details", report)]


def _accuracies(record: Result, blessing: Blessing, test: Measured) -> list[str]:
    """A line per model: on held-out images and, where the test set was opened, on test."""
    heads = ("test", f"{100 * blessing.confidence:.3g} % interval") if blessing.judged else ()
    lines = [_row("accuracy in per cent", "validation", *heads)]
    for name in CANDIDATES:
        known = record.metrics.get(f"{name}_validation_accuracy")
        title = f"{TITLES[name]} (winner)" if name == blessing.winner else TITLES[name]
        tested = mean_and_spread(np.array(test.accuracies[name])) if name in test.accuracies else ""
        validation = "not scored" if known is None else f"{100 * known:.1f}"
        lines.append(_row(title, validation, tested, _ends(test.intervals.get(name))))
    gain = record.metrics.get("validation_gain")
    if gain is not None:
        tested = "" if blessing.gain is None else f"{100 * blessing.gain:+.1f}"
        lines.append(_row("gain over the baseline", f"{100 * gain:+.1f}", tested, _ends(blessing.interval, "+")))
    own = blessing.artefact
    if own is not None:
        lines.append(_row("the model that ships", "", f"{100 * own.accuracy:.1f}", _ends((own.low, own.high))))
    return lines


def _row(title: str, validation: str, test: str = "", interval: str = "") -> str:
    return f"{title:26}{validation:>12}{test:>14}   {interval}".rstrip()


def _ends(interval: tuple[float, float] | None, sign: str = "") -> str:
    return "" if interval is None else " to ".join(f"{100 * end:{sign}.1f}" for end in interval)


def _verdict(blessing: Blessing) -> str:
    if blessing.closed:
        return f"{blessing.verdict}: the test set stayed closed: {blessing.closed}"
    return f"{blessing.verdict}: every check of the gate passed" if blessing.blessed else blessing.verdict


def _provable(images: int, place: int) -> list[str]:
    """The smallest gain that these test images and the replicates of params.yaml can show."""
    params = load_params(in_repository("params.yaml"))
    said = provable_in_words(images, len(params.runtime.replicates), params.gate.alpha, place)
    return _wrapped("can prove", said)


def _wrapped(label: str, text: str) -> list[str]:
    # a path must stay whole
    wrapper = textwrap.TextWrapper(WIDTH, f"{label:10}", " " * 10, break_long_words=False, break_on_hyphens=False)
    return wrapper.wrap(text)
