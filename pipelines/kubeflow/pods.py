"""What a run's pods tell beyond the API of runs: the last line of a log, and GPUs."""

from __future__ import annotations

import re
from typing import Any

from pipelines.kubeflow.client import Client, ClusterError

# what KFP's launcher writes into a step's log
_LAUNCHER = re.compile(r"[IWEF]\d{4} \d\d:\d\d:\d\d|time=\"|\[KFP Executor")


def last_words(client: Client, run_id: str, pod: str) -> str:
    """The last line of a pod's log that is the step's own; empty where the server does not tell it any more.

    With the pod goes its log, unless the cluster archives it.

    Args:
        client: of the cluster.
        run_id: whose pod it is.
        pod: its name.
    """
    try:
        lines = [line.strip() for line in client.log_of(run_id, pod).splitlines()]
    except ClusterError:
        return ""
    own = [line for line in lines if line and not _LAUNCHER.match(line)]
    return next((line for line in reversed(own) if line.startswith("error: ")), own[-1] if own else "")[:300]


def gpus_asked_for(client: Client, run: Any) -> dict[str, int]:
    """How many GPUs each task of a run asks for, of those that do, as its version of the pipeline says.

    Args:
        client: of the cluster.
        run: as the API tells it.
    """
    source = run.pipeline_version_reference
    try:
        version = client.get_pipeline_version(source.pipeline_id, source.pipeline_version_id)
        spec = version.pipeline_spec.get("pipeline_spec", version.pipeline_spec)
        executors = spec["deploymentSpec"]["executors"]
    except (ClusterError, AttributeError, KeyError, TypeError):
        # the version was deleted since, or the run is not of one
        return {}
    asked = {
        name.removeprefix("exec-"): executor.get("container", {}).get("resources", {}).get("accelerator", {})
        for name, executor in executors.items()
    }
    return {name: int(found.get("resourceCount") or found["count"]) for name, found in asked.items() if found}
