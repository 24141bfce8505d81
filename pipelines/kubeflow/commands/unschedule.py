"""Delete a schedule of the pipeline on a Kubeflow cluster.

  python -m pipelines unschedule nightly

Runs that it started go on.
"""

from __future__ import annotations

import argparse

from pipelines.kubeflow import NAME
from pipelines.kubeflow.connection import connect, connection_arguments
from pipelines.kubeflow.recurring import remove
from pipelines.kubeflow.releases import find_pipeline


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", metavar="NAME", help="of the schedule, as `schedules` lists it")
    connection_arguments(parser)


def main(options: argparse.Namespace) -> None:
    """Delete it.

    Raises:
        UserError: there is none of that name, or the cluster refused or was lost.
    """
    connection = connect(options)
    count = remove(connection, options.name, find_pipeline(connection, NAME))
    print(f"{options.name}: deleted{f', {count} of them' if count > 1 else ''}; runs that it started go on")
