"""All about one version for its reviewer: the card, the gate's checks, and where runs and pictures are."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from components.shared.errors import UserError, first_line
from components.shared.evaluation.gate import BLESSING, Blessing, read_blessing
from components.shared.registry.versions import answering
from components.shared.steps import STEPS
from components.shared.tracking.client import if_there
from pipelines.review.state import Entry, State

REPORT = "report.html"
_RUN_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Details:
    """What `show` shows besides the state.

    Attributes:
        page: address of the version in MLflow's page; None without a server.
        blessing: the gate's verdict as the evaluation wrote it, or why it can't be read.
        runs: name → address in MLflow's page, or folder of its files.
        files: report and pictures of the evaluation: name → address or path.
    """

    page: str | None
    blessing: Blessing | str
    runs: Mapping[str, str]
    files: Mapping[str, str]


def host() -> str | None:
    """Address of MLflow's page, without a name and password; None where there is no server."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri.startswith(("http://", "https://")):
        return None
    return re.sub(r"//[^/@]*@", "//", uri).rstrip("/")


def version_page(name: str, number: str) -> str | None:
    """Address of a version in MLflow's page; None without a server."""
    where = host()
    return f"{where}/#/models/{quote(name, safe='')}/versions/{number}" if where else None


def details(state: State, number: str) -> Details:
    """Collect them; what is gone is left out or told.

    Raises:
        UserError: there is no such version, or the registry does not answer.
    """
    entry = state.entry(number)
    evaluation = entry.tags.get("evaluation_run", "")
    runs, files = {}, {}
    with answering(state.place.model) as client:
        for name, run_id in _named_runs(entry).items():
            run = if_there(client.get_run, run_id)
            runs[name] = f"{run_id} (deleted, or of another server)" if run is None else _run_page(run)
            if run is not None and run_id == evaluation:
                files = {path: _file_page(run, path) for path in _shown_files(client, run_id)}
    return Details(version_page(state.place.model, number), _blessing(evaluation), runs, files)


def _named_runs(entry: Entry) -> dict[str, str]:
    """The runs that the version names, each once, in the order of the steps."""
    tags = {f"run.{step}": entry.tags.get(f"run.{step}", "") for step in STEPS}
    others = {"evaluation": entry.tags.get("evaluation_run", ""), "training": entry.tags.get("training_run", "")}
    found: dict[str, str] = {}
    for name, run_id in {**tags, **others, "registration": entry.run_id}.items():
        if _RUN_ID.fullmatch(run_id) and run_id not in found.values():
            found[name.removeprefix("run.")] = run_id
    return found


def _shown_files(client: Any, run_id: str) -> list[str]:
    names = [found.path for found in client.list_artifacts(run_id)]
    return [REPORT] * (REPORT in names) + sorted(name for name in names if name.endswith((".png", ".svg")))


def _run_page(run: Any) -> str:
    where = host()
    if where is None:
        return _local(run.info.artifact_uri)
    return f"{where}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"


def _file_page(run: Any, path: str) -> str:
    return f"{_run_page(run)}/{'artifacts/' if host() else ''}{quote(path) if host() else path}"


def _local(uri: str) -> str:
    from urllib.parse import unquote, urlparse

    parsed = urlparse(uri)
    return unquote(parsed.path) if parsed.scheme in ("", "file") else uri


def _blessing(run_id: str) -> Blessing | str:
    import mlflow

    if not run_id:
        return "the version has no tag evaluation_run"
    # MLflow draws a bar for each file
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with tempfile.TemporaryDirectory(prefix="review-") as folder:
        try:
            mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=BLESSING, dst_path=folder)
            return read_blessing(Path(folder))
        except UserError as error:
            return str(error).removeprefix(f"{folder}/")
        except Exception as error:  # each artifact store has its own exceptions
            first = first_line(error)
            return f"{BLESSING} of run {run_id} can't be read: {first}"
