"""Where things are in MLflow's page, and what the evaluation wrote about a version."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from urllib.parse import quote

import mlflow
from mlflow.entities.model_registry import ModelVersion

from components.shared.errors import UserError, first_line, without_account
from components.shared.evaluation.gate import BLESSING, Blessing, Check
from components.shared.registry.version_tags import tagged_gain
from components.shared.registry.versions import all_tags
from components.shared.tracking.addresses import local_path
from pipelines.command_line import printable


def host() -> str | None:
    """Address of MLflow's page, without a name and password; None where there is no server."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    return without_account(uri) if uri.startswith(("http://", "https://")) else None


def version_page(host: str, name: str, number: str) -> str:
    """Address of a version in MLflow's page."""
    return f"{host.rstrip('/')}/#/models/{quote(name, safe='')}/versions/{number}"


def announcement(model: str, number: str, tags: Mapping[str, str], page: str) -> str:
    """A new challenger in one line: verdict, gain, where to look, and the command that shows it."""
    verdict, gain = tags.get("verdict", "verdict unknown, not registered by the pipeline"), tagged_gain(tags)
    weakened = " by a weakened gate" if tags.get("weaker") else ""
    said = f"{model} version {number} waits for review: {verdict}{weakened}{', gain ' if gain else ''}{gain}"
    command = f"contrastive review show {number} --model {shlex.quote(model)}"
    return printable(f"{said} | {version_page(page, model, number)} | {command}")


def evaluation(version: ModelVersion) -> tuple[Sequence[Check], str]:
    """The gate's checks of a version, and where its report and pictures are.

    Raises:
        UserError: they can't be read.
    """
    run_id = all_tags(version.tags).get("evaluation_run")
    if not run_id:
        raise UserError("the version has no tag evaluation_run")
    # MLflow draws a bar for each file
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        run = mlflow.get_run(run_id).info
        checks = Blessing.model_validate_json(mlflow.artifacts.load_text(f"{run.artifact_uri}/{BLESSING}")).checks
    except Exception as error:  # each artifact store has its own exceptions
        raise UserError(f"{BLESSING} of run {run_id} can't be read: {first_line(error)}") from None
    page = f"{host()}/#/experiments/{run.experiment_id}/runs/{run_id}/artifacts"
    return checks, page if host() else str(local_path(run.artifact_uri) or run.artifact_uri)
