"""Show the latest runs on a Kubeflow cluster, or one run and its steps.

  python -m pipelines status
  python -m pipelines status 1b9e0b5c-… --follow

Times are in UTC. With --follow the exit status is 0 if the run succeeded and 3 if it failed.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from components.shared.errors import UserError
from pipelines.kubeflow.client import Client, every
from pipelines.kubeflow.commands.options import connection_arguments, following_arguments
from pipelines.kubeflow.releases import known_experiment, version_name
from pipelines.kubeflow.runs import (
    ENDED,
    as_record,
    conclude,
    duration,
    follow,
    get_run,
    message,
    minute,
    seconds_between,
    table,
    tasks,
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("run", nargs="?", metavar="RUN", help="id of one run; without it, the latest runs")
    parser.add_argument("--experiment", metavar="NAME", help="only runs of this experiment")
    parser.add_argument("--last", type=int, default=10, metavar="N", help="so many runs; default: 10")
    parser.add_argument("--follow", action="store_true", help="the run, to its end")
    parser.add_argument("--json", action="store_true", help="for programs")
    following_arguments(parser)
    connection_arguments(parser)


def main(options: argparse.Namespace) -> int:
    """Print the runs, or one run; returns the exit status.

    Raises:
        UserError: there is no such run or experiment, or the cluster refused or was lost.
    """
    if not 1 <= options.last <= 1000:
        raise UserError(f"--last = {options.last}: must be 1–1000")
    if options.follow and (options.json or not options.run):
        raise UserError("--follow: needs one RUN, and goes without --json")
    client = Client(options)
    if options.run is None:
        _latest(client, options)
        return 0
    run = get_run(client, options.run)
    if options.json:
        print(json.dumps(as_record(run, client.link("runs", "details", run.run_id)), indent=2))
        return 0
    _one(client, run)
    if options.follow:
        if run.state in ENDED:
            return conclude(client, run)
        return follow(client, options.run, options.every, options.patience)
    if run.state in ("FAILED", "CANCELED"):
        conclude(client, run)
    return 0


def _latest(client: Client, options: argparse.Namespace) -> None:
    experiment = known_experiment(client, options.experiment) if options.experiment else None
    listed = every(
        client.list_runs,
        "runs",
        experiment_id=experiment,
        sort_by="created_at desc",
        page_size=min(options.last, 100),
    )
    runs = [run for run, _ in zip(listed, range(options.last), strict=False)]
    if options.json:
        print(json.dumps([as_record(run, client.link("runs", "details", run.run_id)) for run in runs], indent=2))
        return
    if not runs:
        print("no runs; start one with contrastive kubeflow submit")
        return
    rows = [
        [
            str(run.run_id),
            str(run.state).lower(),
            minute(run.created_at),
            duration(_lasted(run)),
            "schedule" if run.recurring_run_id else "",
            str(run.display_name),
        ]
        for run in runs
    ]
    print(table(("RUN", "STATE", "STARTED (UTC)", "TOOK", "BY", "NAME"), rows))


def _one(client: Client, run: Any) -> None:
    version = version_name(client, run.pipeline_version_reference)
    parameters = (run.runtime_config.parameters if run.runtime_config else None) or {}
    overrides = parameters.get("overrides") or []
    facts = {
        "run": f"{run.run_id}, {str(run.state).lower()}",
        "name": str(run.display_name),
        "started": f"{minute(run.created_at)} UTC, {duration(_lasted(run))}",
        "version": version,
        "options": " ".join(str(override) for override in overrides) or "the defaults",
        "page": client.link("runs", "details", run.run_id) or "",
    }
    print("\n".join(f"{name:9}{value}" for name, value in facts.items() if value))
    found = tasks(run)
    if found:
        rows = [[task.name, task.state, duration(task.seconds), task.error] for task in found]
        columns = 4 if any(task.error for task in found) else 3
        print(f"\n{table(('STEP', 'STATE', 'TOOK', 'ERROR')[:columns], [row[:columns] for row in rows])}")
    elif message(run.error):
        print(f"error    {message(run.error)}")


def _lasted(run: Any) -> float | None:
    return seconds_between(run.created_at, run.finished_at if run.state in ENDED else None)
