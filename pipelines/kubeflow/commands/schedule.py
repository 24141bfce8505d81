"""Run the pipeline on a Kubeflow cluster again and again.

  python -m pipelines schedule nightly "0 3 * * *" cluster=default data=cifar10 runtime=gpu

The time has the five fields of crontab (minute, hour, day of month, month, day of week) and is in UTC. One run at
a time; what was missed while the cluster was down is not made up for. A schedule of the same name is replaced; the
same one again changes nothing.
"""

from __future__ import annotations

import argparse
import re

from components.shared.errors import UserError
from pipelines.kubeflow.client import Client, ClusterError
from pipelines.kubeflow.commands.options import connection_arguments, release_arguments
from pipelines.kubeflow.releases import prepare, publish, summary, use_experiment
from pipelines.kubeflow.runs import minute
from pipelines.kubeflow.schedules import Plan, parse_cron, replace_schedule


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", metavar="NAME", help="of the schedule")
    parser.add_argument("cron", metavar="CRON", help='such as "0 3 * * *": every night at three, UTC')
    release_arguments(parser)
    connection_arguments(parser)


def main(options: argparse.Namespace) -> None:
    """Upload and schedule.

    Raises:
        UserError: the time or an option is not allowed, or the cluster refused or was lost.
    """
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._ -]{0,61}[A-Za-z0-9])?", options.name):
        raise UserError(f"NAME = {options.name!r}: must be up to 63 letters, digits, and . _ - between them")
    cron = parse_cron(options.cron)
    release = prepare(options.overrides, options.data_version, options.allow_dirty)
    client = Client(options, release.page)
    version = publish(client, release)
    try:
        experiment, experiment_label = use_experiment(client, options.experiment)
    except ClusterError as error:
        error.args = (f"{error}; version {version.name} is uploaded, nothing was scheduled: repeat the command",)
        raise
    plan = Plan(options.name, cron, version, release.parameters, experiment, options.service_account)
    run, made, replaced = replace_schedule(client, plan)
    print(f"version     {release.pipeline} {version.label}")
    print(f"experiment  {experiment_label}")
    same = "" if made else ", as it was"
    print(f"schedule    {options.name}, {cron.text}, {summary(release.parameters['overrides'])}{same}")
    link = client.link("recurringrun", "details", run.recurring_run_id)
    if link:
        print(f"page        {link}")
    if replaced:
        print(f"replaced    {replaced} earlier of that name")
    print(f"next (UTC)  {', '.join(minute(time) for time in cron.next_times(3))}")
