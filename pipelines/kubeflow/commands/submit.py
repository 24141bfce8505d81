"""Run the pipeline on a Kubeflow cluster and follow it to the end.

  python -m pipelines submit cluster=default data=cifar10 runtime=gpu

Options of the group `cluster` say where it runs and are compiled in; all others are given to the run. The pipeline
is uploaded as a version named by commit and content; one that is there is used again. Ctrl-C ends the following,
not the run. Exit status: 0 if the run succeeded (with --detach: was started), 3 if it failed, 2 if something is
wrong here or with the cluster.
"""

from __future__ import annotations

import argparse

from pipelines.kubeflow.client import Client, ClusterError
from pipelines.kubeflow.commands.options import connection_arguments, following_arguments, release_arguments
from pipelines.kubeflow.releases import prepare, publish, summary, use_experiment
from pipelines.kubeflow.runs import follow, start_run


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    release_arguments(parser)
    parser.add_argument("--detach", action="store_true", help="start it and leave it alone")
    following_arguments(parser)
    connection_arguments(parser)


def main(options: argparse.Namespace) -> int:
    """Upload, run and follow; returns the exit status.

    Raises:
        UserError: an option is not allowed, or the cluster refused or was lost; the line says what was done so far.
    """
    release = prepare(options.overrides, options.data_version, options.allow_dirty)
    client = Client(options, release.page)
    version = publish(client, release)
    print(f"version     {release.pipeline} {version.label}")
    try:
        experiment, experiment_label = use_experiment(client, options.experiment)
        run = start_run(client, release, version, experiment, options.service_account)
    except ClusterError as error:
        unknown = "; whether a run was started is not known: see contrastive kubeflow status" if error.sent else ""
        error.args = (f"{error}; version {version.name} is uploaded, repeat the command to run it{unknown}",)
        raise
    print(f"experiment  {experiment_label}")
    print(f"run         {run.run_id}, {summary(release.parameters['overrides'])}")
    link = client.link("runs", "details", run.run_id)
    if link:
        print(f"page        {link}")
    if options.detach:
        print(f"follow it   contrastive kubeflow status {run.run_id} --follow")
        return 0
    return follow(client, run.run_id, options.every, options.patience)
