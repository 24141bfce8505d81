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
from pipelines.kubeflow.connection import connect, connection_arguments
from pipelines.kubeflow.cron import parse_cron
from pipelines.kubeflow.faults import ClusterError
from pipelines.kubeflow.recurring import Plan, put
from pipelines.kubeflow.releases import prepare, publish, release_arguments, summary, use_experiment
from pipelines.kubeflow.tasks import when


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
    release = prepare(options)
    connection = connect(options, release.page)
    version = publish(connection, release)
    try:
        experiment = use_experiment(connection, options.experiment, release.pipeline)
    except ClusterError as error:
        error.args = (f"{error}; version {version.name} is uploaded, nothing was scheduled: repeat the command",)
        raise
    plan = Plan(options.name, cron, version, release.parameters, experiment.id, options.service_account)
    run, made, replaced = put(connection, plan)
    print(f"version     {release.pipeline} {version.told}")
    print(f"experiment  {experiment.told}")
    same = "" if made else ", as it was"
    print(f"schedule    {options.name}, {cron.text}, {summary(release.parameters['overrides'])}{same}")
    link = connection.link("recurringrun", "details", run.recurring_run_id)
    if link:
        print(f"page        {link}")
    if replaced:
        print(f"replaced    {replaced} earlier of that name")
    print(f"next (UTC)  {', '.join(when(time) for time in cron.next_times(3))}")
