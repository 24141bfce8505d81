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
    watched("schedule", "weekly", "0 0 * * 0")
    [first] = [run for run in watched.api.all("recurring_runs") if run["display_name"] == "nightly"]
    done = watched("schedule", "nightly", "0 4 * * *", "cluster.gpu.count=2")
    assert done.status == 0 and "replaced    1 earlier of that name" in done.out
    nightly = [run for run in watched.api.all("recurring_runs") if run["display_name"] == "nightly"]
    assert [run["trigger"]["cron_schedule"]["cron"] for run in nightly] == ["0 0 4 * * *"]
    assert nightly[0]["recurring_run_id"] != first["recurring_run_id"] and nightly[0]["mode"] == "ENABLE"
    assert len(watched.api.all("recurring_runs")) == 2 and max(watched.counts) == 2


def test_the_same_schedule_again_replaces_it(kubeflow):
    kubeflow("schedule", "nightly", "0 3 * * *", "runtime.epochs=3")
    [before] = kubeflow.api.all("recurring_runs")
    before["mode"] = "DISABLE"
    for words in (["runtime.epochs=3"], ["runtime.epochs=4"], ["--service-account", "trainer"]):
        assert "replaced    1" in kubeflow("schedule", "nightly", "0 3 * * *", *words).out
    assert len(enabled(kubeflow.api)) == len(kubeflow.api.all("recurring_runs")) == 1


def test_a_schedule_on_change_is_of_a_version_that_looks_first(kubeflow):
    assert kubeflow("schedule", "nightly", "0 3 * * *").status == 0
    assert kubeflow("schedule", "nightly", "0 3 * * *", "--on-change").status == 0
    [run], versions = kubeflow.api.all("recurring_runs"), kubeflow.api.all("pipeline_versions")
    assert ["comp-look" in version["pipeline_spec"]["pipeline_spec"]["components"] for version in versions] == [
        *(False, True)
    ]
    assert run["pipeline_version_reference"]["pipeline_version_id"] == versions[1]["pipeline_version_id"]


CALLS = {
    "made": "POST .*/recurringruns$",
    "paused": "POST .*:disable$",
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
    watched.api.fail(CALLS["made"], "cut request", 9)
    watched.api.fail("GET .*/recurringruns$", 503, 9, skip=1)
    failure = watched("schedule", "nightly", "0 4 * * *").failure
    assert "whether nightly is enabled is not known: repeat the command" in failure
    assert max(watched.counts) <= 1
    watched.api.faults.clear()
    assert watched("schedule", "nightly", "0 4 * * *").status == 0
    assert len(watched.api.all("recurring_runs")) == len(enabled(watched.api)) == 1


def test_ctrl_c_leaves_the_earlier_schedule(watched, monkeypatch):
    watched("schedule", "nightly", "0 3 * * *")
    [old] = watched.api.all("recurring_runs")
    watched.counts.clear()

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("kfp.Client.create_recurring_run", interrupted)
    failure = watched("schedule", "nightly", "0 4 * * *").failure
    assert failure == "interrupted; the earlier schedule nightly holds: repeat the command"
    assert enabled(watched.api) == [old] and max(watched.counts) == 1


def test_a_first_schedule_that_fails_leaves_nothing_enabled(watched):
    watched.api.fail(CALLS["made"], 500)
    failure = watched("schedule", "nightly", "0 3 * * *").failure
    assert enabled(watched.api) == []
    assert "no nightly is enabled, nothing is scheduled" in failure
    assert watched("schedule", "nightly", "0 3 * * *").status == 0
    assert len(watched.api.all("recurring_runs")) == len(enabled(watched.api)) == 1


def test_what_was_uploaded_is_told_if_the_rest_fails(kubeflow):
    kubeflow.api.fail("POST .*/experiments$", 403)
    failure = kubeflow("schedule", "nightly", "0 3 * * *").failure
    assert "is uploaded, and nothing was started: repeat the command" in failure
    assert kubeflow.api.all("recurring_runs") == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nightly", "0 25 * * *"], "cron: hour = 25: must be 0–23"),
        (["nightly", "0 0 3 * * *"], "must have 5 fields"),
        (["", "0 0 * * *"], "NAME = '': must be"),
        (["a/b", "0 0 * * *"], "NAME = 'a/b': must be"),
        (["nightly", "0 0 * * *", "data=cifar"], "did you mean cifar10?"),
    ],
)
def test_wrong_words_are_told_before_the_cluster_is_asked(kubeflow, words, said):
    assert said in kubeflow("schedule", *words).failure
    assert kubeflow.api.calls == []


