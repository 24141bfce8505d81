"""The run of a whole pipeline in MLflow, in which the runs of its steps are nested."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import mlflow
import yaml
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking.context.registry import resolve_tags

from components.shared.environment import environment
from components.shared.tracking.addresses import sqlite_file
from components.shared.tracking.client import alone, experiment_id, requests_within
from components.shared.tracking.lineage import PARAMS, lineage, pipeline_name

PARENT = "mlflow.parentRunId"
# its tag `step`
PIPELINE = "pipeline"
# seconds within which tasks that begin at once have all made a run
_TOGETHER = 1.0


def given_run() -> str | None:
    """Id of the run that Kubeflow's own MLflow tracking has made for this task; None where it has made none."""
    return os.environ.get("MLFLOW_RUN_ID") if "PIPELINE_RUN_ID" in os.environ else None


def experiment_of(data: str) -> str:
    """Id of the experiment that holds a dataset's runs."""
    given = os.environ.get("MLFLOW_EXPERIMENT_ID") if given_run() else None
    return given or experiment_id(f"contrastive-{data}")


class PipelineRun:
    """The run of the pipeline that a step belongs to. What can't be written to it costs the step nothing.

    Args:
        run_id: of MLflow; empty where a step stands alone.
    """

    def __init__(self, run_id: str = ""):
        self.id = run_id

    @classmethod
    def of(cls, data: str) -> PipelineRun:
        """The one that the tag `pipeline.run` names, in the experiment of a dataset; the first step makes it.

        Kubeflow's own tracking has made one, and the run of the step in it.

        Args:
            data: the dataset's name.

        Raises:
            MlflowException: the server refuses it.
        """
        client = MlflowClient()
        if given := given_run():
            return cls(client.get_run(given).data.tags.get(PARENT, ""))
        experiment, uri = experiment_of(data), mlflow.get_tracking_uri()
        wanted = f"tags.step = '{PIPELINE}' AND tags.`pipeline.run` = '{pipeline_name()}'"

        def first() -> str | None:
            found = client.search_runs([experiment], wanted, max_results=1, order_by=["start_time ASC"])
            return found[0].info.run_id if found else None

        with alone(uri):
            known = first()
            if known is None:
                own = {**resolve_tags(), "step": PIPELINE, **lineage()}
                made = client.create_run(experiment, time.time_ns() // 1_000_000, own, title(data)).info.run_id
                # on a server steps that begin at once may make one each: all then take the one that began first
                time.sleep(0 if sqlite_file(uri) else _TOGETHER)
                known = first() or made
                if known != made:
                    client.delete_run(made)
        return cls(known)

    def earlier_try(self, title: str, data: str) -> Run | None:
        """The run of a step of it that a cluster has begun before: each step of a cluster's run is there once.

        Args:
            title: name of the step's run.
            data: the dataset's name.

        Raises:
            MlflowException: the server refuses it.
        """
        if not self.id or "PIPELINE_RUN_ID" not in os.environ:
            return None
        wanted = f"tags.`{PARENT}` = '{self.id}' AND attributes.run_name = '{title}'"
        order = ["start_time ASC"]
        found = MlflowClient().search_runs([experiment_of(data)], wanted, max_results=1, order_by=order)
        return found[0] if found else None

    def begin(self) -> None:
        """A step of it begins."""
        self._tell(lambda client: client.update_run(self.id, status="RUNNING"))

    def end(self, status: str) -> None:
        """A step of it has ended so; the last one's word stays, but on a cluster, where others may still run."""
        if "PIPELINE_RUN_ID" not in os.environ:
            self._tell(lambda client: client.set_terminated(self.id, status))

    def metrics(self, values: Mapping[str, float]) -> None:
        """Show numbers beside those of other pipelines."""
        now = time.time_ns() // 1_000_000
        numbers = [Metric(name, float(value), now, 0) for name, value in values.items()]
        self._tell(lambda client: client.log_batch(self.id, metrics=numbers))

    def finish(self, status: str, tags: Mapping[str, str], params: Mapping[str, str]) -> None:
        """End it, and say what it was.

        Raises:
            MlflowException: the server refuses it.
        """
        client = MlflowClient()
        told = [RunTag(*item) for item in {"step": PIPELINE, **lineage(), **tags}.items()]
        client.log_batch(self.id, params=[Param(*item) for item in params.items()], tags=told)
        client.set_terminated(self.id, status)

    def _tell(self, call: Any) -> None:
        if self.id:
            # the address of the step's own run is enough
            quiet = environment({"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"})
            with suppress(MlflowException, OSError), requests_within(None), quiet:
                call(MlflowClient())


def title(data: str, params: Mapping[str, Any] | None = None) -> str:
    """What a pipeline is called: data, method and encoder, as far as they are known, and the name of an experiment.

    Args:
        data: the dataset's name.
        params: of the whole pipeline; None reads those of the folder that a step stands in.
    """
    if params is None:
        params = yaml.safe_load(PARAMS.read_text()) if PARAMS.is_file() else {}
    words = [data, *(params[group]["name"] for group in ("method", "encoder") if group in params)]
    experiment = os.environ.get("DVC_EXP_NAME")
    return " ".join(words) + (f" ({experiment})" if experiment else "")
