"""The nodes that Kubeflow Pipelines reports of a run, made from its pipeline's specification, look after look.

A task is three nodes: `<task>-driver`, `<task>` and below it `executor`, which is left out when the answer is in
the cache; a group (exit handler, condition) is a driver and a node. They are those of the workflow that Argo runs:
pods are named after their template, nodes by a number that both names end in.
"""

from __future__ import annotations

import zlib
from datetime import datetime, timedelta
from typing import Any

# what the API writes where there is no time yet
NEVER = "0001-01-01T00:00:00Z"


def leaves(spec: dict[str, Any], component: dict[str, Any] | None = None) -> list[tuple[str, list[str]]]:
    """The tasks of a pipeline in an order they can run in, each with the groups around it."""
    tasks = dict((component or spec["root"])["dag"]["tasks"])
    found: list[tuple[str, list[str]]] = []
    done: set[str] = set()
    while tasks:
        name = next(name for name, task in tasks.items() if set(task.get("dependentTasks", [])) <= done)
        task = tasks.pop(name)
        done.add(name)
        inner = spec["components"][task["componentRef"]["name"]]
        if "dag" in inner:
            found += [(leaf, [name, *groups]) for leaf, groups in leaves(spec, inner)]
        else:
            found.append((name, []))
    return found


class Workflow:
    """One run's nodes.

    Args:
        run_id, name: of the run, and of its workflow.
        spec: the pipeline's specification.
        outcomes: what becomes of a task, by its name: succeeded (unless said), cached, skipped, failed.
        begun: when the run was created; each task takes a minute of the time that is told.
    """

    def __init__(self, run_id: str, name: str, spec: dict[str, Any], outcomes: dict[str, str], begun: datetime):
        self.run_id, self.name, self.outcomes, self.begun = run_id, name, outcomes, begun
        self.tasks = leaves(spec)
        self.looks = 0

    def retry(self, outcomes: dict[str, str]) -> None:
        """Begin again where a task failed; what is done stays."""
        places = [place for place, (task, _) in enumerate(self.tasks) if self.outcomes.get(task) == "failed"]
        self.outcomes, self.looks = dict(outcomes), min(places, default=0) * 2 + 1

    def pods(self, task: str) -> list[str]:
        """Names of a task's pods."""
        return [f"{self.name}-system-container-impl-{_number(f'{task}.executor')}"]

    def look(self) -> tuple[str, list[dict[str, Any]], datetime | None]:
        """State of the run, its nodes, and when it ended; each look is one step further."""
        look, self.looks = self.looks, self.looks + 1
        if look == 0:
            return "PENDING", [], None
        nodes = [self._node(self.name, "RUNNING", 0), self._node("root-driver", "SUCCEEDED", 0)]
        failed = False
        for place, (task, groups) in enumerate(self.tasks):
            outcome = self.outcomes.get(task, "succeeded")
            if failed and groups:
                continue  # only what stands outside, an exit task, still runs
            if place * 2 + 1 > look:
                return "RUNNING", nodes, None
            nodes += self._groups(groups, nodes)
            runs = place * 2 + 1 == look and outcome != "skipped"
            nodes += self._task(task, "running" if runs else outcome, place)
            failed = failed or (outcome == "failed" and place * 2 + 1 < look)
        if len(self.tasks) * 2 > look:
            return "RUNNING", nodes, None
        end = self.begun + timedelta(minutes=len(self.tasks))
        return "FAILED" if failed else "SUCCEEDED", nodes, end

    def _groups(self, groups: list[str], nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
        known = {node["display_name"] for node in nodes}
        new = [group for group in groups if group not in known]
        return [self._node(name, "SUCCEEDED", 0) for group in new for name in (f"{group}-driver", group)]

    def _task(self, task: str, outcome: str, place: int) -> list[dict[str, Any]]:
        if outcome == "skipped":
            return [self._node(name, "SKIPPED", place) for name in (f"{task}-driver", task)]
        driver = self._node(f"{task}-driver", "SUCCEEDED", place)
        state = {"running": "RUNNING", "failed": "FAILED"}.get(outcome, "SUCCEEDED")
        node = self._node(task, state, place)
        number = _number(f"{task}.executor")
        node["child_tasks"] = [{"pod_name": f"{self.name}-{number}"}]
        executor = self._node("executor", "SKIPPED" if outcome == "cached" else state, place)
        executor["pod_name"] = f"{self.name}-system-container-impl-{number}"
        executor["task_id"] = number
        if outcome == "failed":
            executor["error"] = {"code": 13, "message": "Error (exit code 2)"}
            node["error"] = {"code": 13, "message": f"child '{self.name}-{number}' failed"}
        if outcome == "cached":
            node["end_time"] = stamp(self.begun + timedelta(minutes=place, seconds=1))
        return [driver, node, executor]

    def _node(self, name: str, state: str, place: int) -> dict[str, Any]:
        start = self.begun + timedelta(minutes=place)
        end = start + timedelta(minutes=1)
        return {
            "run_id": self.run_id,
            "task_id": _number(f"{place}{name}"),
            "display_name": name,
            "create_time": stamp(start),
            "start_time": stamp(start),
            "end_time": NEVER if state == "RUNNING" else stamp(end),
            "state": state,
            "state_history": [{"update_time": stamp(end), "state": state}],
            "pod_name": f"{self.name}-{_number(name)}",
        }


def stamp(moment: datetime) -> str:
    """A time as the API writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _number(text: str) -> str:
    return str(zlib.crc32(text.encode()))
