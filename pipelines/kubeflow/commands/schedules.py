"""List the schedules of the pipeline on a Kubeflow cluster.

  python -m pipelines schedules

Times are in UTC.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from pipelines.kubeflow.client import Client
from pipelines.kubeflow.commands.options import connection_arguments
from pipelines.kubeflow.releases import find_pipeline, summary, version_name
from pipelines.kubeflow.runs import message, minute, table
from pipelines.kubeflow.schedules import find_schedules, parse_kubeflow


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--all", action="store_true", help="those of other pipelines in the namespace too")
    parser.add_argument("--json", action="store_true", help="for programs")
    connection_arguments(parser)


def main(options: argparse.Namespace) -> None:
    """Print a table.

    Raises:
        UserError: the cluster refused or was lost.
    """
    client = Client(options)
    pipeline = None if options.all else find_pipeline(client)
    found = [] if pipeline is None and not options.all else find_schedules(client, pipeline)
    versions: dict[str, str] = {}
    rows = [_row(client, run, versions) for run in found]
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    if not rows:
        print("no schedule; make one with python -m pipelines schedule")
        return
    headings = ("NAME", "WHEN", "NEXT (UTC)", "STATE", "VERSION", "OPTIONS")
    print(table(headings, [[str(row[column]) for column in _COLUMNS] for row in rows]))


_COLUMNS = ("name", "cron", "next", "state", "version", "options")


def _row(client: Client, run: Any, versions: dict[str, str]) -> dict[str, Any]:
    schedule = run.trigger.cron_schedule if run.trigger is not None else None
    periodic = run.trigger.periodic_schedule if run.trigger is not None else None
    written = schedule.cron if schedule is not None else ""
    cron = parse_kubeflow(written)
    reference = run.pipeline_version_reference
    key = str(reference.pipeline_version_id) if reference is not None else ""
    if key not in versions:
        versions[key] = version_name(client, reference)
    enabled = run.mode == "ENABLE"
    said = message(run.error)
    return {
        "name": run.display_name,
        "id": run.recurring_run_id,
        "cron": cron.text if cron else written or (f"every {periodic.interval_second} s" if periodic else ""),
        "next": minute(next(iter(cron.next_times(1)), None)) if cron and enabled else "",
        "state": ("on" if enabled else "paused") + (f", {said}" if said else ""),
        "version": versions[key],
        "options": _options((run.runtime_config.parameters if run.runtime_config else None) or {}),
        "link": client.link("recurringrun", "details", run.recurring_run_id),
    }


def _options(parameters: Mapping[str, Any]) -> str:
    overrides = parameters.get("overrides")
    return summary([str(override) for override in overrides]) if isinstance(overrides, list) else ""
