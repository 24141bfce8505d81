"""The commands of `contrastive kubeflow`.

What does the work is imported by each command, for KFP takes seconds to load.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from components.shared.errors import UserError
from pipelines.command_line import Overrides, new_group, print_table, shared_options
from pipelines.kubeflow import NAME
from pipelines.kubeflow.options import Access, ReleaseOptions

app = new_group("Compile the pipeline for Kubeflow; run it here or on a cluster, once or on a schedule.")

Run = Annotated[str, typer.Argument(metavar="RUN", help="id of the run, as `status` lists it")]
Json = Annotated[bool, typer.Option("--json", help="for programs")]
DataVersion = Annotated[
    str, typer.Option(metavar="TEXT", help="names the state of the data; else the run looks at the source")
]


OnChange = Annotated[
    bool, typer.Option("--on-change", help="do nothing where data, options and code are those of the last good run")
]


@app.command(name="compile")
def compile_(
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="the file to write")] = Path("pipeline.yaml"),
    data_version: DataVersion = "",
    on_change: OnChange = False,
) -> None:
    """Compile the pipeline for Kubeflow.

    $ contrastive kubeflow compile cluster=default data=cifar10 --out pipeline.yaml

    Options of the group `cluster`, and single values such as
    cluster.gpu.count=2, say where it runs and are fixed in the file. All
    others say what it computes; they become the defaults of the pipeline's
    parameter `overrides`, which every run may replace.
    """
    from pipelines.kubeflow.releases import write_compiled

    if out.suffix not in (".yaml", ".yml"):
        raise UserError(f"--out {out}: must end in .yaml")
    write_compiled(out, overrides or [], data_version, on_change)


@app.command()
def run(
    overrides: Overrides = None,
    local: Annotated[bool, typer.Option("--local", help="here; `submit` runs it on a cluster")] = False,
    out: Annotated[
        Path | None, typer.Option(help="outputs and cache; default: the repository's .cache/kubeflow/")
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="run every step")] = False,
    data_version: DataVersion = "",
    on_change: OnChange = False,
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
    from pipelines.kubeflow.local import run_here

    run_here(overrides or [], out, data_version, cache=not no_cache, on_change=on_change)


@app.command()
@shared_options
def submit(
    release: ReleaseOptions,
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
    from pipelines.kubeflow.client import ClusterError
    from pipelines.kubeflow.releases import publish, summary
    from pipelines.kubeflow.runs import follow

    client, version = publish(release, access)
    try:
        run = client.run_pipeline(
            job_name=f"{NAME} {version.name} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}", **version.source
        )
    except ClusterError as error:
        error.args = (
            f"{error}; version {version.name} is uploaded: repeat the command, unless contrastive kubeflow status "
            "shows that the run was started",
        )
        raise
    print(f"run         {run.run_id}, {summary(release.overrides or [])}")
    if detach:
        print(f"follow it   contrastive kubeflow status {run.run_id} --follow")
        return 0
    return follow(client, run.run_id)


@app.command()
@shared_options
def status(
    access: Access,
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="id of one run; without it, the latest runs")
    ] = None,
    last: Annotated[int, typer.Option(metavar="N", help="so many runs", min=1, max=100)] = 10,
    follow: Annotated[bool, typer.Option("--follow", help="the run, to its end")] = False,
    as_json: Json = False,
) -> int:
    """Show the latest runs on a Kubeflow cluster, or one run and its steps.

    $ contrastive kubeflow status
    $ contrastive kubeflow status 1b9e0b5c-… --follow

    Of one run: each step's state, its try, how long it took, GPU minutes of
    all its tries, and what its pod said last. Times are in UTC. With --follow
    the exit status is 0 if the run succeeded and 3 if it failed.
    """
    if follow and (run is None or as_json):
        raise UserError("--follow: needs one RUN, and goes without --json")
    from pipelines.kubeflow import runs
    from pipelines.kubeflow.client import Client

    client = Client(access)
    if run is None:
        listed = client.list_runs(sort_by="created_at desc", page_size=last).runs or []
        records = [runs.as_record(client, found) for found in listed]
        if as_json:
            print(json.dumps(records, indent=2))
        elif records:
            runs.print_runs(records)
        else:
            print("no runs; start one with contrastive kubeflow submit")
        return 0
    found = runs.get_run(client, run)
    record = runs.with_pods(client, found)
    if as_json:
        print(json.dumps(record, indent=2))
        return 0
    runs.print_run(record)
    if follow:
        return runs.follow(client, run)
    if found.state in ("FAILED", "CANCELED"):
        runs.conclude(client, found)
    return 0


@app.command()
@shared_options
def cancel(run: Run, access: Access) -> None:
    """Stop a run on a Kubeflow cluster.

    $ contrastive kubeflow cancel 1b9e0b5c-…

    What its steps have finished stays in the cache, so the next run with the
    same options goes on from there.
    """
    from pipelines.kubeflow.client import Client
    from pipelines.kubeflow.runs import cancel_run

    cancel_run(Client(access), run)
    print(f"{run}: is told to stop; contrastive kubeflow status {run} --follow shows when it has")


@app.command()
@shared_options
def retry(
    run: Run,
    access: Access,
    detach: Annotated[bool, typer.Option("--detach", help="start it and leave it alone")] = False,
) -> int:
    """Let a run on a Kubeflow cluster go on from the step that failed.

    $ contrastive kubeflow retry 1b9e0b5c-…

    What is done stays done, with the version and the options that the run has;
    mended code or other options need `submit`, for which the cache holds what
    was done. Exit status as of `submit`.
    """
    from pipelines.kubeflow import runs
    from pipelines.kubeflow.client import Client

    client = Client(access)
    again = runs.retry_run(client, run)
    print(f"run         {run}, goes on from {', '.join(again) or 'where it was stopped'}")
    if detach:
        print(f"follow it   contrastive kubeflow status {run} --follow")
        return 0
    return runs.follow(client, run)


@app.command()
@shared_options
def schedule(
    name: Annotated[str, typer.Argument(metavar="NAME", help="of the schedule")],
    cron: Annotated[str, typer.Argument(metavar="CRON", help='such as "0 3 * * *": every night at three, UTC')],
    release: ReleaseOptions,
    access: Access,
    on_change: OnChange = False,
) -> None:
    """Run the pipeline on a Kubeflow cluster again and again.

    $ contrastive kubeflow schedule nightly "0 3 * * *" cluster=default data=cifar10

    With --on-change each run first looks, within seconds and without a GPU,
    whether data, options or code differ from those of the schedule's last run
    that ended well, or the images from those of a champion that is new since;
    if not, that is all it does.

    The time has the five fields of crontab (minute, hour, day of month, month,
    day of week) and is in UTC. One run at a time; what was missed while the
    cluster was down is not made up for. A schedule of the same name is
    replaced.
    """
    from pipelines.kubeflow.releases import publish, summary
    from pipelines.kubeflow.schedules import next_times, parse_cron, replace_schedule

    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._ -]{0,61}[A-Za-z0-9])?", name):
        raise UserError(f"NAME = {name!r}: must be up to 63 letters, digits, and . _ - between them")
    times = parse_cron(cron)
    client, version = publish(release, access, on_change)
    run, replaced = replace_schedule(client, name, times, version)
    print(f"schedule    {name}, {cron}, {summary(release.overrides or [])}")
    print(f"page        {client.link('recurringrun', 'details', run.recurring_run_id)}")
    if replaced:
        print(f"replaced    {replaced} earlier of that name")
    print(f"next (UTC)  {', '.join(f'{time:%Y-%m-%d %H:%M}' for time in next_times(times, 3))}")


@app.command()
@shared_options
def schedules(access: Access, as_json: Json = False) -> None:
    """List the schedules of the pipeline on a Kubeflow cluster.

    Times are in UTC.
    """
    from pipelines.kubeflow.client import Client
    from pipelines.kubeflow.releases import find_pipeline
    from pipelines.kubeflow.schedules import as_record, find_schedules

    client = Client(access)
    records = [as_record(client, run) for run in find_schedules(client, find_pipeline(client))]
    if as_json:
        print(json.dumps(records, indent=2))
    elif records:
        headings = ("NAME", "WHEN", "NEXT (UTC)", "STATE", "VERSION", "OPTIONS")
        print_table(headings, [list(record.values())[: len(headings)] for record in records])
    else:
        print("no schedule; make one with contrastive kubeflow schedule")


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
    from pipelines.kubeflow.client import Client
    from pipelines.kubeflow.schedules import delete_schedule

    count = delete_schedule(Client(access), name)
    print(f"{name}: deleted{f', {count} of them' if count > 1 else ''}; runs that it started go on")
