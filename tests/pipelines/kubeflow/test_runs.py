"""What became of a run's steps, out of the nodes that Kubeflow Pipelines reports."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from kfp_server_api import models

from pipelines.kubeflow.runs import duration, tasks

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def node(name, state, number=None, children=(), error=None, minutes=1, **more):
    return models.V2beta1PipelineTaskDetail(
        display_name=name,
        state=state,
        pod_name=f"flow-{'impl-' if 'executor' in name else ''}{number}",
        child_tasks=[models.PipelineTaskDetailChildTask(pod_name=f"flow-{child}") for child in children],
        create_time=NOON,
        start_time=NOON,
        end_time=NOON + timedelta(minutes=minutes) if minutes else datetime(1, 1, 1, tzinfo=UTC),
        error=models.GoogleRpcStatus(message=error) if error else None,
        **more,
    )


def found(*nodes):
    return tasks(models.V2beta1Run(run_details=models.V2beta1RunDetails(task_details=list(nodes))))


def test_a_step_that_was_tried_again_is_what_the_last_try_was():
    [task] = found(
        node("probe-driver", "SUCCEEDED", 1),
        node("probe", "SUCCEEDED", 2, [3], minutes=4),
        node("executor", "SUCCEEDED", 3, [4, 5]),
        node("executor(0)", "FAILED", 4, error="evicted"),
        node("executor(1)", "SUCCEEDED", 5),
    )
    assert (task.state, task.error, task.pod, task.seconds) == ("succeeded", "", "flow-impl-5", 240)
    assert (task.tries, task.pod_seconds) == (2, 120)


def test_pods_are_found_where_the_controller_gives_every_node_a_try():
    [task] = found(
        node("probe-driver", "SUCCEEDED", 1, [2]),
        node("probe-driver(0)", "SUCCEEDED", 2),
        node("probe", "SUCCEEDED", 3, [4], minutes=4),
        node("probe(0)", "SUCCEEDED", 4, [5], minutes=4),
        node("executor", "SUCCEEDED", 5, [6, 7]),
        node("executor(0)", "FAILED", 6, error="pod deleted"),
        node("executor(1)", "SUCCEEDED", 7),
    )
    assert (task.state, task.pod, task.tries) == ("succeeded", "flow-impl-7", 2)


def test_a_step_that_failed_names_its_last_pod_and_why():
    [task] = found(
        node("probe-driver", "SUCCEEDED", 1),
        node("probe", "FAILED", 2, [3]),
        node("executor", "FAILED", 3, [4, 5]),
        node("executor(0)", "FAILED", 4, error="evicted"),
        node("executor(1)", "FAILED", 5, error="out of\nmemory"),
    )
    assert (task.state, task.error, task.pod) == ("failed", "out of memory", "flow-impl-5")


def test_steps_next_to_each_other_keep_their_own_pods():
    one, two = found(
        *(node(name, "SUCCEEDED", number) for name, number in [("probe-driver", 1), ("baseline-driver", 2)]),
        node("probe", "SUCCEEDED", 3, [5]),
        node("baseline", "RUNNING", 4, [6], minutes=0),
        node("executor", "SKIPPED", 5),
        node("executor", "RUNNING", 6, minutes=0),
    )
    assert (one.name, one.state, one.tries, one.pod_seconds) == ("probe", "cached", 0, 0)
    assert (two.name, two.state, two.pod) == ("baseline", "running", "flow-impl-6")
    # until now
    assert two.seconds == pytest.approx((datetime.now(UTC) - NOON).total_seconds(), abs=60)


@pytest.mark.parametrize("state", ["RUNNING", "SUCCEEDED"])
def test_a_step_that_has_not_begun_is_not_there(state):
    assert found(node("probe-driver", state, 1)) == []


def test_a_step_whose_pod_was_never_made_failed():
    [task] = found(node("probe-driver", "FAILED", 1, error="no image"))
    assert (task.name, task.state, task.error, task.pod) == ("probe", "failed", "no image", "")


def test_times_that_did_not_come():
    nowhere = node("probe", "PENDING", 1)
    nowhere.start_time = datetime(1970, 1, 1, tzinfo=UTC)
    [task] = found(nowhere)
    assert task.seconds is None


def test_replicates_are_steps_in_the_order_of_their_seeds():
    names = ["evaluate", "gather-probe", "probe-10", "probe-2", "baseline-0", "search", "pretrain-2"]
    nodes = [node(f"{name}{end}", "RUNNING", hash(name + end)) for name in names for end in ("-driver", "")]
    assert [task.name for task in found(*nodes)] == [
        *("pretrain-2", "search", "probe-2", "probe-10", "gather-probe", "baseline-0", "evaluate")
    ]


def test_groups_and_the_whole_are_no_steps():
    names = ["root", "exit-handler-1", "condition-branches-1", "condition-2", "for-loop-3", "probe"]
    nodes = [node(f"{name}{end}", "RUNNING", hash(name + end)) for name in names for end in ("-driver", "")]
    assert [task.name for task in found(node("flow-x7", "RUNNING", 9), *nodes)] == ["probe"]


def test_a_run_without_nodes_has_no_steps():
    assert tasks(models.V2beta1Run(state="PENDING")) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (0.4, "0:00:00"), (59.6, "0:01:00"), (7500, "2:05:00")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
