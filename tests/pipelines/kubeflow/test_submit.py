"""`submit` and `status` against a server that speaks the API of Kubeflow Pipelines."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys

import pytest
import yaml

from pipelines.kubeflow.runs import PATIENCE
from tests.helpers.kfp_commands import COMMIT
from tests.helpers.repository import ROOT

EACH = ("pretrain", "probe", "baseline", "finetune")
STEPS = [
    *("compose", "pull", "ingest", "validate", "search", "champion", "evaluate", "register", "record"),
    *(f"{step}-{seed}" for step in EACH for seed in range(4)),
    *(f"gather-{step}" for step in EACH[1:]),
]


def run_id(done):
    return re.search(r"^run +([0-9a-f-]{36}),", done.out, re.MULTILINE)[1]


def told(done):
    """What was told of each step, in order, without the time of day."""
    return re.findall(r"^\d\d:\d\d:\d\d  ([\w-]+): (.*)$", done.out, re.MULTILINE)


def test_a_run_is_followed_to_its_end(kubeflow):
    kubeflow.api.outcomes = {"ingest": "cached", "refuse": "skipped"}
    done = kubeflow("submit", "cluster=default", "data=sample", "runtime.epochs=3")
    assert (done.status, done.err) == (0, "")
    version = re.search(rf"^version +contrastive-pipeline ({COMMIT}-[0-9a-f]{{8}})$", done.out, re.MULTILINE)[1]
    identity = run_id(done)
    assert f"Run details: {kubeflow.api.url}/#/runs/details/{identity}" in done.out
    lines = told(done)
    assert ("ingest", "cached") in lines and ("refuse", "skipped") in lines
    for step in STEPS:
        assert lines.index((step, "running")) < max(index for index, line in enumerate(lines) if line[0] == step)
    assert {step for step, _ in lines} == {*STEPS, "refuse"}
    # each takes a minute there
    assert done.out.splitlines()[-1] == f"succeeded after 0:{len(STEPS) + 1}:00"

    [run], [uploaded] = kubeflow.api.all("runs"), kubeflow.api.all("pipeline_versions")
    assert run["run_id"] == identity
    assert run["runtime_config"]["parameters"] == {
        "overrides": ["data=sample", "runtime.epochs=3"],
        "data_version": "",
    }
    assert run["pipeline_version_reference"]["pipeline_version_id"] == uploaded["pipeline_version_id"]
    assert uploaded["display_name"] == version
    assert uploaded["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["name"] == "contrastive-pipeline"


def test_what_is_uploaded_is_what_compile_writes(kubeflow, tmp_path):
    assert kubeflow("submit", "--detach", "cluster.gpu.count=2").status == 0
    assert kubeflow("compile", "cluster.gpu.count=2", "--out", str(tmp_path / "pipeline.yaml")).status == 0
    pipeline, platform = yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text())
    [version] = kubeflow.api.all("pipeline_versions")
    assert version["pipeline_spec"] == {"pipeline_spec": pipeline, "platform_spec": platform}


def test_an_unchanged_version_is_used_again_and_other_settings_make_another(kubeflow):
    first = kubeflow("submit", "--detach")
    again = kubeflow("submit", "--detach", "runtime.epochs=7")
    assert ", uploaded before" not in first.out and ", uploaded before" in again.out
    assert len(kubeflow.api.all("pipeline_versions")) == 1 and len(kubeflow.api.all("runs")) == 2
    assert ", uploaded before" not in kubeflow("submit", "--detach", "cluster.gpu.count=2").out
    names = [version["display_name"] for version in kubeflow.api.all("pipeline_versions")]
    assert len(set(names)) == 2 and all(name.startswith(COMMIT) for name in names)
    assert len(kubeflow.api.all("pipelines")) == len(kubeflow.api.all("experiments")) == 1


def test_other_replicates_make_another_version(kubeflow):
    assert kubeflow("submit", "--detach").status == 0
    assert ", uploaded before" not in kubeflow("submit", "--detach", "runtime.replicates=[0,1,2,3,4,5,6]").out
    few, more = kubeflow.api.all("pipeline_versions")
    both = [
        {name for name in version["pipeline_spec"]["pipeline_spec"]["components"] if "pretrain" in name}
        for version in (few, more)
    ]
    assert both[1] - both[0] == {"comp-pretrain-4", "comp-pretrain-5", "comp-pretrain-6"}
    assert kubeflow.api.all("runs")[-1]["runtime_config"]["parameters"]["overrides"] == [
        "runtime.replicates=[0,1,2,3,4,5,6]"
    ]


@pytest.mark.parametrize("path", ["pipelines$", "upload_version", "experiments$"])
def test_someone_else_may_be_a_moment_earlier(kubeflow, path):
    """Two make the same thing at once: the list was empty, then the server says that it is there already."""
    kubeflow("submit", "--detach")
    listed = {"upload_version": "versions$"}.get(path, path)
    answer, hidden = kubeflow.api.answer, []

    def late(method, at, *rest):
        if method == "GET" and re.search(listed, at) and not hidden:
            hidden.append(at)
            return {}
        return answer(method, at, *rest)

    kubeflow.api.answer = late
    assert "is there already; look at it, then repeat the command [409" in kubeflow("submit", "--detach").failure
    assert kubeflow("submit", "--detach").status == 0
    assert [len(kubeflow.api.all(kind)) for kind in ("pipelines", "pipeline_versions", "experiments", "runs")] == [
        *(1, 1, 1, 2)
    ]


def test_a_dirty_tree_is_refused_or_marked(kubeflow, monkeypatch):
    monkeypatch.setattr("pipelines.kubeflow.cluster.uncommitted", lambda: True)
    assert f"the image of commit {COMMIT} lacks them" in kubeflow("submit").failure
    assert "changes are not committed" in kubeflow("schedule", "nightly", "0 0 * * *").failure
    assert kubeflow.api.calls == []
    assert f"{COMMIT}-dirty-" in kubeflow("submit", "--detach", "--allow-dirty").out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cluster=moon"], "cluster=moon: must be one of"),
        (["data=cifar"], "did you mean cifar10?"),
        (["method.temperature=0"], "method.temperature = 0"),
        (["cluster.gpu.count=-1"], "cluster.gpu.count = -1"),
    ],
)
def test_a_wrong_option_is_told_before_the_cluster_is_asked(kubeflow, words, said):
    assert said in kubeflow("submit", *words).failure
    assert kubeflow.api.calls == []


@pytest.mark.parametrize("fault", [403, 500, "cut request", "cut answer", "slow"])
@pytest.mark.parametrize("path", ["pipelines$", "upload_version", "experiments$", "runs$"])
def test_it_breaks_off_anywhere_and_the_same_command_goes_on(kubeflow, path, fault):
    kubeflow.api.fail(f"POST .*/{path}", fault)
    failure = kubeflow("submit", "--detach", *(["--timeout", "3"] if fault == "slow" else [])).failure
    uploaded = bool(kubeflow.api.all("pipeline_versions"))
    if path == "experiments$":
        assert uploaded and "is uploaded, and nothing was started: repeat the command" in failure
    if path == "runs$":
        assert "is uploaded: repeat the command, unless contrastive kubeflow status shows that" in failure
    started = len(kubeflow.api.all("runs"))
    assert started == (path == "runs$" and fault in ("cut answer", "slow"))
    again = kubeflow("submit", "--detach")
    assert again.status == 0 and (", uploaded before" in again.out) == uploaded
    assert [len(kubeflow.api.all(kind)) for kind in ("pipelines", "pipeline_versions", "experiments")] == [1, 1, 1]
    assert len(kubeflow.api.all("runs")) == started + 1


def test_a_failed_run_says_what_failed_and_where_its_log_is(kubeflow):
    kubeflow.api.outcomes = {"validate": "failed"}
    done = kubeflow("submit")
    assert done.status == 3
    assert ("validate", "failed after 0:01:00: Error (exit code 2)") in told(done)
    assert "failed: validate: Error (exit code 2)" in done.out
    assert re.search(r"kubectl logs --namespace kubeflow \S+-system-container-impl-\d+ --container main", done.out)
    # the exit task runs all the same
    assert ("record", "succeeded after 0:01:00") in told(done)
    shown = kubeflow("status", run_id(done))
    assert shown.status == 0 and "kubectl logs" in shown.out
    assert kubeflow("status", run_id(done), "--follow").status == 3


def test_a_canceled_run_is_a_failure(kubeflow):
    identity = run_id(kubeflow("submit", "--detach"))
    kubeflow.api.things["runs"][identity]["state"] = "CANCELING"
    done = kubeflow("status", identity, "--follow")
    assert done.status == 3 and "canceled after" in done.out


def test_a_run_can_be_stopped(kubeflow):
    identity = run_id(kubeflow("submit", "--detach"))
    assert f"{identity}: is told to stop" in kubeflow("cancel", identity).out
    assert kubeflow("status", identity, "--follow").status == 3
    assert "has ended (canceled)" in kubeflow("cancel", identity).failure
    assert "no such run" in kubeflow("cancel", "nothing").failure
    assert len(kubeflow.requests("POST", ":terminate")) == 1


@pytest.mark.slow
def test_a_flaky_connection_is_survived(kubeflow):
    for skip, fault in enumerate(["cut answer", 503, "cut request", "slow", 500], 2):
        kubeflow.api.fail("GET .*/runs/", fault, skip=skip)
    done = kubeflow("submit", "--timeout", "3")
    assert done.status == 0 and done.out.splitlines()[-1].startswith("succeeded")
    assert "lost sight of the run, which goes on; trying again" in done.out
    assert {step for step, _ in told(done)} >= set(STEPS)


class Clock:
    """A time that passes only where one waits for it."""

    def __init__(self):
        self.now, self.waits = 0.0, []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.waits.append(seconds)
        self.now += seconds


def test_a_server_that_stays_away_ends_the_following(kubeflow, monkeypatch):
    clock = Clock()
    monkeypatch.setattr("pipelines.kubeflow.runs.time", clock)
    monkeypatch.setattr("pipelines.kubeflow.runs.INTERVAL", 60.0)
    kubeflow.api.fail("GET .*/runs/", 503, times=1000, skip=3)
    done = kubeflow("submit")
    assert done.status == 2
    assert done.err.count("\n") == 1
    assert f"the run goes on: contrastive kubeflow status {run_id(done)} --follow" in done.err
    assert sum(clock.waits[2:]) == pytest.approx(PATIENCE + 60)


def test_a_refusal_while_following_ends_it_at_once(kubeflow):
    kubeflow.api.fail("GET .*/runs/", 401, skip=3)
    done = kubeflow("submit")
    assert done.status == 2 and "does not know who you are" in done.err and "the run goes on" in done.err
    assert sum(status == 401 for *_, status in kubeflow.api.calls) == 1


def test_ctrl_c_stops_the_following_and_not_the_run(kubeflow):
    identity = run_id(kubeflow("submit", "--detach"))
    command = [sys.executable, "-m", "pipelines", "kubeflow", "status", identity, "--follow"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell that runs these tests in the background lets its children ignore Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    for line in process.stdout:
        if "running" in line:
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    assert f"the run goes on: contrastive kubeflow status {identity} --follow" in out
    assert kubeflow.requests("POST", "terminate") == [] and kubeflow.requests("DELETE") == []
    assert kubeflow("status", identity, "--follow").status == 0


def test_experiments_are_named_as_for_kfps_client(kubeflow, monkeypatch):
    def where(*words):
        assert kubeflow("submit", "--detach", *words).status == 0
        run = kubeflow.api.all("runs")[-1]
        return kubeflow.api.things["experiments"][run["experiment_id"]]["display_name"]

    assert where("--experiment", "mine") == "mine"
    monkeypatch.setenv("KF_PIPELINES_DEFAULT_EXPERIMENT_NAME", "of the environment")
    assert where() == "of the environment" and where("--experiment", "mine") == "mine"
    for experiment in kubeflow.api.all("experiments"):
        experiment["storage_state"] = "ARCHIVED"
    assert "[400: Invalid input error: the experiment is archived]" in kubeflow("submit", "--detach").failure


def test_the_service_account_and_the_state_of_the_data_reach_the_run(kubeflow):
    kubeflow("submit", "--detach", "--service-account", "trainer", "--data-version", "monday")
    [run] = kubeflow.api.all("runs")
    assert run["service_account"] == "trainer"
    assert run["runtime_config"]["parameters"]["data_version"] == "monday"


def test_status_lists_the_latest_runs(kubeflow):
    assert "no runs; start one" in kubeflow("status").out
    ids = [run_id(kubeflow("submit", "--detach")) for _ in range(3)]
    lines = kubeflow("status").out.splitlines()
    assert lines[0].split()[:2] == ["RUN", "STATE"]
    assert [line.split()[0] for line in lines[1:]] == ids[::-1]
    assert [line.split()[0] for line in kubeflow("status", "--last", "2").out.splitlines()[1:]] == ids[:0:-1]
    assert [run["id"] for run in json.loads(kubeflow("status", "--json").out)] == ids[::-1]


def test_status_shows_one_run(kubeflow):
    kubeflow.api.outcomes = {"ingest": "cached", "refuse": "skipped"}
    identity = run_id(kubeflow("submit", "runtime.epochs=4"))
    shown = kubeflow("status", identity)
    assert re.search(r"^options +runtime.epochs=4$", shown.out, re.MULTILINE)
    assert re.search(r"^ingest +cached", shown.out, re.MULTILINE)
    assert "cached: answered by an earlier run; mlflow_run_id of its artifact names its MLflow run" in shown.out
    assert re.search(r"^pretrain-0 +succeeded +1 +0:01:00 +1.0 *$", shown.out, re.MULTILINE)
    assert re.search(r"^probe-0 +succeeded +1 +0:01:00 *$", shown.out, re.MULTILINE)
    # four pretrainings, baselines and fine-tunings, and the search
    assert re.search(r"^GPU minutes of all steps +13.0$", shown.out, re.MULTILINE)
    known = json.loads(kubeflow("status", identity, "--json").out)
    assert (known["id"], known["state"], known["seconds"]) == (identity, "SUCCEEDED", 60 * len(STEPS) + 60)
    assert known["parameters"]["overrides"] == ["runtime.epochs=4"]
    tasks = {task["name"]: task for task in known["tasks"]}
    assert (tasks["ingest"]["state"], tasks["refuse"]["state"], tasks["probe-2"]["seconds"]) == (
        "cached",
        "skipped",
        60,
    )
    assert set(tasks) == {*STEPS, "refuse"}


def test_status_tells_a_pods_last_words(kubeflow):
    kubeflow.api.outcomes = {"validate": "failed"}
    log = """I1126 03:00:00.1 12 launcher_v2.go:190] publish success.
