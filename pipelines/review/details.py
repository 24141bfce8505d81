"""All about one version for its reviewer: the card, the gate's checks, and where runs and pictures are."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import mlflow

from components.shared.errors import UserError, first_line, without_account
from components.shared.evaluation.gate import BLESSING, Check, read_blessing
from components.shared.registry.versions import registry_client
from components.shared.steps import STEPS
from components.shared.tracking.client import if_there, local_path
from pipelines.review.state import ModelVersion, State

REPORT = "report.html"


@dataclass(frozen=True)
class Details:
    """What `show` shows besides the state.

    Attributes:
        page: address of the version in MLflow's page; None without a server.
        checks: of the gate, as the evaluation wrote them.
        unknown: why there are no checks; empty where there are.
        runs: name → address in MLflow's page, or folder of its files.
        files: report and pictures of the evaluation: name → address or path.
    """

    page: str | None
    checks: Sequence[Check]
    unknown: str
    runs: Mapping[str, str]
    files: Mapping[str, str]


def host() -> str | None:
    """Address of MLflow's page, without a name and password; None where there is no server."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri.startswith(("http://", "https://")):
        return None
    return without_account(uri)


def version_page(name: str, number: str, where: str | None = None) -> str | None:
    """Address of a version in MLflow's page, which is at `where` or at the server; None without a server."""
    where = (where or host() or "").rstrip("/")
    return f"{where}/#/models/{quote(name, safe='')}/versions/{number}" if where else None


def details(state: State, number: str) -> Details:
    """Collect them; what is gone is left out or told.

    Raises:
        UserError: there is no such version, or the registry does not answer.
    """
    version = state.version(number)
    evaluation = version.tags.get("evaluation_run", "")
    runs, files = {}, {}
    with registry_client(state.models.model) as client:
        for name, run_id in _runs(version).items():
            run = if_there(client.get_run, run_id)
            runs[name] = _page(run) if run else f"{run_id} (deleted, or of another server)"
            if run is not None and run_id == evaluation:
                names = [found.path for found in client.list_artifacts(run_id)]
                pictures = sorted(name for name in names if name.endswith((".png", ".svg")))
                files = {name: _page(run, name) for name in [REPORT] * (REPORT in names) + pictures}
    try:
        checks, unknown = _checks(evaluation), ""
    except UserError as error:
        checks, unknown = [], str(error)
    return Details(version_page(state.models.model, number), checks, unknown, runs, files)


def _runs(version: ModelVersion) -> dict[str, str]:
    """The runs that the version names, each once, in the order of the steps."""
    found: dict[str, str] = {}
    for tag in (*(f"run.{step}" for step in STEPS), "evaluation_run", "training_run"):
        run_id = version.tags.get(tag, "")
        if re.fullmatch(r"[0-9a-f]{32}", run_id) and run_id not in found.values():
            found[tag.removeprefix("run.").removesuffix("_run")] = run_id
    if version.run_id and version.run_id not in found.values():
        found["registration"] = version.run_id
    return found


def _page(run: Any, file: str = "") -> str:
    """Address of a run, or of one of its files; without a server, the path."""
    if host() is None:
        folder = str(local_path(run.info.artifact_uri) or run.info.artifact_uri)
        return f"{folder}/{file}" if file else folder
    page = f"{host()}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    return f"{page}/artifacts/{quote(file)}" if file else page


def _checks(run_id: str) -> Sequence[Check]:
    if not run_id:
        raise UserError("the version has no tag evaluation_run")
    # MLflow draws a bar for each file
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with tempfile.TemporaryDirectory(prefix="review-") as folder:
        try:
            mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=BLESSING, dst_path=folder)
        except Exception as error:  # each artifact store has its own exceptions
            raise UserError(f"{BLESSING} of run {run_id} can't be read: {first_line(error)}") from None
        try:
            return read_blessing(Path(folder)).checks
        except UserError as error:
            raise UserError(str(error).removeprefix(f"{folder}/")) from None
