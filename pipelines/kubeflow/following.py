"""Following a run to its end: a line for each change, and on a terminal one more that shows what runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO

from components.shared.errors import UserError
from pipelines.kubeflow.connection import Connection
from pipelines.kubeflow.faults import ClusterError
from pipelines.kubeflow.tasks import ENDED, Task, message, seconds, tasks, took

FAILED = 3
INTERRUPTED = 130
# seconds between two tries at a lost server, at most
LONGEST_WAIT = 60.0


def get_run(connection: Connection, run_id: str) -> Any:
    """A run by its id.

    Raises:
        UserError: there is none.
        ClusterError: the server refused or was lost.
    """
    try:
        return connection.call(connection.runs.run_service_get_run, run_id)
    except ClusterError as error:
        if error.status == 404:
            raise UserError(f"RUN = {run_id}: no such run; `contrastive kubeflow status` lists them") from None
        raise


def follow(connection: Connection, run_id: str, every: float, patience: float) -> int:
    """Print what happens to a run until it ends; Ctrl-C ends the following, not the run.

    Args:
        connection: to the cluster.
        run_id: of the run.
        every: seconds between two looks.
        patience: seconds without an answer after which to give up.

    Returns:
        Exit status: 0 if the run succeeded, 3 if it failed or was canceled, 130 for Ctrl-C.

    Raises:
        ClusterError: the server refuses, or was lost for longer than `patience`; the line says how to go on.
    """
    screen = _Screen(sys.stdout)
    try:
        run = _to_the_end(connection, run_id, every, patience, screen)
    except KeyboardInterrupt:
        screen.line(f"no longer following; the run goes on: contrastive kubeflow status {run_id} --follow")
        return INTERRUPTED
    except ClusterError as error:
        screen.clear()
        error.args = (f"{error}; the run goes on: contrastive kubeflow status {run_id} --follow",)
        raise
    return conclude(connection, run)


def conclude(connection: Connection, run: Any) -> int:
    """Print how a run ended and, if it failed, where to look; returns the exit status of `follow`."""
    good = run.state in ("SUCCEEDED", "SKIPPED")
    lasted = took(seconds(run.created_at, run.finished_at))
    said = message(run.error)
    print(f"{str(run.state).lower()} after {lasted or 'no time'}{f': {said}' if said and not good else ''}")
    if good:
        return 0
    for task in tasks(run):
        if task.state == "failed":
            print(f"failed: {task.name}{f': {task.error}' if task.error else ''}")
            if task.pod:
                namespace = connection.namespace or "kubeflow"
                print(f"  its log: kubectl logs --namespace {namespace} {task.pod} --container main")
    return FAILED


def _to_the_end(connection: Connection, run_id: str, every: float, patience: float, screen: _Screen) -> Any:
    told: dict[str, str] = {}
    while True:
        run = _seen(connection, run_id, every, patience, screen)
        found = tasks(run)
        for task in found:
            if told.get(task.name) != task.state and task.state != "waiting":
                screen.line(_told(task))
                told[task.name] = task.state
        if run.state in ENDED:
            screen.clear()
            return run
        screen.show(_overview(run, found))
        time.sleep(every)


def _seen(connection: Connection, run_id: str, every: float, patience: float, screen: _Screen) -> Any:
    """Look at the run; a lost connection is tried again, each time after a longer wait."""
    lost_at, wait = None, every
    while True:
        try:
            run = connection.call(connection.runs.run_service_get_run, run_id)
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
            wait = min(2 * wait, max(LONGEST_WAIT, every))
        else:
            if lost_at is not None:
                screen.line("the server answers again")
            return run


def _told(task: Task) -> str:
    if task.state == "running":
        return f"{task.name}: running"
    if task.state == "cached":
        return f"{task.name}: taken from the cache"
    after = f" after {took(task.seconds)}" if task.state in ("succeeded", "failed") and task.seconds else ""
    return f"{task.name}: {task.state}{after}{f': {task.error}' if task.error else ''}"


def _overview(run: Any, found: list[Task]) -> str:
    running = [f"{task.name} {took(task.seconds)}" for task in found if task.state == "running"]
    done = sum(task.ended for task in found)
    now = f"running: {', '.join(running)}" if running else str(run.state).lower()
    return f"{took(seconds(run.created_at, None))}, {done} step{'' if done == 1 else 's'} done, {now}"


class _Screen:
    """Lines with the time of day (UTC); on a terminal, one more below them that is written over and over."""

    def __init__(self, out: TextIO, clock: Callable[[], datetime] = lambda: datetime.now(UTC)):
        self._out, self._clock, self._terminal = out, clock, out.isatty()

    def line(self, text: str) -> None:
        self.clear()
        print(f"{self._clock():%H:%M:%S}  {text}", file=self._out, flush=True)

    def show(self, text: str) -> None:
        if self._terminal:
            print(f"\r\033[K{text[:100]}", end="", file=self._out, flush=True)

    def clear(self) -> None:
        if self._terminal:
            print("\r\033[K", end="", file=self._out, flush=True)
