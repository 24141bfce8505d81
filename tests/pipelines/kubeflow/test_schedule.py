"""`schedule`, `schedules` and `unschedule` against a server that speaks the API of Kubeflow Pipelines."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import pytest

from tests.helpers.kfp_commands import COMMIT
from tests.helpers.robfig_cron import RobfigCron


def enabled(api):
    return [run for run in api.all("recurring_runs") if run["mode"] == "ENABLE"]


@pytest.fixture
def watched(kubeflow):
    """The server, which notes after each request how many schedules are enabled."""
    answer, counts = kubeflow.api.answer, []

    def counting(*request):
        try:
            return answer(*request)
        finally:
            counts.append(len(enabled(kubeflow.api)))

    kubeflow.api.answer = counting
    kubeflow.counts = counts
    return kubeflow


def test_a_schedule_is_what_was_asked_for(kubeflow):
    done = kubeflow("schedule", "nightly", "30 3 * * mon-fri", "cluster=default", "data=sample", "runtime.epochs=3")
    assert (done.status, done.err) == (0, "")
    [run] = kubeflow.api.all("recurring_runs")
    assert run["trigger"]["cron_schedule"] == {"cron": "0 30 3 * * mon-fri"}
    assert (run["no_catchup"], run["max_concurrency"], run["mode"]) == (True, "1", "ENABLE")
    assert run["runtime_config"]["parameters"]["overrides"] == ["data=sample", "runtime.epochs=3"]
    [version] = kubeflow.api.all("pipeline_versions")
    assert run["pipeline_version_reference"]["pipeline_version_id"] == version["pipeline_version_id"]
    assert version["display_name"].startswith(COMMIT)
    assert f"page        {kubeflow.api.url}/#/recurringrun/details/{run['recurring_run_id']}" in done.out
    times = re.search(r"^next \(UTC\)  (.*)$", done.out, re.MULTILINE)[1].split(", ")
    assert len(times) == 3
    for time in times:
        moment = datetime.strptime(time, "%Y-%m-%d %H:%M").replace(tzinfo=UTC)
        assert moment > datetime.now(UTC) and RobfigCron("0 30 3 * * 1-5").matches(moment)


def test_a_schedule_of_the_same_name_is_replaced(watched):
    watched("schedule", "nightly", "0 3 * * *")
    watched("schedule", "weekly", "@weekly")
    [first] = [run for run in watched.api.all("recurring_runs") if run["display_name"] == "nightly"]
    done = watched("schedule", "nightly", "0 4 * * *", "cluster.gpu.count=2")
    assert done.status == 0 and "replaced    1 earlier of that name" in done.out
    nightly = [run for run in watched.api.all("recurring_runs") if run["display_name"] == "nightly"]
    assert [run["trigger"]["cron_schedule"]["cron"] for run in nightly] == ["0 0 4 * * *"]
    assert nightly[0]["recurring_run_id"] != first["recurring_run_id"] and nightly[0]["mode"] == "ENABLE"
    assert len(watched.api.all("recurring_runs")) == 2 and max(watched.counts) == 2


def test_the_same_schedule_again_changes_nothing(kubeflow):
    kubeflow("schedule", "nightly", "0 3 * * *", "runtime.epochs=3")
    before = kubeflow.api.all("recurring_runs")
    again = kubeflow("schedule", "nightly", "0 3 * * *", "runtime.epochs=3")
    assert again.status == 0 and ", as it was" in again.out
    assert kubeflow.api.all("recurring_runs") == before
    # paused, or with other options, it is not the same
    before[0]["mode"] = "DISABLE"
    assert "replaced    1" in kubeflow("schedule", "nightly", "0 3 * * *", "runtime.epochs=3").out
    assert "replaced    1" in kubeflow("schedule", "nightly", "0 3 * * *", "runtime.epochs=4").out
    assert "replaced    1" in kubeflow("schedule", "nightly", "0 3 * * *", "--service-account", "trainer").out
    assert len(enabled(kubeflow.api)) == len(kubeflow.api.all("recurring_runs")) == 1


CALLS = {
    "made": "POST .*/recurringruns$",
    "paused": "POST .*:disable$",
    "enabled": "POST .*:enable$",
    "deleted": "DELETE .*/recurringruns/",
}


@pytest.mark.parametrize("times", [1, 9])
@pytest.mark.parametrize("fault", [403, 500, "cut request", "cut answer"])
@pytest.mark.parametrize("call", CALLS)
def test_wherever_it_breaks_off_one_schedule_holds(watched, call, fault, times):
    watched("schedule", "nightly", "0 3 * * *")
    [old] = watched.api.all("recurring_runs")
    watched.counts.clear()
    watched.api.fail(CALLS[call], fault, times)
    failure = watched("schedule", "nightly", "0 4 * * *").failure
    assert max(watched.counts) <= 1
    now = enabled(watched.api)
    if "the earlier schedule" in failure and "holds" in failure:
        assert now == [old]
    elif "nothing is scheduled" in failure:
        assert now == []
    elif "is replaced" in failure or "the new nightly holds" in failure:
        assert [run["trigger"]["cron_schedule"]["cron"] for run in now] == ["0 0 4 * * *"]
    else:
        raise AssertionError(f"it is not said what holds: {failure}")
    assert "repeat" in failure
    if times == 1:
        assert len(now) == 1

    watched.api.faults.clear()
    assert watched("schedule", "nightly", "0 4 * * *").status == 0
    [run] = watched.api.all("recurring_runs")
    assert run["mode"] == "ENABLE" and run["trigger"]["cron_schedule"]["cron"] == "0 0 4 * * *"
    assert max(watched.counts) == 1


def test_a_server_that_goes_away_in_between_leaves_at_most_one_enabled(watched):
    watched("schedule", "nightly", "0 3 * * *")
    watched.counts.clear()
    watched.api.fail(CALLS["enabled"], "cut request", 9)
    watched.api.fail("GET .*/recurringruns$", 503, 9, skip=1)
    failure = watched("schedule", "nightly", "0 4 * * *").failure
    assert "whether nightly is enabled is not known: repeat the command" in failure
    assert max(watched.counts) <= 1
    watched.api.faults.clear()
    assert watched("schedule", "nightly", "0 4 * * *").status == 0
    assert len(watched.api.all("recurring_runs")) == len(enabled(watched.api)) == 1


@pytest.mark.parametrize("call", ["made", "enabled"])
def test_a_first_schedule_that_fails_leaves_nothing_enabled(watched, call):
    watched.api.fail(CALLS[call], 500)
    failure = watched("schedule", "nightly", "0 3 * * *").failure
    assert enabled(watched.api) == []
    assert "no nightly is enabled, nothing is scheduled" in failure
    assert watched("schedule", "nightly", "0 3 * * *").status == 0
    assert len(watched.api.all("recurring_runs")) == len(enabled(watched.api)) == 1


def test_what_was_uploaded_is_told_if_the_rest_fails(kubeflow):
    kubeflow.api.fail("POST .*/experiments$", 403)
    failure = kubeflow("schedule", "nightly", "0 3 * * *").failure
    assert "is uploaded, nothing was scheduled: repeat the command" in failure
    assert kubeflow.api.all("recurring_runs") == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nightly", "0 25 * * *"], "cron: hour = 25: must be 0–23"),
        (["nightly", "0 0 3 * * *"], "must have 5 fields"),
        (["", "@daily"], "NAME = '': must be"),
        (["a/b", "@daily"], "NAME = 'a/b': must be"),
        (["nightly", "@daily", "data=cifar"], "did you mean cifar10?"),
    ],
)
def test_wrong_words_are_told_before_the_cluster_is_asked(kubeflow, words, said):
    assert said in kubeflow("schedule", *words).failure
    assert kubeflow.api.calls == []


def others(kubeflow, name):
    """A schedule of another pipeline in the same namespace."""
    kubeflow("schedule", name, "@daily")
    [run] = [run for run in kubeflow.api.all("recurring_runs") if run["display_name"] == name]
    run["pipeline_version_reference"] = {"pipeline_id": "other", "pipeline_version_id": "gone"}
    run["trigger"] = {"cron_schedule": {"cron": "30 0 3 * * *"}}
    return run


def test_schedules_of_other_pipelines_are_left_alone(kubeflow):
    theirs = others(kubeflow, "theirs")
    assert "is a schedule of another pipeline" in kubeflow("schedule", "theirs", "@hourly").failure
    assert "is a schedule of another pipeline" in kubeflow("unschedule", "theirs").failure
    assert kubeflow.api.all("recurring_runs") == [theirs]
    assert "no schedule" in kubeflow("schedules").out
    shown = kubeflow("schedules", "--all").out
    assert re.search(r"^theirs +30 0 3 \* \* \* +on +deleted", shown, re.MULTILINE)


def test_schedules_are_listed(kubeflow):
    assert "no schedule; make one with" in kubeflow("schedules").out
    kubeflow("schedule", "nightly", "0 3 * * *", "runtime.epochs=3")
    kubeflow("schedule", "weekly", "0 5 * * sun")
    [nightly, weekly] = kubeflow.api.all("recurring_runs")
    weekly["mode"] = "DISABLE"
    lines = kubeflow("schedules").out.splitlines()
    assert lines[0].split("  ")[0] == "NAME" and len(lines) == 3
    assert re.match(rf"nightly +0 3 \* \* \* +20\S+ 03:00 +on +{COMMIT}-\w+ +runtime.epochs=3$", lines[1])
    assert re.match(rf"weekly +0 5 \* \* sun +paused +{COMMIT}-\w+ +the default options$", lines[2])
    known = json.loads(kubeflow("schedules", "--json").out)
    assert [(item["name"], item["cron"], item["state"]) for item in known] == [
        ("nightly", "0 3 * * *", "on"),
        ("weekly", "0 5 * * sun", "paused"),
    ]
    assert known[0]["id"] == nightly["recurring_run_id"]


def test_unschedule_deletes_all_of_that_name_and_nothing_else(kubeflow):
    kubeflow("schedule", "nightly", "0 3 * * *")
    kubeflow("schedule", "weekly", "@weekly")
    kubeflow.api.fail(CALLS["deleted"], 500)
    kubeflow("schedule", "nightly", "0 4 * * *")
    assert len(kubeflow.api.all("recurring_runs")) == 3
    failure = kubeflow("unschedule", "nightli").failure
    assert failure == "nightli: no such schedule (did you mean nightly?); there are: nightly, weekly"
    assert kubeflow("unschedule", "nightly").out == "nightly: deleted, 2 of them; runs that it started go on\n"
    assert [run["display_name"] for run in kubeflow.api.all("recurring_runs")] == ["weekly"]
    assert "there are: weekly" in kubeflow("unschedule", "nightly").failure


def test_unscheduling_where_nothing_was_ever_run(kubeflow):
    assert kubeflow("unschedule", "nightly").failure == "nightly: no such schedule; there is none"
