"""Runs on a cluster: what became of each step, and following one to its end.

Kubeflow Pipelines reports the nodes of the workflow that it runs as. A step "probe" is three of them:
"probe-driver" prepares it and looks into the cache, "probe" stands for all of it, and below that "executor" is the
pod, which is left out (SKIPPED) when the answer was in the cache; one that is tried again has a node below it for
each try.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from components.shared.errors import UserError
from pipelines.command_line import print_table
from pipelines.kubeflow.client import Client, ClusterError
from pipelines.kubeflow.names import place
from pipelines.kubeflow.pods import gpus_asked_for, last_words

ENDED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")
FAILED = 3
INTERRUPTED = 130
# seconds between two looks at a run, and without an answer after which to give up
INTERVAL = 5.0
PATIENCE = 900.0


@dataclass(frozen=True)
class Task:
    """One step of a run.

    `state` is that of the API in lower case, or cached. `seconds` is how long it has taken so far, None if it did
    not begin; `tries` counts its pods and `pod_seconds` is how long all of them took; `pod`, the last one, is where
    its log is.
    """

    name: str
    state: str
    seconds: float | None
    error: str
    pod: str
    tries: int
    pod_seconds: float


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


def retry_run(client: Client, run_id: str) -> list[str]:
    """Let a run go on from the steps that failed; those that are done stay done.

    Returns:
        The names of the steps that are done again.

    Raises:
        UserError: there is no such run, or it did not fail.
        ClusterError: the server refused or was lost.
    """
    run = get_run(client, run_id)
    if run.state not in ("FAILED", "CANCELED"):
        raise UserError(
            f"RUN = {run_id}: is {str(run.state).lower()}; only a run that failed or was canceled can be retried"
        )
    client.retry_run(run_id)
    return [task.name for task in tasks(run) if task.state in ("failed", "canceled")]


def follow(client: Client, run_id: str) -> int:
    """Print what happens to a run until it ends; Ctrl-C ends the following, not the run.

    Returns:
        Exit status: 0 if the run succeeded, 3 if it failed or was canceled, 130 for Ctrl-C.

    Raises:
        ClusterError: the server refuses, or was lost for longer than `PATIENCE`; the line says how to go on.
    """
    goes_on = f"the run goes on: contrastive kubeflow status {run_id} --follow"
    states: dict[str, str] = {}
    answered, lost = time.monotonic(), False
    try:
        while True:
            try:
                run = client.get_run(run_id)
            except ClusterError as error:
                if not error.transient or time.monotonic() - answered > PATIENCE:
                    error.args = (f"{error}; {goes_on}",)
                    raise
                if not lost:
                    _tell(f"lost sight of the run, which goes on; trying again: {error}")
                lost = True
            else:
                answered, lost = time.monotonic(), False
                for task in tasks(run):
                    if states.get(task.name) != task.state:
                        took = f" after {duration(task.seconds)}" if task.state in ("succeeded", "failed") else ""
                        _tell(f"{task.name}: {task.state}{took}{f': {task.error}' if task.error else ''}")
                        states[task.name] = task.state
                if run.state in ENDED:
                    return conclude(client, run)
            time.sleep(INTERVAL)
    except KeyboardInterrupt:
        _tell(f"no longer following; {goes_on}")
        return INTERRUPTED


def conclude(client: Client, run: Any) -> int:
    """Print how a run ended and, if it failed, where to look; returns the exit status of `follow`."""
    good = run.state in ("SUCCEEDED", "SKIPPED")
    reason = "" if good else message(run.error)
    lasted = duration(_seconds(run.created_at, run.finished_at))
    print(f"{str(run.state).lower()} after {lasted}{f': {reason}' if reason else ''}")
    if good:
        return 0
    for task in tasks(run):
        if task.state == "failed":
            print(f"failed: {task.name}{f': {task.error}' if task.error else ''}")
            if task.pod:
                namespace = client.namespace or "kubeflow"
                print(f"  its log: kubectl logs --namespace {namespace} {task.pod} --container main")
    return FAILED


def tasks(run: Any) -> list[Task]:
    """The steps that a run has come to, in the order of the table of steps; each replicate is one."""
    details = (run.run_details.task_details or []) if run.run_details else []
    nodes = {str(detail.display_name): detail for detail in details}
    found = []
    places = {name: place(name) for name in {name.removesuffix("-driver") for name in nodes}}
    known = {name: at for name, at in places.items() if at is not None}
    for name in sorted(known, key=known.__getitem__):
        driver, node = nodes.get(f"{name}-driver"), nodes.get(name)
        if node is not None:
            found.append(_task(name, node, _pods(node, details)))
        elif driver is not None and driver.state == "FAILED":
            # its pod was never made
            found.append(_task(name, driver, []))
    return found


def as_record(client: Client, run: Any) -> dict[str, Any]:
    """A run as plain values, for programs."""
    end = _moment(run.finished_at)
    return {
        "id": run.run_id,
        "name": run.display_name,
        "state": run.state,
        "created": run.created_at.isoformat(),
        "finished": end.isoformat() if end else None,
        "seconds": _seconds(run.created_at, end),
        "error": message(run.error),
        "experiment_id": run.experiment_id,
        "recurring_run_id": run.recurring_run_id,
        "parameters": (run.runtime_config.parameters if run.runtime_config else None) or {},
        "link": client.link("runs", "details", run.run_id),
        "tasks": [asdict(task) for task in tasks(run)],
    }


def with_pods(client: Client, run: Any) -> dict[str, Any]:
    """`as_record` of one run, whose tasks also tell `gpu_minutes` and, of a step that runs or failed, `last_words`.

    KFP tells when a pod was made, not when it got its GPU: waiting for one counts.
    """
    record = as_record(client, run)
    gpus = gpus_asked_for(client, run) if record["tasks"] else {}
    for task in record["tasks"]:
        task["gpu_minutes"] = round(gpus.get(task["name"], 0) * task["pod_seconds"] / 60, 1)
        asked = task["pod"] and task["state"] in ("running", "failed", "canceled")
        task["last_words"] = last_words(client, str(run.run_id), task["pod"]) if asked else ""
    return record


def print_run(record: dict[str, Any]) -> None:
    """Print what `with_pods` made of one run, and a table of its steps."""
    print_runs([record])
    print(f"\noptions  {' '.join(record['parameters'].get('overrides') or []) or 'the default options'}")
    for name in ("error", "link"):
        if record[name]:
            print(f"{name:7}  {record[name]}")
    rows = [
        [
            *(task["name"], task["state"], str(task["tries"] or ""), duration(task["seconds"])),
            f"{task['gpu_minutes']:.1f}" if task["gpu_minutes"] else "",
            task["last_words"] or task["error"],
        ]
        for task in record["tasks"]
    ]
    if rows:
        print()
        print_table(("STEP", "STATE", "TRY", "TOOK", "GPU MINUTES", "LAST WORDS"), rows)
        if any(task["state"] == "cached" for task in record["tasks"]):
            print("\ncached: answered by an earlier run; mlflow_run_id of its artifact names its MLflow run")
        print(f"\nGPU minutes of all steps  {sum(task['gpu_minutes'] for task in record['tasks']):.1f}")


def print_runs(records: list[dict[str, Any]]) -> None:
    """Print a table of what `as_record` made of runs; BY says which a schedule started."""
    rows = [
        [
            record["id"],
            record["state"].lower(),
            f"{datetime.fromisoformat(record['created']):%Y-%m-%d %H:%M}",
            duration(record["seconds"]),
            "schedule" if record["recurring_run_id"] else "",
            record["name"],
        ]
        for record in records
    ]
    print_table(("RUN", "STATE", "STARTED (UTC)", "TOOK", "BY", "NAME"), rows)


def message(error: Any) -> str:
    """The one line that an error of the API holds."""
    return " ".join(str(error.message or "").split())[:300] if error is not None else ""


def duration(seconds: float | None) -> str:
    """Seconds for a person to read, such as "0:00:31"; nothing for None."""
    return "" if seconds is None else str(timedelta(seconds=round(seconds)))


def _task(name: str, node: Any, pods: list[Any]) -> Task:
    state = str(node.state).lower()
    if state == "succeeded" and any(pod.state == "SKIPPED" for pod in pods):
        state = "cached"
    # tries before a good one are no error of the step; of a bad one, the pod knows more than the whole
    bad = [*reversed(pods), node] if state in ("failed", "canceled") else []
    error = next((reason for found in bad if (reason := message(found.error))), "")
    run = [pod for pod in pods if pod.state != "SKIPPED"]
    return Task(
        name,
        state,
        _seconds(node.start_time, node.end_time),
        error,
        pod=str(pods[-1].pod_name) if pods else "",
        tries=len(run),
        pod_seconds=sum(_seconds(pod.start_time, pod.end_time) or 0.0 for pod in run),
    )


def _pods(node: Any, details: list[Any]) -> list[Any]:
    """The pods of a step, in the order of its tries: nodes below it.

    A node names those below it by a number that their pods' names end in as well.
    """
    numbers = {_number(child.pod_name) for child in node.child_tasks or []}
    # a try of the whole node, where the controller's default gives every node one
    names = ("executor", f"{node.display_name}(")
    below = [
        detail
        for detail in details
        if _number(detail.pod_name) in numbers and str(detail.display_name).startswith(names)
    ]
    return [pod for child in below for pod in _pods(child, details) or [child]]


def _number(pod: Any) -> str:
    return str(pod or "").rsplit("-", 1)[-1]


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    """Time between two moments of the API, up to now without an end; None without a start."""
    began = _moment(start)
    return max(((_moment(end) or datetime.now(UTC)) - began).total_seconds(), 0.0) if began else None


def _moment(value: datetime | None) -> datetime | None:
    # the API writes the year 1 or 1970 for "not yet"
    return value if value is not None and value.year > 1970 else None


def _tell(text: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S}  {text}", flush=True)
