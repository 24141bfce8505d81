"""Stop a run on a Kubeflow cluster.

  python -m pipelines cancel 1b9e0b5c-…

What its steps have finished stays in the cache, so the next run with the same options goes on from there.
"""

from __future__ import annotations

import argparse

from components.shared.errors import UserError
from pipelines.kubeflow.connection import connect, connection_arguments
from pipelines.kubeflow.following import get_run
from pipelines.kubeflow.tasks import ENDED


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("run", metavar="RUN", help="id of the run, as `status` lists it")
    connection_arguments(parser)


def main(options: argparse.Namespace) -> None:
    """Stop it; a run that has ended stays as it is.

    Raises:
        UserError: there is no such run, it has ended, or the cluster refused or was lost.
    """
    connection = connect(options)
    run = get_run(connection, options.run)
    if run.state in ENDED:
        raise UserError(f"RUN = {options.run}: has ended ({str(run.state).lower()}); there is nothing to stop")
    connection.call(connection.runs.run_service_terminate_run, options.run)
    print(f"{options.run}: is told to stop; python -m pipelines status {options.run} --follow shows when it has")
