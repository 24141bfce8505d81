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
    interval_in_words,
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
    evaluation = in_repository("evaluation")
    lines = _provable() if in_repository("dataset").is_dir() else []
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
    lines = [f"{'accuracy in per cent':24}{'validation':>12}{'test' if blessing.judged else '':>15}".rstrip()]
    for name in CANDIDATES:
        known = record.metrics.get(f"{name}_validation_accuracy")
        validation = "not scored" if known is None else f"{100 * known:.1f}"
        tested = mean_and_spread(np.array(test.accuracies[name])) if name in test.accuracies else ""
        won = "   winner on validation" if name == blessing.winner else ""
        lines.append(f"{TITLES[name]:24}{validation:>12}{tested if tested or won else '':>15}{won}".rstrip())
    gain = record.metrics.get("validation_gain")
    if gain is not None:
        tested, interval = "", ""
        if blessing.gain is not None and blessing.interval is not None:
            tested = f"{100 * blessing.gain:+.1f}"
            interval = f"   {interval_in_words(blessing.interval, blessing.confidence)}"
        lines.append(f"{'gain over the baseline':24}{100 * gain:>+12.1f}{tested:>15}{interval}".rstrip())
    own = blessing.artefact
    if own is not None:
        interval = f"{100 * blessing.confidence:.3g} % interval {100 * own.low:.1f} to {100 * own.high:.1f}"
        lines.append(f"{'the model that ships':24}{'':12}{100 * own.accuracy:>15.1f}   {interval}")
    return lines


def _verdict(blessing: Blessing) -> str:
    if blessing.closed:
        return f"{blessing.verdict}: the test set stayed closed: {blessing.closed}"
    return f"{blessing.verdict}: every check of the gate passed" if blessing.blessed else blessing.verdict


def _provable() -> list[str]:
    """The smallest gain that these test images and replicates can show, at the first look."""
    images = read_record(in_repository("dataset"), Manifest).counts["test"]
    params = load_params(in_repository("params.yaml"))
    return _wrapped("can prove", provable_in_words(images, len(params.runtime.replicates), params.gate.alpha))


def _wrapped(label: str, text: str) -> list[str]:
    # a path must stay whole
    wrapper = textwrap.TextWrapper(WIDTH, f"{label:10}", " " * 10, break_long_words=False, break_on_hyphens=False)
    return wrapper.wrap(text)
