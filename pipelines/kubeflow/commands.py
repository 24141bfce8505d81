"""The commands of `contrastive kubeflow`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from components.shared.errors import UserError
from pipelines.command_line import Overrides, new_group, shared_options
from pipelines.kubeflow.options import Access, FollowOptions, ReleaseOptions

app = new_group("Compile the pipeline for Kubeflow; run it here or on a cluster, once or on a schedule.")

Run = Annotated[str, typer.Argument(metavar="RUN", help="id of the run, as `status` lists it")]
Json = Annotated[bool, typer.Option("--json", help="for programs")]
DataVersion = Annotated[
    str, typer.Option(metavar="TEXT", help="names the state of the data; else the run looks at the source")
]


@app.command(name="compile")
def compile_(
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="the file to write")] = Path("pipeline.yaml"),
    data_version: DataVersion = "",
) -> None:
    """Compile the pipeline for Kubeflow.

    $ contrastive kubeflow compile cluster=default data=cifar10 --out pipeline.yaml

    Options of the group `cluster`, and single values such as
    cluster.gpu.count=2, say where it runs and are fixed in the file. All
    others say what it computes; they become the defaults of the pipeline's
    parameter `overrides`, which every run may replace.
    """
    from pipelines.kubeflow.actions import compile_to

    compile_to(out, overrides or [], data_version)


@app.command()
def run(
    overrides: Overrides = None,
    local: Annotated[bool, typer.Option("--local", help="here; `submit` runs it on a cluster")] = False,
    out: Annotated[
        Path | None, typer.Option(help="outputs and cache; default: the repository's .cache/kubeflow/")
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="run every step")] = False,
    data_version: DataVersion = "",
) -> None:
    """Run the Kubeflow pipeline here, without a cluster.

    $ contrastive kubeflow run --local data=sample runtime.epochs=20

    Kubeflow's local runner runs every step in a process of its own in this
    environment, as it would be run in a container. What did not change since
    an earlier run in the same folder is remembered. It ends with the table
    that `make repro` ends with.
    """
    if not local:
        raise UserError("--local: say it to run here; `contrastive kubeflow submit` runs it on a cluster")
    from pipelines.kubeflow.actions import run_locally

    run_locally(overrides or [], out, data_version, cache=not no_cache)


@app.command()
@shared_options
def submit(
    release: ReleaseOptions,
    following: FollowOptions,
    access: Access,
    detach: Annotated[bool, typer.Option("--detach", help="start it and leave it alone")] = False,
) -> int:
    """Run the pipeline on a Kubeflow cluster and follow it to the end.

    $ contrastive kubeflow submit cluster=default data=cifar10 runtime=gpu

    Options of the group `cluster` say where it runs and are compiled in; all
    others are given to the run. The pipeline is uploaded as a version named by
    commit and content; one that is there is used again. Ctrl-C ends the
    following, not the run. Exit status: 0 if the run succeeded (with --detach:
    was started), 3 if it failed, 2 if something is wrong here or with the
    cluster.
    """
    from pipelines.kubeflow import actions

    return actions.submit(release, access, None if detach else following)


@app.command()
@shared_options
def status(
    following: FollowOptions,
    access: Access,
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="id of one run; without it, the latest runs")
    ] = None,
    experiment: Annotated[str | None, typer.Option(metavar="NAME", help="only runs of this experiment")] = None,
    last: Annotated[int, typer.Option(metavar="N", help="so many runs")] = 10,
    follow: Annotated[bool, typer.Option("--follow", help="the run, to its end")] = False,
    as_json: Json = False,
) -> int:
    """Show the latest runs on a Kubeflow cluster, or one run and its steps.

    $ contrastive kubeflow status
    $ contrastive kubeflow status 1b9e0b5c-… --follow

    Times are in UTC. With --follow the exit status is 0 if the run succeeded
    and 3 if it failed.
    """
    from pipelines.kubeflow import actions

    if run is None and not follow:
        return actions.latest_runs(access, experiment, last, as_json)
    return actions.one_run(access, run, following if follow else None, as_json)


@app.command()
@shared_options
def cancel(run: Run, access: Access) -> None:
    """Stop a run on a Kubeflow cluster.

    $ contrastive kubeflow cancel 1b9e0b5c-…

    What its steps have finished stays in the cache, so the next run with the
    same options goes on from there.
    """
    from pipelines.kubeflow import actions

    actions.cancel(access, run)


@app.command()
@shared_options
def schedule(
    name: Annotated[str, typer.Argument(metavar="NAME", help="of the schedule")],
    cron: Annotated[str, typer.Argument(metavar="CRON", help='such as "0 3 * * *": every night at three, UTC')],
    release: ReleaseOptions,
    access: Access,
) -> None:
    """Run the pipeline on a Kubeflow cluster again and again.

    $ contrastive kubeflow schedule nightly "0 3 * * *" cluster=default data=cifar10

    The time has the five fields of crontab (minute, hour, day of month, month,
    day of week) and is in UTC. One run at a time; what was missed while the
    cluster was down is not made up for. A schedule of the same name is
    replaced; the same one again changes nothing.
    """
    from pipelines.kubeflow import actions

    actions.schedule(name, cron, release, access)


@app.command()
@shared_options
def schedules(
    access: Access,
    every: Annotated[bool, typer.Option("--all", help="those of other pipelines in the namespace too")] = False,
    as_json: Json = False,
) -> None:
    """List the schedules of the pipeline on a Kubeflow cluster.

    Times are in UTC.
    """
    from pipelines.kubeflow import actions

    actions.list_schedules(access, every, as_json)


@app.command()
@shared_options
def unschedule(
    name: Annotated[str, typer.Argument(metavar="NAME", help="of the schedule, as `schedules` lists it")],
    access: Access,
) -> None:
    """Delete a schedule of the pipeline on a Kubeflow cluster.

    $ contrastive kubeflow unschedule nightly

    Runs that it started go on.
    """
    from pipelines.kubeflow import actions

    actions.unschedule(access, name)
