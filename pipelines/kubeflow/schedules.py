"""Schedules: recurring runs of the pipeline, found by name and replaced so that never two are enabled at a time."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from cronsim import CronSim, CronSimError

from components.shared.digests import value_digest
from components.shared.errors import UserError
from components.shared.params.explain import did_you_mean
from pipelines.kubeflow.client import Client, ClusterError, by_name, every
from pipelines.kubeflow.releases import Published

NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
# by the names that cronsim gives them
_ALLOWED = {
    "minute": "0–59",
    "hour": "0–23",
    "day-of-month": "1–31 and a day of its month",
    "month": "1–12 or jan–dec",
    "day-of-week": "0–7 or sun–sat",
}


@dataclass(frozen=True)
class Cron:
    """When something happens, in UTC, to the minute.

    `text` has the five fields of crontab(5), where a restricted day of month and a restricted day of week mean
    either one; `kubeflow` the six, seconds first, that Kubeflow's scheduler reads alike (robfig/cron 1.2.0).
    """

    text: str
    kubeflow: str

    def after(self, moment: datetime) -> Iterator[datetime]:
        """The times after a moment, in order, in UTC."""
        return iter(CronSim(self.text, moment.astimezone(UTC)))

    def next_times(self, count: int, moment: datetime | None = None) -> list[datetime]:
        """The next so many times after a moment, which is now if not given."""
        return list(islice(self.after(moment or datetime.now(UTC)), count))


def parse_cron(text: str) -> Cron:
    """Check a time of five fields.

    Args:
        text: minute, hour, day of month, month, day of week: numbers, names, `*`, ranges `1-5`, steps `*/15` and
            `8-18/2`, lists `1,15`; or a nickname such as @daily.

    Raises:
        UserError: it is not one, names the field and what is allowed there; or the time never comes.
    """
    fields = [_unambiguous(field) for field in NICKNAMES.get(text.strip().lower(), text).split()]
    if len(fields) != 5:
        raise UserError(
            f"cron = {text!r}: must have 5 fields (minute, hour, day of month, month, day of week), such as "
            f"'0 3 * * *', or be one of {', '.join(NICKNAMES)}"
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
    if of_week != "*" and 7 in weekdays:
        # Kubeflow's week ends on Saturday
        of_week = ",".join(str(day) for day in sorted({day % 7 for day in weekdays}))
    return Cron(" ".join(fields), " ".join(["0", *fields[:4], of_week]))


def parse_kubeflow(text: str) -> Cron | None:
    """Kubeflow's six fields as times, or None if they are not to the minute or can't be said in five fields."""
    seconds, *fields = text.replace("?", "*").split() or [""]
    if seconds != "0":
        return None
    try:
        return parse_cron(" ".join(fields))
    except UserError:
        return None


def _unambiguous(field: str) -> str:
    """A field without what programs read differently: a step of one, and a step in a range of one number."""
    return "*" if field == "*/1" else re.sub(r"\b(\w+)-\1/\d+", r"\1", field)


@dataclass(frozen=True)
class Plan:
    """What a schedule should be: its name, when, of which version, with which parameters, where and as whom."""

    name: str
    cron: Cron
    version: Published
    parameters: dict[str, Any]
    experiment_id: str
    service_account: str | None

    @property
    def description(self) -> str:
        """What the recurring run says of itself; it can't be edited, so the same text means the same schedule."""
        what = [
            self.cron.kubeflow,
            self.version.version_id,
            self.parameters,
            self.experiment_id,
            self.service_account,
        ]
        return f"Made by `contrastive kubeflow schedule`, which also replaces it; {value_digest(what)}"


def find_schedules(client: Client, pipeline_id: str | None = None, name: str | None = None) -> list[Any]:
    """Recurring runs in the namespace, oldest first.

    Args:
        client: of the cluster.
        pipeline_id: only of this pipeline; None for all.
        name: only of this name; None for all.
    """
    found = every(
        client.list_recurring_runs,
        "recurring_runs",
        namespace=client.namespace,
        sort_by="created_at",
        filter=by_name(name) if name is not None else None,
    )
    return [run for run in found if pipeline_id is None or _pipeline(run) == pipeline_id]


