"""The MLflow runs of all steps behind a model, and where MLflow's page shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from components.shared.artifacts import Manifest, Result
from components.shared.errors import UserError, first_line, redacted
from components.shared.steps import STEPS
from components.shared.tracking.client import if_there


@dataclass(frozen=True)
class StepRun:
    """A step's run.

    Attributes:
        run_id: of MLflow.
        experiment_id: None where the tracking server does not know the run.
    """

    run_id: str
    experiment_id: str | None

    @property
    def link(self) -> str | None:
        """Address within MLflow's page, wherever that is served; None where the server does not know the run."""
        return None if self.experiment_id is None else f"#/experiments/{self.experiment_id}/runs/{self.run_id}"


def recorded_runs(
    manifest: Manifest, evaluation: Result, probe: Result | None, finetune: Result | None, register: str
) -> dict[str, str]:
    """What the records say: step → run id.

    Args:
        manifest: of the dataset.
        evaluation: record of `evaluate`, which names the runs of the models that it compared.
        probe: record of `probe`, which names the run that trained the encoder; None if there is none.
        finetune: record of `finetune`; None if there is none.
        register: run of the step in progress.
    """
    compared = evaluation.details.get("runs")
    found = {
        "ingest": manifest.mlflow_run_id,
        **(compared if isinstance(compared, dict) else {}),
        **({"pretrain": probe.details.get("pretraining_run"), "probe": probe.mlflow_run_id} if probe else {}),
        **({"finetune": finetune.mlflow_run_id} if finetune else {}),
        "evaluate": evaluation.mlflow_run_id,
        "register": register,
    }
    return {step: str(found[step]) for step in STEPS if found.get(step)}


def find_runs(recorded: Mapping[str, str], dataset_digest: str) -> dict[str, StepRun]:
    """Look the runs up at the tracking server, in the steps' order.

    No record names the run of `validate`: it is the last one that let this dataset pass.

    Args:
        recorded: step → run id.
        dataset_digest: of the dataset that all steps worked on.

    Raises:
        UserError: the tracking server does not answer.
    """
    client = mlflow.MlflowClient()
    try:
        found = {step: StepRun(run_id, _experiment(client, run_id)) for step, run_id in recorded.items()}
        experiments = {run.experiment_id for run in found.values() if run.experiment_id is not None}
        if experiments:
            found |= _validation(client, sorted(experiments), dataset_digest)
    except MlflowException as error:
        where = redacted(mlflow.get_tracking_uri())
        raise UserError(f"MLflow at {where} does not tell its runs: {first_line(error)}; run again") from None
    return {step: found[step] for step in STEPS if step in found}


def _experiment(client: Any, run_id: str) -> str | None:
    # not there: restored from a cache, or made with another server
    run = if_there(client.get_run, run_id)
    return None if run is None else str(run.info.experiment_id)


def _validation(client: Any, experiments: list[str], dataset_digest: str) -> dict[str, StepRun]:
    wanted = (
        f"tags.step = 'validate' AND tags.`input.dataset` = '{dataset_digest}' AND attributes.status = 'FINISHED'"
    )
    last = client.search_runs(experiments, wanted, max_results=1, order_by=["attributes.start_time DESC"])
    return {str(run.data.tags["step"]): StepRun(run.info.run_id, run.info.experiment_id) for run in last}
