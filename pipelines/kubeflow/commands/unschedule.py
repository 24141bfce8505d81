"""Delete a schedule of the pipeline on a Kubeflow cluster.

  python -m pipelines unschedule nightly

Runs that it started go on.
"""

from __future__ import annotations

import argparse

from pipelines.kubeflow.client import Client
from pipelines.kubeflow.commands.options import connection_arguments
from pipelines.kubeflow.releases import find_pipeline
from pipelines.kubeflow.schedules import delete_schedule


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", metavar="NAME", help="of the schedule, as `schedules` lists it")
    connection_arguments(parser)


def main(options: argparse.Namespace) -> None:
    """Delete it.

    Raises:
        UserError: there is none of that name, or the cluster refused or was lost.
    """
    client = Client(options)
    count = delete_schedule(client, options.name, find_pipeline(client))
    print(f"{options.name}: deleted{f', {count} of them' if count > 1 else ''}; runs that it started go on")
