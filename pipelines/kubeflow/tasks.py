"""What became of a run and of each of its steps, out of what the API tells.

Kubeflow Pipelines reports the nodes of the workflow that it runs as. A step "probe" is three of them:
"probe-driver" prepares it and looks into the cache, "probe" stands for all of it, and below that "executor" is the
pod, which is left out (SKIPPED) when the answer was in the cache.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

ENDED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")
_DRIVER = "-driver"
_GROUP = re.compile(r"root|(condition(-branches)?|exit-handler|for-loop)-\d+")
_EXECUTOR = re.compile(r"executor(\(\d+\))?")


@dataclass(frozen=True)
class Task:
    """One step of a run.

    `state` is in words: waiting, running, succeeded, cached, skipped, failed, canceled, unknown. `seconds` is how
    long it has taken so far, None if it did not begin; `pod` is where its log is.
    """

    name: str
    state: str
    seconds: float | None = None
    error: str = ""
    pod: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state not in ("waiting", "running")


def tasks(run: Any, now: datetime | None = None) -> list[Task]:
    """The steps that a run has come to, in the order they began.

    Args:
        run: `V2beta1Run`.
        now: to time what still runs; default: now.
    """
    details = sorted(
        (run.run_details.task_details or []) if run.run_details else [],
        key=lambda detail: _moment(detail.create_time) or datetime.max.replace(tzinfo=UTC),
    )
    by_name: dict[str, Any] = {}
    for detail in details:
        by_name.setdefault(str(detail.display_name), detail)
    drivers = [name for name in by_name if name.endswith(_DRIVER)]
    names = [name.removesuffix(_DRIVER) for name in drivers] or list(by_name)
    steps = [name for name in names if not _GROUP.fullmatch(name)]
    moment = now or datetime.now(UTC)
    over = run.state in ENDED
    return [_task(name, by_name, details, moment, over) for name in steps]


def message(error: Any) -> str:
    """The one line that an error of the API holds."""
    return " ".join(str(error.message or "").split())[:300] if error is not None else ""


def seconds(start: Any, end: Any, now: datetime | None = None) -> float | None:
    """Time between two moments of the API; None before the start, up to now while there is no end."""
    began = _moment(start)
    if began is None:
        return None
    until = _moment(end) or now or datetime.now(UTC)
    return max((until - began).total_seconds(), 0.0)


def took(duration: float | None) -> str:
    """A duration for a person to read, such as "2 h 05 min" or "31 s"; nothing for None."""
    if duration is None:
        return ""
    whole = round(duration)
    hours, minutes, left = whole // 3600, whole % 3600 // 60, whole % 60
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {left:02} s" if minutes else f"{left} s"


def when(moment: Any) -> str:
    """A moment for a person to read, in UTC to the minute; nothing for one that did not come."""
    found = _moment(moment)
    return f"{found:%Y-%m-%d %H:%M}" if found else ""


def described(run: Any, link: str | None) -> dict[str, Any]:
    """A run as plain values, for programs."""
    end = run.finished_at if run.state in ENDED else None
    reference = run.pipeline_version_reference
    return {
        "id": run.run_id,
        "name": run.display_name,
        "state": run.state,
        "created": _iso(run.created_at),
        "finished": _iso(end),
        "seconds": seconds(run.created_at, end),
        "error": message(run.error),
        "experiment_id": run.experiment_id,
        "pipeline_version_id": reference.pipeline_version_id if reference else run.pipeline_version_id,
        "recurring_run_id": run.recurring_run_id,
        "parameters": (run.runtime_config.parameters if run.runtime_config else None) or {},
        "link": link,
        "tasks": [asdict(task) for task in tasks(run)],
    }


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows of text under headings, in columns."""
    widths = [max(len(row[column]) for row in [headings, *rows]) for column in range(len(headings))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in [headings, *rows]
    ]
    return "\n".join(line.rstrip() for line in lines)


def _task(name: str, by_name: dict[str, Any], details: list[Any], now: datetime, over: bool) -> Task:
    driver, node = by_name.get(f"{name}{_DRIVER}"), by_name.get(name)
    shown: Any = node or driver
    executors = _executors(node, details) if node is not None else []
    state = _state(node, driver, executors)
    if over and state in ("waiting", "running"):
        # the last words on a step are sometimes lost; it can't go on when its run has ended
        state = "unknown"
    pod = next((str(found.pod_name) for found in reversed(executors) if found.pod_name), "")
    # tries before a good one are no error of the step; of a bad one, the pod knows more than the whole
    told = (*reversed(executors), node, driver) if state in ("failed", "canceled", "unknown") else ()
    error = next((said for found in told if found is not None and (said := message(found.error))), "")
    taken = None if state in ("skipped", "waiting") else seconds(shown.start_time, shown.end_time, now)
    return Task(name, state, taken, error, pod)


def _state(node: Any, driver: Any, executors: list[Any]) -> str:
    if node is None:
        return "failed" if driver.state == "FAILED" else "waiting"
    if node.state == "SUCCEEDED" and any(found.state == "SKIPPED" for found in executors):
        return "cached"
    known = {state: state.lower() for state in (*ENDED, "RUNNING")} | {"CANCELING": "running"}
    return known.get(str(node.state), "waiting")


def _executors(node: Any, details: list[Any]) -> list[Any]:
    """The pods of a step: nodes below it, which it names by a number that their pods' names end in as well."""
    found, seen, open_nodes = [], set(), [node]
    while open_nodes:
        for child in open_nodes.pop().child_tasks or []:
            key = _number(child.pod_name)
            for detail in details:
                if key and key == _number(detail.pod_name) and id(detail) not in seen:
                    seen.add(id(detail))
                    if _EXECUTOR.fullmatch(str(detail.display_name)):
                        found.append(detail)
                        open_nodes.append(detail)
    return found


def _number(pod: Any) -> str:
    return str(pod or "").rsplit("-", 1)[-1]


def _moment(value: Any) -> datetime | None:
    # the API writes the year 1 or 1970 for "not yet"
    if not isinstance(value, datetime) or value.year <= 1970:
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _iso(value: Any) -> str | None:
    found = _moment(value)
    return found.isoformat() if found else None
