"""DVC's experiments as a table of 80 columns: held-out accuracies, verdict, and what each one changed."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from components.shared.errors import UserError, first_line
from components.shared.evaluation.predictions import CANDIDATES
from components.shared.evaluation.wording import hundredths
from components.shared.repository import find_root
from pipelines.experiment import OPEN_TEST, require_git

_WIDTH = 78
_NAME = 30
# what `data=…` and the like change at once would hide the other experiments
_LINES_OF_CHANGES = 4


def print_experiments(all_commits: bool = False) -> None:
    """Print the table.

    Args:
        all_commits: also experiments that started from other commits than the last one.

    Raises:
        UserError: there is no git repository, or DVC can't read the experiments.
    """
    root = find_root()
    require_git(root)
    command = [sys.executable, "-m", "dvc", "exp", "show", "--json", *(["--all-commits"] if all_commits else [])]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"dvc exp show: {first_line(done.stderr)}")
    print("\n".join(table(json.loads(done.stdout))))


def table(shown: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table's lines.

    Args:
        shown: what `dvc exp show --json` answers: the workspace, then commits with their experiments.
    """
    # what the workspace changed is told against the last commit
    commits = [entry for entry in shown if entry["rev"] != "workspace"]
    last = _params(commits[0] if commits else shown[0])
    lines = ["on held-out images, in per cent", _row("", "baseline", "probe", "fine-tuned", "gain", "verdict")]
    for entry in shown:
        experiments = entry.get("experiments") or []
        if entry["rev"] == "workspace":
            lines += _told("workspace", entry, last, "")
        elif entry is commits[0] or experiments:
            lines += _told(entry.get("name") or entry["rev"][:7], entry, _params(entry), "")
        for one in experiments:
            # the last revision is the result
            state = (one.get("executor") or {}).get("state", "")
            name, revision = one.get("name") or one["revs"][-1]["rev"][:7], one["revs"][-1]
            lines += _told(f"  {name}", revision, _params(entry), "" if state == "success" else state)
    return lines


def _told(name: str, entry: Mapping[str, Any], before: Mapping[str, Any], state: str) -> list[str]:
    """An experiment: its numbers, and below them what it changed."""
    data = entry.get("data") or {}
    metrics = _of(data, "metrics", "metrics.json")
    accuracies = [metrics.get(f"{candidate}_validation_accuracy") for candidate in CANDIDATES]
    gain = metrics.get("validation_gain")
    verdict = "" if "judged" not in metrics else "blessed" if metrics.get("blessed") else "not blessed"
    if metrics.get("judged") == 0:
        verdict = "not judged"
    numbers = ["" if value is None else hundredths(value) for value in accuracies]
    numbers.append("" if gain is None else hundredths(gain, "+"))
    long = len(name) >= _NAME
    lines = [name] if long else []
    lines.append(_row("" if long else name, *numbers, "failed" if entry.get("error") else state or verdict))
    changes = [f"{key}={value}" for key, value in _params(entry).items() if before.get(key) != value]
    return lines + _wrapped(changes)


def _row(name: str, *columns: str) -> str:
    baseline, probe, finetune, gain, verdict = columns
    return f"{name:{_NAME}}{baseline:>9}{probe:>7}{finetune:>12}{gain:>7}  {verdict}".rstrip()


def _wrapped(changes: Sequence[str]) -> list[str]:
    lines = textwrap.wrap(
        " ".join(changes), _WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 4, break_on_hyphens=False
    )
    if len(lines) <= _LINES_OF_CHANGES:
        return lines
    return [*lines[: _LINES_OF_CHANGES - 1], f"    … {len(changes)} values in all; `dvc exp show` has them"]


def _params(entry: Mapping[str, Any]) -> dict[str, str]:
    """Dotted name → value as one writes it, but for what `contrastive experiment` sets by itself."""
    found = dict(_leaves(_of(entry.get("data") or {}, "params", "params.yaml"), ""))
    found.pop(OPEN_TEST, None)
    return found


def _of(data: Mapping[str, Any], kind: str, file: str) -> dict[str, Any]:
    """What a file held; nothing where DVC could not read it."""
    return ((data.get(kind) or {}).get(file) or {}).get("data") or {}


def _leaves(values: Mapping[str, Any], above: str) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
