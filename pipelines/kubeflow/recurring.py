"""Schedules: recurring runs of the pipeline, found by name and replaced so that never two are awake at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from components.shared.errors import UserError
from components.shared.params.explain import did_you_mean
from pipelines.kubeflow.connection import Connection
from pipelines.kubeflow.cron import Cron
from pipelines.kubeflow.faults import ClusterError
from pipelines.kubeflow.releases import Published, named


@dataclass(frozen=True)
class Plan:
    """What a schedule should be: its name, when, of which version, with which parameters, where and as whom."""

    name: str
    cron: Cron
    version: Published
    parameters: dict[str, Any]
    experiment_id: str
    service_account: str | None


def schedules(connection: Connection, pipeline_id: str | None = None, name: str | None = None) -> list[Any]:
    """Recurring runs in the namespace, oldest first.

    Args:
        connection: to the cluster.
        pipeline_id: only of this pipeline; None for all.
        name: only of this name; None for all.
    """
    found = connection.pages(
        connection.recurring.recurring_run_service_list_recurring_runs,
        "recurring_runs",
        namespace=connection.namespace,
        sort_by="created_at",
        filter=named(name) if name is not None else None,
    )
    return [run for run in found if pipeline_id is None or _pipeline(run) == pipeline_id]


def put(connection: Connection, plan: Plan) -> tuple[Any, bool, int]:
    """Make a schedule, in place of earlier ones of the same name.

    A recurring run can't be changed. The new one is made asleep; then the earlier ones are put to sleep, the new
    one is woken and the earlier ones are deleted. So wherever it breaks off, no two are awake, and either the
    earlier schedule is awake again or the line says what holds; doing it again puts everything right.

    Returns:
        The recurring run; whether it was made now, or was there and is the same; how many earlier ones it replaced.

    Raises:
        UserError: the name belongs to another pipeline.
        ClusterError: the server refused or was lost; the line says what holds now.
    """
    earlier = schedules(connection, name=plan.name)
    if any(_pipeline(run) != plan.version.pipeline_id for run in earlier):
        raise UserError(f"{plan.name}: is a schedule of another pipeline; choose another name")
    if len(earlier) == 1 and _same(earlier[0], plan):
        return earlier[0], False, 0
    awake = [run for run in earlier if run.mode == "ENABLE"]
    new = _created(connection, plan, bool(awake))
    api = connection.recurring
    try:
        for run in awake:
            connection.call(api.recurring_run_service_disable_recurring_run, run.recurring_run_id)
        connection.call(api.recurring_run_service_enable_recurring_run, new.recurring_run_id)
    except (ClusterError, KeyboardInterrupt) as error:
        raise _backed_out(connection, plan.name, new, awake, error) from None
    for run in earlier:
        try:
            _delete(connection, run)
        except ClusterError as error:
            error.args = (
                f"{error}; {plan.name} is replaced, but an earlier one is still listed, asleep: repeat this",
            )
            raise
    return new, True, len(earlier)


def remove(connection: Connection, name: str, pipeline_id: str | None) -> int:
    """Delete all schedules of a name; returns how many there were.

    Raises:
        UserError: there is none, or it belongs to another pipeline.
    """
    found = schedules(connection, name=name)
    ours = [run for run in found if pipeline_id is not None and _pipeline(run) == pipeline_id]
    if found and not ours:
        raise UserError(f"{name}: is a schedule of another pipeline; delete it on the Kubeflow page")
    if not ours:
        everyone = schedules(connection, pipeline_id) if pipeline_id is not None else []
        names = sorted({str(run.display_name) for run in everyone})
        there = f"there are: {', '.join(names)}" if names else "there is none"
        raise UserError(f"{name}: no such schedule{did_you_mean(name, names)}; {there}")
    for run in ours:
        _delete(connection, run)
    return len(ours)


def _created(connection: Connection, plan: Plan, replaces: bool) -> Any:
    import kfp_server_api as api

    wanted = api.V2beta1RecurringRun(
        display_name=plan.name,
        description="Made by `python -m pipelines schedule`, which also replaces it.",
        pipeline_version_reference=api.V2beta1PipelineVersionReference(
            pipeline_id=plan.version.pipeline_id, pipeline_version_id=plan.version.version_id
        ),
        runtime_config=api.V2beta1RuntimeConfig(parameters=plan.parameters),
        trigger=api.V2beta1Trigger(cron_schedule=api.V2beta1CronSchedule(cron=plan.cron.kubeflow())),
        mode=api.RecurringRunMode.DISABLE,
        max_concurrency="1",
        no_catchup=True,
        experiment_id=plan.experiment_id,
        namespace=connection.namespace,
        service_account=plan.service_account,
    )
    try:
        return connection.call(connection.recurring.recurring_run_service_create_recurring_run, wanted)
    except ClusterError as error:
        holds = "the earlier schedule holds" if replaces else "nothing is scheduled"
        error.args = (f"{error}; {holds}: repeat the command",)
        raise


def _backed_out(
    connection: Connection, name: str, new: Any, awake: list[Any], error: ClusterError | KeyboardInterrupt
) -> BaseException:
    """Wake the earlier schedules again, and say what holds now."""
    api = connection.recurring
    # first the new one: an answer may have been lost after it was woken
    if _done(connection, api.recurring_run_service_disable_recurring_run, new):
        for run in awake:
            _done(connection, api.recurring_run_service_enable_recurring_run, run)
    reason = str(error) if isinstance(error, ClusterError) else "interrupted"
    return UserError(f"{reason}; {_holding(connection, name, new)}: repeat the command")


def _holding(connection: Connection, name: str, new: Any) -> str:
    """Which schedule of a name is awake, asked of the server."""
    try:
        awake = [run.recurring_run_id for run in schedules(connection, name=name) if run.mode == "ENABLE"]
    except ClusterError:
        return f"whether {name} is awake is not known"
    if not awake:
        return f"{name} is asleep and nothing runs"
    return f"the new {name} holds" if new.recurring_run_id in awake else f"the earlier schedule {name} holds"


def _done(connection: Connection, method: Callable[..., Any], run: Any) -> bool:
    try:
        connection.call(method, run.recurring_run_id)
    except ClusterError:
        return False
    return True


def _delete(connection: Connection, run: Any) -> None:
    try:
        connection.call(connection.recurring.recurring_run_service_delete_recurring_run, run.recurring_run_id)
    except ClusterError as error:
        if error.status != 404:
            raise


def _pipeline(run: Any) -> str | None:
    reference = run.pipeline_version_reference
    return reference.pipeline_id if reference is not None else None


def _same(run: Any, plan: Plan) -> bool:
    cron = run.trigger.cron_schedule if run.trigger is not None else None
    return (
        cron is not None
        and cron.cron == plan.cron.kubeflow()
        and cron.start_time is None
        and cron.end_time is None
        and run.mode == "ENABLE"
        and run.no_catchup is True
        and str(run.max_concurrency) == "1"
        and run.pipeline_version_reference.pipeline_version_id == plan.version.version_id
        and run.experiment_id == plan.experiment_id
        and ((run.runtime_config.parameters if run.runtime_config else None) or {}) == plan.parameters
        and (plan.service_account is None or run.service_account == plan.service_account)
    )
