"""What MLflow shows of the machine while a step works, and that it never costs the step anything."""

from __future__ import annotations

import mlflow
import pytest

from components.shared.tracking.client import connect
from components.shared.tracking.run import tracked
from components.shared.tracking.system_metrics import ENABLE, SystemMetrics
from tests.helpers.waiting import until

INTERVAL = "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"
PROCESSOR, MEMORY = "system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"


@pytest.fixture
def often(tracking_uri, in_tmp, monkeypatch):
    """Sampled so often that a short step has several."""
    monkeypatch.setenv(INTERVAL, "0.02")
    monkeypatch.delenv(ENABLE, raising=False)
    connect()
    yield
    mlflow.set_tracking_uri(tracking_uri)


def history(run, name):
    return mlflow.MlflowClient().get_metric_history(run.id, name)


def test_samples_go_out_with_what_a_step_logs_and_at_its_end(often):
    with tracked("probe", {}, "p", {}, "watched") as run:
        until(lambda: run.system._samples.qsize() > 2, 60)
        before = history(run, MEMORY)
        run.metrics({"loss": 1.0}, step=1)
        sent = history(run, MEMORY)
        assert len(sent) > len(before) + 2
        until(lambda: run.system._samples.qsize(), 60)
    points = history(run, MEMORY)
    assert len(points) > len(sent)
    assert [point.step for point in points] == list(range(len(points)))
    assert len({point.timestamp for point in sent}) > 1
    assert all(point.value > 0 for point in points)
    assert all(0 <= point.value <= 100 for point in history(run, PROCESSOR))
    assert not run.system._thread.is_alive()


def test_a_step_that_is_shorter_than_the_interval_has_no_samples(often, monkeypatch):
    monkeypatch.setenv(INTERVAL, "600")
    with tracked("probe", {}, "p", {}, "short") as run:
        run.metrics({"loss": 1.0})
    assert mlflow.MlflowClient().get_run(run.id).data.metrics == {"loss": 1.0}


def test_it_can_be_turned_off(often, monkeypatch):
    monkeypatch.setenv(ENABLE, "false")
    assert SystemMetrics("r")._thread is None


def test_a_server_that_is_away_is_not_asked(often):
    """MLflow's own thread ends there."""
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    system = SystemMetrics("r")
    until(lambda: system._samples.qsize() > 2, 60)
    system.stop()
    samples = system.take()
    assert {PROCESSOR, MEMORY} <= set(samples[0].values)
    assert [sample.step for sample in samples] == list(range(len(samples)))
    assert not system.take()


@pytest.mark.parametrize("broken", ["__init__", "collect_metrics"])
def test_what_can_not_be_measured_stops_no_step(often, monkeypatch, broken):
    def fail(self, *arguments):
        raise OSError("no driver")

    monkeypatch.setattr(f"mlflow.system_metrics.system_metrics_monitor.CPUMonitor.{broken}", fail)
    with tracked("probe", {}, "p", {}, "unmeasured") as run:
        run.metrics({"loss": 1.0})
    found = mlflow.MlflowClient().get_run(run.id)
    assert (found.info.status, found.data.metrics) == ("FINISHED", {"loss": 1.0})
