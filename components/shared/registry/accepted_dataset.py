"""What the dataset was like that the registry's champion was trained on."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np

from components.shared.artifacts import read_json
from components.shared.checks.drift import DATASET_STATISTICS, TEST_IMAGES, TRAINING_IMAGES, DatasetStatistics
from components.shared.errors import UserError, first_line
from components.shared.registry.versions import find_champion
from components.shared.tracking.client import connect


@dataclass(frozen=True)
class AcceptedDataset:
    """What was kept with the champion of its dataset.

    Attributes:
        statistics: of its images.
        training, test: digests of its images, of those of test and of the others, as `log_classifier` writes them,
            uint64; empty where they were not kept.
    """

    statistics: DatasetStatistics
    training: np.ndarray
    test: np.ndarray


def accepted_dataset(name: str) -> tuple[AcceptedDataset | None, str]:
    """What was kept with the champion of a registered model.

    Returns:
        That, and the version that it is of; or None, and why there is nothing.
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

            def fetch(file: str) -> Path:
                uri = f"{accepted.uri}/{file}" if accepted else ""
                return Path(mlflow.artifacts.download_artifacts(uri, dst_path=place))

            try:
                path = fetch(DATASET_STATISTICS)
            except Exception as error:  # each artifact store has its own exceptions
                return None, f"not compared: {version} has no statistics of its dataset ({first_line(error)})"
            statistics = read_json(path, DatasetStatistics)
            try:
                files = (TRAINING_IMAGES, TEST_IMAGES)
                training, test = (np.load(fetch(file), allow_pickle=False) for file in files)
            except Exception:  # likewise, or of an earlier version of this pipeline
                training = test = np.zeros(0, np.uint64)
            return AcceptedDataset(statistics, training, test), version
    except UserError as error:
        return None, f"not compared: {error}"
