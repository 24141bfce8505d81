"""Stop a run on a Kubeflow cluster.

  python -m pipelines cancel 1b9e0b5c-…

What its steps have finished stays in the cache, so the next run with the same options goes on from there.
"""

from __future__ import annotations

import argparse

from pipelines.kubeflow.client import Client
from pipelines.kubeflow.commands.options import connection_arguments
from pipelines.kubeflow.runs import cancel_run


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("run", metavar="RUN", help="id of the run, as `status` lists it")
    connection_arguments(parser)


def main(options: argparse.Namespace) -> None:
    """Stop it; a run that has ended stays as it is.

    Raises:
        UserError: there is no such run, it has ended, or the cluster refused or was lost.
    """
    cancel_run(Client(options), options.run)
    print(f"{options.run}: is told to stop; contrastive kubeflow status {options.run} --follow shows when it has")