def replace_schedule(client: Client, plan: Plan) -> tuple[Any, bool, int]:
    """Make a schedule, in place of earlier ones of the same name.

    A recurring run can't be changed. The new one is made paused; then the earlier ones are paused, the new one is
    enabled and the earlier ones are deleted. So wherever it breaks off, no two are enabled, and either the earlier
    schedule is enabled again or the line says what holds; doing it again puts everything right.

    Returns:
        The recurring run; whether it was made now, or was there and is the same; how many earlier ones it replaced.

    Raises:
        UserError: the name belongs to another pipeline.
        ClusterError: the server refused or was lost; the line says what holds now.
    """
    earlier = find_schedules(client, name=plan.name)
    if any(_pipeline(run) != plan.version.pipeline_id for run in earlier):
        raise UserError(f"{plan.name}: is a schedule of another pipeline; choose another name")
    if len(earlier) == 1 and earlier[0].mode == "ENABLE" and earlier[0].description == plan.description:
        return earlier[0], False, 0
    enabled = [run.recurring_run_id for run in earlier if run.mode == "ENABLE"]
    new = None
    try:
        new = _create_paused(client, plan)
        for identity in enabled:
            client.disable_recurring_run(identity)
        client.enable_recurring_run(new.recurring_run_id)
    except (ClusterError, KeyboardInterrupt) as error:
        if new is not None:
            _back_out(client, new.recurring_run_id, enabled)
        reason = str(error) if isinstance(error, ClusterError) else "interrupted"
        raise UserError(f"{reason}; {_holding(client, plan.name, enabled)}: repeat the command") from None
    for run in earlier:
        try:
            client.delete_recurring_run(run.recurring_run_id)
        except ClusterError as error:
            error.args = (
                f"{error}; {plan.name} is replaced, but an earlier one is still listed, paused: repeat this",
            )
            raise
    return new, True, len(earlier)


def delete_schedule(client: Client, name: str, pipeline_id: str | None) -> int:
    """Delete all schedules of a name; returns how many there were.

    Raises:
        UserError: there is none, or it belongs to another pipeline.
    """
    found = find_schedules(client, name=name)
    ours = [run for run in found if pipeline_id is not None and _pipeline(run) == pipeline_id]
    if found and not ours:
        raise UserError(f"{name}: is a schedule of another pipeline; delete it on the Kubeflow page")
    if not ours:
        others = find_schedules(client, pipeline_id) if pipeline_id is not None else []
        names = sorted({str(run.display_name) for run in others})
        there = f"there are: {', '.join(names)}" if names else "there is none"
        raise UserError(f"{name}: no such schedule{did_you_mean(name, names)}; {there}")
    for run in ours:
        client.delete_recurring_run(run.recurring_run_id)
    return len(ours)


def _create_paused(client: Client, plan: Plan) -> Any:
    return client.create_recurring_run(
        plan.experiment_id,
        plan.name,
        description=plan.description,
        cron_expression=plan.cron.kubeflow,
        no_catchup=True,
        params=plan.parameters,
        pipeline_id=plan.version.pipeline_id,
        version_id=plan.version.version_id,
        enabled=False,
        service_account=plan.service_account,
    )


def _back_out(client: Client, new: str, earlier: list[str]) -> None:
    """Enable the earlier schedules again, as far as the server lets us."""
    with contextlib.suppress(ClusterError):
        # an answer may have been lost after it was enabled
        client.disable_recurring_run(new)
        for identity in earlier:
            client.enable_recurring_run(identity)


def _holding(client: Client, name: str, earlier: list[str]) -> str:
    """Which schedule of a name is enabled, asked of the server."""
    try:
        enabled = [run.recurring_run_id for run in find_schedules(client, name=name) if run.mode == "ENABLE"]
    except ClusterError:
        return f"whether {name} is enabled is not known"
    if not enabled:
        return f"no {name} is enabled, nothing is scheduled"
    return f"the earlier schedule {name} holds" if set(enabled) <= set(earlier) else f"the new {name} holds"


def _pipeline(run: Any) -> str | None:
    reference = run.pipeline_version_reference
    return reference.pipeline_id if reference is not None else None
