"""Schedules: recurring runs of the pipeline, found by name and replaced so that never two are enabled at a time."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from cronsim import CronSim, CronSimError

from components.shared.errors import UserError
from pipelines.kubeflow.client import Client, ClusterError, by_name, every
from pipelines.kubeflow.releases import Release, find_pipeline, options_of
from pipelines.kubeflow.runs import message

# by the names that cronsim gives them
_ALLOWED = {
    "minute": "0–59",
    "hour": "0–23",
    "day-of-month": "1–31 and a day of its month",
    "month": "1–12 or jan–dec",
    "day-of-week": "0–7 or sun–sat",
}


def parse_cron(text: str) -> str:
    """Check a time of five fields, those of crontab(5), where either of two restricted days is enough.

    Args:
        text: minute, hour, day of month, month, day of week: numbers, names, `*`, ranges `1-5`, steps `*/15` and
            `8-18/2`, lists `1,15`.

    Returns:
        The six fields, seconds first, that Kubeflow's scheduler reads alike (robfig/cron 1.2.0).

    Raises:
        UserError: it is not one, names the field and what is allowed there; or the time never comes.
    """
    fields = [_unambiguous(field) for field in text.split()]
    if len(fields) != 5:
        raise UserError(
            f"cron = {text!r}: must have 5 fields (minute, hour, day of month, month, day of week), such as "
            "'0 3 * * *'"
        )
    # as the end of a range, Sunday is the week's last day
    fields[4] = re.sub("(?i)(?<!sun)-sun", "-7", fields[4])
    try:
        parsed = CronSim(" ".join(fields), datetime.now(UTC))
        weekdays = {day for day in parsed.weekdays if isinstance(day, int)}
        # "the last one", which Kubeflow does not know
        if min(parsed.days) < 0:
            raise CronSimError("Bad day-of-month")
        if weekdays != parsed.weekdays:
            raise CronSimError("Bad day-of-week")
    except CronSimError as error:
        name = str(error).removeprefix("Bad ")
        wrong = fields[list(_ALLOWED).index(name)]
        raise UserError(f"cron: {name.replace('-', ' ')} = {wrong}: must be {_ALLOWED[name]}") from None
    of_month, of_week = fields[2], fields[4]
    if "*" not in (of_month, of_week) and "*" in of_month + of_week:
        # crontab(5) wants both days to fit here, Kubeflow's parser either or both by its version
        raise UserError(
            f"cron = {text!r}: programs disagree on * within one of the two days when the other is given too; "
            "write the days as a list"
        )
    if re.search("[7/]", of_week):
        # Kubeflow's week ends on Saturday, and so do its steps
        fields[4] = ",".join(str(day) for day in sorted({day % 7 for day in weekdays}))
    return " ".join(["0", *fields])


def next_times(cron: str, count: int, moment: datetime | None = None) -> list[datetime]:
    """The next so many times of six fields, in UTC, after a moment, which is now if not given."""
    return list(islice(CronSim(cron, (moment or datetime.now(UTC)).astimezone(UTC)), count))


def _unambiguous(field: str) -> str:
    """A field without what programs read differently: a step of one, and a step in a range of one number."""
    return "*" if field == "*/1" else re.sub(r"\b(\w+)-\1/\d+", r"\1", field)


def find_schedules(client: Client, pipeline_id: str | None, name: str | None = None) -> list[Any]:
    """Recurring runs of the pipeline in the namespace, oldest first; None for `name` takes all."""
    found = every(
        client.list_recurring_runs,
        "recurring_runs",
        namespace=client.namespace,
        sort_by="created_at",
        filter=by_name(name) if name is not None else None,
    )
    return [run for run in found if (of := run.pipeline_version_reference) and of.pipeline_id == pipeline_id]


def replace_schedule(client: Client, name: str, cron: str, release: Release) -> tuple[Any, int]:
    """Make a schedule, in place of earlier ones of the same name.

    A recurring run can't be changed. The earlier ones are paused, the new one is made, the earlier ones are
    deleted. So wherever it breaks off, no two are enabled; the line says what holds, and doing it again puts
    everything right.

    Args:
        client: of the cluster.
        name: of the schedule.
        cron: when, six fields.
        release: what runs; its version stands in the schedule's description.

    Returns:
        The recurring run, and how many earlier ones it replaced.

    Raises:
        ClusterError: the server refused or was lost; the line says what holds now.
        UserError: it was interrupted; likewise.
    """
    pipeline = release.source["pipeline_id"]
    earlier = find_schedules(client, pipeline, name)
    enabled = [run.recurring_run_id for run in earlier if run.mode == "ENABLE"]
    try:
        for identity in enabled:
            client.disable_recurring_run(identity)
        new = client.create_recurring_run(
            job_name=name, description=release.name, cron_expression=cron, no_catchup=True, **release.source
        )
    except (ClusterError, KeyboardInterrupt) as error:
        reason = str(error) or "interrupted"
        raise UserError(f"{reason}; {_restore(client, pipeline, name, enabled)}: repeat the command") from None
    for run in earlier:
        try:
            client.delete_recurring_run(run.recurring_run_id)
        except ClusterError as error:
            error.args = (f"{error}; {name} is replaced, but an earlier one is still there, paused: repeat this",)
            raise
    return new, len(earlier)


def _restore(client: Client, pipeline: str, name: str, enabled: list[str]) -> str:
    """Enable the earlier schedules again, unless the new one was made after all; says what holds."""
    try:
        for run in find_schedules(client, pipeline, name):
            # an answer may have been lost after it was made
            if run.mode == "ENABLE" and run.recurring_run_id not in enabled:
                return f"the new {name} holds"
        for identity in enabled:
            client.enable_recurring_run(identity)
    except ClusterError:
        return f"whether {name} is enabled is not known"
    return f"the earlier schedule {name} holds" if enabled else f"no {name} is enabled, nothing is scheduled"


def delete_schedule(client: Client, name: str) -> int:
    """Delete all schedules of a name; returns how many there were.

    Raises:
        UserError: there is none of this pipeline.
    """
    found = find_schedules(client, find_pipeline(client), name)
    if not found:
        raise UserError(f"{name}: no such schedule of this pipeline; `contrastive kubeflow schedules` lists them")
    for run in found:
        client.delete_recurring_run(run.recurring_run_id)
    return len(found)


def as_record(client: Client, run: Any) -> dict[str, str]:
    """A schedule in words; `next` is empty for one that is paused or has another trigger than a time."""
    trigger = run.trigger.cron_schedule if run.trigger else None
    cron, times, enabled = trigger.cron if trigger else "", [], run.mode == "ENABLE"
    with suppress(CronSimError):
        times = next_times(cron, 1) if enabled else []
    return {
        "name": str(run.display_name),
        "cron": cron.removeprefix("0 "),
        "next": f"{times[0]:%Y-%m-%d %H:%M}" if times else "",
        "state": ("on" if enabled else "paused") + (f", {message(run.error)}" if message(run.error) else ""),
        "version": str(run.description or ""),
        "options": options_of(run),
        "id": str(run.recurring_run_id),
        "link": client.link("recurringrun", "details", run.recurring_run_id),
    }
