"""Run the pipeline on a Kubeflow cluster and follow it to the end.

  python -m pipelines submit cluster=default data=cifar10 runtime=gpu

Options of the group `cluster` say where it runs and are compiled in; all others are given to the run. The pipeline
is uploaded as a version named by commit and content; one that is there is used again. Ctrl-C ends the following,
not the run. Exit status: 0 if the run succeeded (with --detach: was started), 3 if it failed, 2 if something is
wrong here or with the cluster.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

from pipelines.kubeflow.connection import Connection, connect, connection_arguments
from pipelines.kubeflow.faults import ClusterError
from pipelines.kubeflow.following import follow, following_arguments
from pipelines.kubeflow.releases import (
    Published,
    Release,
    prepare,
    publish,
    release_arguments,
    summary,
    use_experiment,
)


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
    release = prepare(options)
    connection = connect(options, release.page)
    version = publish(connection, release)
    print(f"version     {release.pipeline} {version.told}")
    try:
        experiment = use_experiment(connection, options.experiment, release.pipeline)
        run = _started(connection, options, release, version, experiment.id)
    except ClusterError as error:
        unknown = "; whether a run was started is not known: see python -m pipelines status" if error.sent else ""
        error.args = (f"{error}; version {version.name} is uploaded, repeat the command to run it{unknown}",)
        raise
    print(f"experiment  {experiment.told}")
    print(f"run         {run.run_id}, {summary(release.parameters['overrides'])}")
    link = connection.link("runs", "details", run.run_id)
    if link:
        print(f"page        {link}")
    if options.detach:
        print(f"follow it   python -m pipelines status {run.run_id} --follow")
        return 0
    return follow(connection, run.run_id, options.every, options.patience)


def _started(
    connection: Connection, options: argparse.Namespace, release: Release, version: Published, experiment: str
) -> Any:
    import kfp_server_api as api

    wanted = api.V2beta1Run(
        display_name=f"{release.pipeline} {version.name} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}",
        experiment_id=experiment,
        pipeline_version_reference=api.V2beta1PipelineVersionReference(
            pipeline_id=version.pipeline_id, pipeline_version_id=version.version_id
        ),
        runtime_config=api.V2beta1RuntimeConfig(parameters=release.parameters),
        service_account=options.service_account,
    )
    return connection.call(connection.runs.run_service_create_run, wanted)
