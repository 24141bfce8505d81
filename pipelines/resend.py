"""Sending what steps could not log because the tracking server was lost."""

from __future__ import annotations

from pathlib import Path

from components.shared.repository import in_repository
from components.shared.tracking.delivery import UNSENT, resend
from components.shared.tracking.run import connect


def resend_all(folder: Path | None = None) -> None:
    """Send each run's rest to `MLFLOW_TRACKING_URI` and remove it here.

    Args:
        folder: with a folder for each run; None is the repository's.
    """
    folder = folder or in_repository(UNSENT)
    if not any(folder.glob("*/calls.json")):
        print(f"{folder}/: nothing is waiting")
        return
    connect()
    for line in resend(folder):
        print(line)
