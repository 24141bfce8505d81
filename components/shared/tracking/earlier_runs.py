"""The MLflow runs of all steps behind a model, and where MLflow's page shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import mlflow
from mlflow.exceptions import MlflowException

from components.shared.artifacts import Manifest, Result
from components.shared.errors import UserError, first_line, redacted
from components.shared.steps import STEPS
from components.shared.tracking.pipeline_run import experiment_of


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
    manifest: Manifest, evaluation: Result, probe: Result, exported: int, register: str
) -> dict[str, str]:
    """What the records say: step → run id.

    Args:
        manifest: of the dataset.
        evaluation: record of `evaluate`, which names the runs of the models that it compared.
        probe: record of `probe`, which names the runs that trained the encoders, one a replicate.
        exported: index of the replicate that ships.
        register: run of the step in progress.
    """
    pretrained = probe.details.get("pretraining_runs", [])
    found = {
        "ingest": manifest.mlflow_run_id,
        "pretrain": pretrained[exported] if exported < len(pretrained) else None,
        **evaluation.details.get("runs", {}),
        "evaluate": evaluation.mlflow_run_id,
        "register": register,
    }
    return {step: str(found[step]) for step in STEPS if found.get(step)}


def find_runs(recorded: Mapping[str, str], manifest: Manifest) -> dict[str, StepRun]:
    """Look the runs up at the tracking server, in the steps' order.

    No record names the run of `validate`: it is the last one that let this dataset pass.

    Args:
        recorded: step → run id.
        manifest: of the dataset that all steps worked on, whose experiment they log to.

    Raises:
        UserError: the tracking server does not answer.
    """
    accepted = f"tags.step = 'validate' AND tags.`input.dataset` = '{manifest.digest}' AND status = 'FINISHED'"
    ids = ", ".join(f"'{run_id}'" for run_id in recorded.values())
    client = mlflow.MlflowClient()
    try:
        experiment = experiment_of(manifest.name)
        validation = client.search_runs([experiment], accepted, max_results=1, order_by=["start_time DESC"])
        known = {run.info.run_id for run in client.search_runs([experiment], f"attributes.run_id IN ({ids})")}
    except MlflowException as error:
        where = redacted(mlflow.get_tracking_uri())
        raise UserError(f"MLflow at {where} does not tell its runs: {first_line(error)}; run again") from None
    found = {step: StepRun(run_id, experiment if run_id in known else None) for step, run_id in recorded.items()}
    if validation:
        found["validate"] = StepRun(validation[0].info.run_id, experiment)
    return {step: found[step] for step in STEPS if step in found}
