"""Runs on a cluster: starting, what became of each step, and following one to its end.

Kubeflow Pipelines reports the nodes of the workflow that it runs as. A step "probe" is three of them:
"probe-driver" prepares it and looks into the cache, "probe" stands for all of it, and below that "executor" is the
pod, which is left out (SKIPPED) when the answer was in the cache.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

from components.shared.errors import UserError
from pipelines.kubeflow.client import Client, ClusterError
from pipelines.kubeflow.releases import Published, Release

ENDED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")
FAILED = 3
INTERRUPTED = 130
# seconds between two tries at a lost server, at most
LONGEST_WAIT = 60.0
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


def start_run(
    client: Client, release: Release, version: Published, experiment_id: str, service_account: str | None
) -> Any:
    """Start a run of a version."""
    # KFP's client prints links
    with contextlib.redirect_stdout(io.StringIO()):
        return client.run_pipeline(
            experiment_id,
            f"{release.pipeline} {version.name} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}",
            params=release.parameters,
            pipeline_id=version.pipeline_id,
            version_id=version.version_id,
            service_account=service_account,
        )


def get_run(client: Client, run_id: str) -> Any:
    """A run by its id.

    Raises:
        UserError: there is none.
        ClusterError: the server refused or was lost.
    """
    try:
        return client.get_run(run_id)
    except ClusterError as error:
        if error.status == 404:
            raise UserError(f"RUN = {run_id}: no such run; `contrastive kubeflow status` lists them") from None
        raise


def cancel_run(client: Client, run_id: str) -> None:
    """Tell a run to stop.

    Raises:
        UserError: there is no such run, or it has ended.
    """
    run = get_run(client, run_id)
    if run.state in ENDED:
        raise UserError(f"RUN = {run_id}: has ended ({str(run.state).lower()}); there is nothing to stop")
    client.terminate_run(run_id)


def follow(client: Client, run_id: str, interval: float, patience: float) -> int:
    """Print what happens to a run until it ends; Ctrl-C ends the following, not the run.

    Args:
        client: of the cluster.
        run_id: of the run.
        interval: seconds between two looks.
        patience: seconds without an answer after which to give up.

    Returns:
        Exit status: 0 if the run succeeded, 3 if it failed or was canceled, 130 for Ctrl-C.

    Raises:
        ClusterError: the server refuses, or was lost for longer than `patience`; the line says how to go on.
    """
    screen = Screen(sys.stdout)
    goes_on = f"the run goes on: contrastive kubeflow status {run_id} --follow"
    try:
        run = _watch(client, run_id, interval, patience, screen)
    except KeyboardInterrupt:
        screen.line(f"no longer following; {goes_on}")
        return INTERRUPTED
    except ClusterError as error:
        screen.clear()
        error.args = (f"{error}; {goes_on}",)
        raise
    return conclude(client, run)


def conclude(client: Client, run: Any) -> int:
    """Print how a run ended and, if it failed, where to look; returns the exit status of `follow`."""
    good = run.state in ("SUCCEEDED", "SKIPPED")
    lasted = duration(seconds_between(run.created_at, run.finished_at))
    reason = message(run.error)
    print(f"{str(run.state).lower()} after {lasted or 'no time'}{f': {reason}' if reason and not good else ''}")
    if good:
        return 0
    for task in tasks(run):
        if task.state == "failed":
            print(f"failed: {task.name}{f': {task.error}' if task.error else ''}")
            if task.pod:
                namespace = client.namespace or "kubeflow"
                print(f"  its log: kubectl logs --namespace {namespace} {task.pod} --container main")
    return FAILED


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
    # the first of a name
    by_name = {str(detail.display_name): detail for detail in reversed(details)}
    names = list(dict.fromkeys(str(detail.display_name) for detail in details))
    steps = [name.removesuffix(_DRIVER) for name in names if name.endswith(_DRIVER)] or names
    over = run.state in ENDED
    return [_task(name, by_name, details, now, over) for name in steps if not _GROUP.fullmatch(name)]


def message(error: Any) -> str:
    """The one line that an error of the API holds."""
    return " ".join(str(error.message or "").split())[:300] if error is not None else ""


def seconds_between(start: Any, end: Any, now: datetime | None = None) -> float | None:
    """Time between two moments of the API; None before the start, up to now while there is no end."""
    began = _moment(start)
    if began is None:
        return None
    return max(((_moment(end) or now or datetime.now(UTC)) - began).total_seconds(), 0.0)


def duration(seconds: float | None) -> str:
    """Seconds for a person to read, such as "2 h 05 min" or "31 s"; nothing for None."""
    if seconds is None:
        return ""
    minutes, left = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes} min {left:02} s" if minutes else f"{left} s"


def minute(moment: Any) -> str:
    """A moment for a person to read, in UTC to the minute; nothing for one that did not come."""
    found = _moment(moment)
    return f"{found:%Y-%m-%d %H:%M}" if found else ""


def as_record(run: Any, link: str | None) -> dict[str, Any]:
    """A run as plain values, for programs."""
    end = _moment(run.finished_at) if run.state in ENDED else None
    created, reference = _moment(run.created_at), run.pipeline_version_reference
    return {
        "id": run.run_id,
        "name": run.display_name,
        "state": run.state,
        "created": created.isoformat() if created else None,
        "finished": end.isoformat() if end else None,
        "seconds": seconds_between(created, end),
        "error": message(run.error),
        "experiment_id": run.experiment_id,
        "pipeline_version_id": reference.pipeline_version_id if reference else run.pipeline_version_id,
        "recurring_run_id": run.recurring_run_id,
        "parameters": (run.runtime_config.parameters if run.runtime_config else None) or {},
        "link": link,
        "tasks": [asdict(task) for task in tasks(run)],
    }


class Screen:
    """Lines with the time of day (UTC); on a terminal, one more below them that is written over and over."""

    def __init__(self, out: TextIO):
        self._out, self._terminal = out, out.isatty()

    def line(self, text: str) -> None:
        """Print a line that stays."""
        self.clear()
        print(f"{datetime.now(UTC):%H:%M:%S}  {text}", file=self._out, flush=True)

    def show(self, text: str) -> None:
        """Write the last line over."""
        if self._terminal:
            print(f"\r\033[K{text[:100]}", end="", file=self._out, flush=True)

    def clear(self) -> None:
        """Take the last line away."""
        self.show("")


def _watch(client: Client, run_id: str, interval: float, patience: float, screen: Screen) -> Any:
    """Look at the run until it has ended; each change of a step is a line."""
    states: dict[str, str] = {}
    while True:
        run = _patiently(client, run_id, interval, patience, screen)
        found = tasks(run)
        for task in found:
            if states.get(task.name) != task.state and task.state != "waiting":
                screen.line(_change(task))
                states[task.name] = task.state
        if run.state in ENDED:
            screen.clear()
            return run
        running = [f"{task.name} {duration(task.seconds)}" for task in found if task.state == "running"]
        done = sum(task.state not in ("waiting", "running") for task in found)
        screen.show(
            f"{duration(seconds_between(run.created_at, None))}, {done} step{'' if done == 1 else 's'} done, "
            + (f"running: {', '.join(running)}" if running else str(run.state).lower())
        )
        time.sleep(interval)


def _patiently(client: Client, run_id: str, interval: float, patience: float, screen: Screen) -> Any:
    """Get the run; a lost connection is tried again, each time after a longer wait."""
    lost_at, wait = None, interval
    while True:
        try:
            run = client.get_run(run_id)
        except ClusterError as error:
            if not error.transient:
                raise
            now = time.monotonic()
            if lost_at is None:
                lost_at = now
                screen.line(f"lost sight of the run, which goes on; trying again: {error}")
            if now - lost_at + wait > patience:
                raise
            time.sleep(wait)
            wait = min(2 * wait, max(LONGEST_WAIT, interval))
        else:
            if lost_at is not None:
                screen.line("the server answers again")
            return run


def _change(task: Task) -> str:
    state = "taken from the cache" if task.state == "cached" else task.state
    after = f" after {duration(task.seconds)}" if task.state in ("succeeded", "failed") and task.seconds else ""
    return f"{task.name}: {state}{after}{f': {task.error}' if task.error else ''}"


def _task(name: str, by_name: dict[str, Any], details: list[Any], now: datetime | None, over: bool) -> Task:
    driver, node = by_name.get(f"{name}{_DRIVER}"), by_name.get(name)
    executors = _executors(node, details) if node is not None else []
    state = _state(node, driver, executors)
    if over and state in ("waiting", "running"):
        # the last words on a step are sometimes lost; it can't go on when its run has ended
        state = "unknown"
    pod = next((str(found.pod_name) for found in reversed(executors) if found.pod_name), "")
    # tries before a good one are no error of the step; of a bad one, the pod knows more than the whole
    bad = (*reversed(executors), node, driver) if state in ("failed", "canceled", "unknown") else ()
    error = next((reason for found in bad if found is not None and (reason := message(found.error))), "")
    timed: Any = node or driver
    lasted = None if state in ("skipped", "waiting") else seconds_between(timed.start_time, timed.end_time, now)
    return Task(name, state, lasted, error, pod)


def _state(node: Any, driver: Any, executors: list[Any]) -> str:
    if node is None:
        return "failed" if driver.state == "FAILED" else "waiting"
    if node.state == "SUCCEEDED" and any(found.state == "SKIPPED" for found in executors):
        return "cached"
    if node.state == "CANCELING":
        return "running"
    return str(node.state).lower() if node.state in (*ENDED, "RUNNING") else "waiting"


def _executors(node: Any, details: list[Any]) -> list[Any]:
    """The pods of a step: nodes below it, which it names by a number that their pods' names end in as well."""
    known = [node]
    for parent in known:  # grows: a pod that is tried again is a node with one below it for each try
        numbers = {_number(child.pod_name) for child in parent.child_tasks or []} - {""}
        known += [
            detail
            for detail in details
            if _number(detail.pod_name) in numbers
            and _EXECUTOR.fullmatch(str(detail.display_name))
            and all(detail is not other for other in known)
        ]
    return known[1:]


def _number(pod: Any) -> str:
    return str(pod or "").rsplit("-", 1)[-1]


def _moment(value: Any) -> datetime | None:
    # the API writes the year 1 or 1970 for "not yet"
    if not isinstance(value, datetime) or value.year <= 1970:
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)
