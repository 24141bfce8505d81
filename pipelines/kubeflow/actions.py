"""What the commands of `contrastive kubeflow` do, and print."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.shared.artifacts import Result, read_record
from components.shared.errors import UserError
from components.shared.evaluation.gate import read_blessing
from components.shared.params.composing import compose
from components.shared.repository import find_root
from pipelines.command_line import print_table
from pipelines.kubeflow import cluster as settings
from pipelines.kubeflow.client import Client, ClusterError, every
from pipelines.kubeflow.local import run_here
from pipelines.kubeflow.options import Access, FollowOptions, ReleaseOptions
from pipelines.kubeflow.pipeline import compile_pipeline
from pipelines.kubeflow.releases import (
    find_pipeline,
    known_experiment,
    prepare,
    publish,
    summary,
    use_experiment,
    version_name,
)
from pipelines.kubeflow.runs import (
    ENDED,
    as_record,
    cancel_run,
    conclude,
    duration,
    follow,
    get_run,
    message,
    minute,
    seconds_between,
    start_run,
    tasks,
)
from pipelines.kubeflow.schedules import (
    Plan,
    delete_schedule,
    find_schedules,
    parse_cron,
    parse_kubeflow,
    replace_schedule,
)
from pipelines.summary import table as summary_table

FOLDER = Path(".cache/kubeflow")
_COLUMNS = ("name", "cron", "next", "state", "version", "options")


def compile_to(out: Path, overrides: Sequence[str], data_version: str) -> None:
    """Check the options and write the compiled pipeline.

    Args:
        out: the file, .yaml.
        overrides: those of the group `cluster` are fixed in the file; the others are a run's defaults.
        data_version: names the state of the data; empty: the run looks at it.

    Raises:
        UserError: an override is not allowed, or the file can't be written.
    """
    where = [override for override in overrides if settings.is_cluster(override)]
    what = [override for override in overrides if override not in where]
    compose(what)
    cluster = settings.compose_cluster(where)
    commit = settings.commit()
    image = cluster.image_for("ingest", commit)
    if out.suffix not in (".yaml", ".yml"):
        raise UserError(f"--out {out}: must end in .yaml")
    partial = out.with_name(f".{out.stem}.partial.yaml")
    try:
        compile_pipeline(cluster, partial, what, data_version, commit)
        partial.replace(out)
    except OSError as error:
        raise UserError(f"{out}: can't be written: {error.strerror}; choose another --out") from None
    finally:
        partial.unlink(missing_ok=True)
    if image.endswith(f":{commit}") and settings.uncommitted():
        print(f"warning: the image of commit {commit} lacks the changes that are not committed", file=sys.stderr)
    print(f"{out}: image {image}, {_gpus(cluster)}, {' '.join(what) or 'the default options'}")


def _gpus(cluster: settings.Cluster) -> str:
    if not cluster.gpu.count:
        return "no GPU"
    return f"{cluster.gpu.count} {cluster.gpu.type} for each of {', '.join(settings.ON_GPU)}"


def run_locally(overrides: Sequence[str], out: Path | None, data_version: str, cache: bool) -> None:
    """Run all steps in the repository, and print what came out.

    Args:
        overrides: options of the run.
        out: outputs and cache; None is a folder of the repository.
        data_version: names the state of the data; empty: found by looking at the source.
        cache: whether to remember what did not change.

    Raises:
        UserError: an override is not allowed, or a step failed; the line names it and its reason.
    """
    root = find_root()
    out = Path(os.path.relpath(out, root)) if out is not None else FOLDER
    with contextlib.chdir(root):
        compose(overrides)
        report = run_here(overrides, out, data_version, cache)
        failed = report.failed()
        if failed is not None:
            raise UserError(f"{failed}: {report.tasks[failed].reason or 'ended without a word'}")
        evaluation = report.folder("evaluate", "evaluation")
        if evaluation is None:
            raise UserError("evaluate: was not run; see the lines above")
        registration = report.folder("register", "registration")
        registered = read_record(registration, Result) if registration is not None else None
        page = os.path.relpath(evaluation / "report.html")
        lines = summary_table(read_record(evaluation, Result), read_blessing(evaluation), registered, page)
        print("\n".join(["", *lines]))


def submit(wanted: ReleaseOptions, access: Access, following: FollowOptions | None) -> int:
    """Upload, run and follow; returns the exit status.

    Args:
        wanted: what to run.
        access: where to.
        following: None leaves it alone.

    Raises:
        UserError: an option is not allowed, or the cluster refused or was lost; the line says what was done so far.
    """
    release = prepare(wanted.overrides or [], wanted.data_version, wanted.allow_dirty)
    client = Client(access, release.page)
    version = publish(client, release)
    print(f"version     {release.pipeline} {version.label}")
    try:
        experiment, experiment_label = use_experiment(client, wanted.experiment)
        run = start_run(client, release, version, experiment, wanted.service_account)
    except ClusterError as error:
        unknown = "; whether a run was started is not known: see contrastive kubeflow status" if error.sent else ""
        error.args = (f"{error}; version {version.name} is uploaded, repeat the command to run it{unknown}",)
        raise
    print(f"experiment  {experiment_label}")
    print(f"run         {run.run_id}, {summary(release.parameters['overrides'])}")
    link = client.link("runs", "details", run.run_id)
    if link:
        print(f"page        {link}")
    if following is None:
        print(f"follow it   contrastive kubeflow status {run.run_id} --follow")
        return 0
    return follow(client, run.run_id, following.every, following.patience)


def latest_runs(access: Access, experiment: str | None, last: int, as_json: bool) -> int:
    """Print the latest runs; returns the exit status.

    Args:
        access: where to.
        experiment: only its runs; None takes all.
        last: so many, 1–1000.
        as_json: for programs.

    Raises:
        UserError: there is no such experiment, or the cluster refused or was lost.
    """
    if not 1 <= last <= 1000:
        raise UserError(f"--last = {last}: must be 1–1000")
    client = Client(access)
    known = known_experiment(client, experiment) if experiment else None
    listed = every(
        client.list_runs, "runs", experiment_id=known, sort_by="created_at desc", page_size=min(last, 100)
    )
    runs = [run for run, _ in zip(listed, range(last), strict=False)]
    if as_json:
        print(json.dumps([as_record(run, client.link("runs", "details", run.run_id)) for run in runs], indent=2))
        return 0
    if not runs:
        print("no runs; start one with contrastive kubeflow submit")
        return 0
    rows = [
        [
            str(run.run_id),
            str(run.state).lower(),
            minute(run.created_at),
            duration(_lasted(run)),
            "schedule" if run.recurring_run_id else "",
            str(run.display_name),
        ]
        for run in runs
    ]
    print_table(("RUN", "STATE", "STARTED (UTC)", "TOOK", "BY", "NAME"), rows)
    return 0


def one_run(access: Access, run_id: str | None, following: FollowOptions | None, as_json: bool) -> int:
    """Print one run and its steps; returns the exit status.

    Args:
        access: where to.
        run_id: of the run.
        following: follows it to its end; None does not.
        as_json: for programs.

    Raises:
        UserError: there is no such run, or the cluster refused or was lost.
    """
    if run_id is None or (following and as_json):
        raise UserError("--follow: needs one RUN, and goes without --json")
    client = Client(access)
    run = get_run(client, run_id)
    if as_json:
        print(json.dumps(as_record(run, client.link("runs", "details", run.run_id)), indent=2))
        return 0
    _print_run(client, run)
    if following:
        if run.state in ENDED:
            return conclude(client, run)
        return follow(client, run_id, following.every, following.patience)
    if run.state in ("FAILED", "CANCELED"):
        conclude(client, run)
    return 0


def _print_run(client: Client, run: Any) -> None:
    version = version_name(client, run.pipeline_version_reference)
    parameters = (run.runtime_config.parameters if run.runtime_config else None) or {}
    overrides = parameters.get("overrides") or []
    facts = {
        "run": f"{run.run_id}, {str(run.state).lower()}",
        "name": str(run.display_name),
        "started": f"{minute(run.created_at)} UTC, {duration(_lasted(run))}",
        "version": version,
        "options": " ".join(str(override) for override in overrides) or "the defaults",
        "page": client.link("runs", "details", run.run_id) or "",
    }
    print("\n".join(f"{name:9}{value}" for name, value in facts.items() if value))
    found = tasks(run)
    if found:
        rows = [[task.name, task.state, duration(task.seconds), task.error] for task in found]
        columns = 4 if any(task.error for task in found) else 3
        print()
        print_table(("STEP", "STATE", "TOOK", "ERROR")[:columns], [row[:columns] for row in rows])
    elif message(run.error):
        print(f"error    {message(run.error)}")


def _lasted(run: Any) -> float | None:
    return seconds_between(run.created_at, run.finished_at if run.state in ENDED else None)


def cancel(access: Access, run_id: str) -> None:
    """Stop a run; one that has ended stays as it is.

    Raises:
        UserError: there is no such run, it has ended, or the cluster refused or was lost.
    """
    cancel_run(Client(access), run_id)
    print(f"{run_id}: is told to stop; contrastive kubeflow status {run_id} --follow shows when it has")


def schedule(name: str, time: str, wanted: ReleaseOptions, access: Access) -> None:
    """Upload and schedule.

    Args:
        name: of the schedule.
        time: the five fields of crontab, UTC.
        wanted: what to run.
        access: where to.

    Raises:
        UserError: the time or an option is not allowed, or the cluster refused or was lost.
    """
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._ -]{0,61}[A-Za-z0-9])?", name):
        raise UserError(f"NAME = {name!r}: must be up to 63 letters, digits, and . _ - between them")
    cron = parse_cron(time)
    release = prepare(wanted.overrides or [], wanted.data_version, wanted.allow_dirty)
    client = Client(access, release.page)
    version = publish(client, release)
    try:
        experiment, experiment_label = use_experiment(client, wanted.experiment)
    except ClusterError as error:
        error.args = (f"{error}; version {version.name} is uploaded, nothing was scheduled: repeat the command",)
        raise
    plan = Plan(name, cron, version, release.parameters, experiment, wanted.service_account)
    run, made, replaced = replace_schedule(client, plan)
    print(f"version     {release.pipeline} {version.label}")
    print(f"experiment  {experiment_label}")
    same = "" if made else ", as it was"
    print(f"schedule    {name}, {cron.text}, {summary(release.parameters['overrides'])}{same}")
    link = client.link("recurringrun", "details", run.recurring_run_id)
    if link:
        print(f"page        {link}")
    if replaced:
        print(f"replaced    {replaced} earlier of that name")
    print(f"next (UTC)  {', '.join(minute(time) for time in cron.next_times(3))}")


def list_schedules(access: Access, all_pipelines: bool, as_json: bool) -> None:
    """Print a table of the schedules.

    Args:
        access: where to.
        all_pipelines: those of other pipelines too.
        as_json: for programs.

    Raises:
        UserError: the cluster refused or was lost.
    """
    client = Client(access)
    pipeline = None if all_pipelines else find_pipeline(client)
    found = [] if pipeline is None and not all_pipelines else find_schedules(client, pipeline)
    versions: dict[str, str] = {}
    rows = [_schedule_row(client, run, versions) for run in found]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    if not rows:
        print("no schedule; make one with contrastive kubeflow schedule")
        return
    headings = ("NAME", "WHEN", "NEXT (UTC)", "STATE", "VERSION", "OPTIONS")
    print_table(headings, [[str(row[column]) for column in _COLUMNS] for row in rows])


def _schedule_row(client: Client, run: Any, versions: dict[str, str]) -> dict[str, Any]:
    trigger = run.trigger.cron_schedule if run.trigger is not None else None
    periodic = run.trigger.periodic_schedule if run.trigger is not None else None
    written = trigger.cron if trigger is not None else ""
    cron = parse_kubeflow(written)
    reference = run.pipeline_version_reference
    key = str(reference.pipeline_version_id) if reference is not None else ""
    if key not in versions:
        versions[key] = version_name(client, reference)
    enabled = run.mode == "ENABLE"
    error = message(run.error)
    return {
        "name": run.display_name,
        "id": run.recurring_run_id,
        "cron": cron.text if cron else written or (f"every {periodic.interval_second} s" if periodic else ""),
        "next": minute(next(iter(cron.next_times(1)), None)) if cron and enabled else "",
        "state": ("on" if enabled else "paused") + (f", {error}" if error else ""),
        "version": versions[key],
        "options": _options((run.runtime_config.parameters if run.runtime_config else None) or {}),
        "link": client.link("recurringrun", "details", run.recurring_run_id),
    }


def _options(parameters: Mapping[str, Any]) -> str:
    overrides = parameters.get("overrides")
    return summary([str(override) for override in overrides]) if isinstance(overrides, list) else ""


def unschedule(access: Access, name: str) -> None:
    """Delete a schedule.

    Raises:
        UserError: there is none of that name, or the cluster refused or was lost.
    """
    client = Client(access)
    count = delete_schedule(client, name, find_pipeline(client))
    print(f"{name}: deleted{f', {count} of them' if count > 1 else ''}; runs that it started go on")
