"""What the dataset was like that the registry's champion was trained on."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import mlflow

from components.shared.artifacts import read_json
from components.shared.checks.drift import DATASET_STATISTICS, DatasetStatistics
from components.shared.errors import UserError, first_line
from components.shared.registry.versions import find_champion
from components.shared.tracking.client import connect


def accepted_statistics(name: str) -> tuple[DatasetStatistics | None, str]:
    """The statistics that were kept with the champion of a registered model.

    Returns:
        The statistics, and the version that they are of; or None, and why there are none.
    """
    # MLflow draws a bar for each file
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        connect()
        champion = find_champion(name)
        if champion.version is None:
            return None, f"nothing to compare with: {name} has no champion"
        version = f"{name} version {champion.version}"
        accepted = next((model for model in champion.accepted if model.version == champion.version), None)
        with tempfile.TemporaryDirectory(prefix="accepted-") as place:
            try:
                uri = f"{accepted.uri}/{DATASET_STATISTICS}" if accepted else ""
                path = Path(mlflow.artifacts.download_artifacts(uri, dst_path=place))
            except Exception as error:  # each artifact store has its own exceptions
                return None, f"not compared: {version} has no statistics of its dataset ({first_line(error)})"
            return read_json(path, DatasetStatistics), version
    except UserError as error:
        return None, f"not compared: {error}"