def others(kubeflow, name):
    """A schedule of another pipeline in the same namespace."""
    kubeflow("schedule", name, "0 0 * * *")
    [run] = [run for run in kubeflow.api.all("recurring_runs") if run["display_name"] == name]
    run["pipeline_version_reference"] = {"pipeline_id": "other", "pipeline_version_id": "gone"}
    run["trigger"] = {"cron_schedule": {"cron": "30 0 3 * * *"}}
    return run


def test_schedules_of_other_pipelines_are_left_alone(kubeflow):
    theirs = others(kubeflow, "theirs")
    assert "no such schedule of this pipeline" in kubeflow("unschedule", "theirs").failure
    assert kubeflow.api.all("recurring_runs") == [theirs]
    assert "no schedule" in kubeflow("schedules").out
    # a name is its pipeline's own
    assert "replaced" not in kubeflow("schedule", "theirs", "0 * * * *").out
    assert theirs in kubeflow.api.all("recurring_runs") and len(kubeflow.api.all("recurring_runs")) == 2


def test_schedules_are_listed(kubeflow):
    assert "no schedule; make one with" in kubeflow("schedules").out
    kubeflow("schedule", "nightly", "0 3 * * *", "runtime.epochs=3")
    kubeflow("schedule", "weekly", "0 5 * * sun")
    [nightly, weekly] = kubeflow.api.all("recurring_runs")
    weekly["mode"] = "DISABLE"
    # one that was made on the page
    kubeflow("schedule", "seldom", "0 5 * * sun")
    kubeflow.api.all("recurring_runs")[-1]["trigger"] = {"periodic_schedule": {"interval_second": "60"}}
    lines = [line.rstrip() for line in kubeflow("schedules").out.splitlines()]
    assert lines[0].split("  ")[0] == "NAME" and len(lines) == 4
    assert re.match(rf"nightly +0 3 \* \* \* +20\S+ 03:00 +on +{COMMIT}-\w+ +runtime.epochs=3$", lines[1])
    assert re.match(rf"weekly +0 5 \* \* sun +paused +{COMMIT}-\w+ +the default options$", lines[2])
    known = json.loads(kubeflow("schedules", "--json").out)
    assert [(item["name"], item["cron"], item["state"]) for item in known] == [
        ("nightly", "0 3 * * *", "on"),
        ("weekly", "0 5 * * sun", "paused"),
        ("seldom", "", "on"),
    ]
    assert known[0]["id"] == nightly["recurring_run_id"]


def test_unschedule_deletes_all_of_that_name_and_nothing_else(kubeflow):
    kubeflow("schedule", "nightly", "0 3 * * *")
    kubeflow("schedule", "weekly", "0 0 * * 0")
    kubeflow.api.fail(CALLS["deleted"], 500)
    kubeflow("schedule", "nightly", "0 4 * * *")
    assert len(kubeflow.api.all("recurring_runs")) == 3
    assert kubeflow("unschedule", "nightly").out == "nightly: deleted, 2 of them; runs that it started go on\n"
    assert [run["display_name"] for run in kubeflow.api.all("recurring_runs")] == ["weekly"]
    assert "no such schedule" in kubeflow("unschedule", "nightly").failure


def test_unscheduling_where_nothing_was_ever_run(kubeflow):
    assert "nightly: no such schedule" in kubeflow("unschedule", "nightly").failure