Reading dataset/
error: dataset/: 3 images of train are in test too; look at validation/findings.csv
F1126 03:00:01.2 12 main.go:49] failed to execute component: exit status 2
"""
    kubeflow.api.logs = {"validate": log}
    identity = run_id(kubeflow("submit", "cluster.gpu.count=4"))
    said = "error: dataset/: 3 images of train are in test too; look at validation/findings.csv"
    assert re.search(rf"^validate +failed +1 +0:01:00 +{said}$", kubeflow("status", identity).out, re.MULTILINE)
    known = {task["name"]: task for task in json.loads(kubeflow("status", identity, "--json").out)["tasks"]}
    assert known["validate"]["last_words"] == said and known["validate"]["error"] == "Error (exit code 2)"
    assert kubeflow.requests("GET", "/ingest") == []
    assert "cached" not in kubeflow("status", identity).out


@pytest.mark.parametrize("fault", [400, 404, 500, "cut answer", "page", "redirect"])
def test_a_log_that_is_gone_leaves_the_reason_that_kubeflow_gives(kubeflow, fault):
    kubeflow.api.outcomes = {"validate": "failed"}
    kubeflow.api.logs = {"validate": "error: unseen"}
    identity = run_id(kubeflow("submit"))
    kubeflow.api.fail("GET .*/log$", fault)
    shown = kubeflow("status", identity)
    assert shown.status == 0
    assert re.search(r"^validate +failed +1 +0:01:00 +Error \(exit code 2\)$", shown.out, re.MULTILINE)


def test_gpu_minutes_are_left_out_where_the_version_is_gone(kubeflow):
    identity = run_id(kubeflow("submit"))
    kubeflow.api.things["pipeline_versions"].clear()
    shown = kubeflow("status", identity)
    assert shown.status == 0
    assert re.search(r"^pretrain-0 +succeeded +1 +0:01:00 *$", shown.out, re.MULTILINE)


@pytest.mark.slow
def test_a_failed_run_goes_on_from_the_step_that_failed(kubeflow):
    kubeflow.api.outcomes = {"validate": "failed"}
    identity = run_id(kubeflow("submit"))
    kubeflow.api.outcomes = {}
    done = kubeflow("retry", identity)
    assert done.status == 0
    assert f"run         {identity}, goes on from validate" in done.out
    assert ("register", "succeeded after 0:01:00") in told(done)
    assert len(kubeflow.requests("POST", ":retry")) == 1 and len(kubeflow.api.all("runs")) == 1
    # what is done can't be retried
    assert "is succeeded; only a run that failed or was canceled" in kubeflow("retry", identity).failure
    assert "no such run" in kubeflow("retry", "nothing").failure
    assert len(kubeflow.requests("POST", ":retry")) == 1


def test_a_canceled_run_can_be_retried_and_left_alone(kubeflow):
    identity = run_id(kubeflow("submit", "--detach"))
    kubeflow("cancel", identity)
    kubeflow("status", identity)
    done = kubeflow("retry", identity, "--detach")
    assert done.status == 0 and f"follow it   contrastive kubeflow status {identity} --follow" in done.out
    kubeflow.api.things["runs"][identity]["state"] = "FAILED"
    kubeflow.api.fail("POST .*:retry", 403)
    assert "does not allow you to do this" in kubeflow("retry", identity).failure


def test_status_refuses_what_makes_no_sense(kubeflow):
    assert "no such run" in kubeflow("status", "nothing").failure
    assert "'--last': Input should be greater than or equal to 1" in kubeflow("status", "--last", "0").failure
    assert "needs one RUN" in kubeflow("status", "--follow").failure
