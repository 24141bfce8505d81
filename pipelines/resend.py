"""Logging what steps could not, because the tracking server was lost while they ran."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from components.shared.repository import in_repository
from components.shared.tracking.client import connect
from components.shared.tracking.resend import resend, waiting_folders


def resend_all(folders: Sequence[Path] = ()) -> None:
    """Make each folder's run at `MLFLOW_TRACKING_URI` whole; nothing changes in the folders.

    Args:
        folders: of steps that have ended; none are all in the repository that have something to send.

    Raises:
        UserError: a folder holds nothing to send, or the server does not take all of it.
    """
    folders = folders or waiting_folders(in_repository("."))
    if not folders:
        print("nothing waits to be sent")
        return
    connect()
    for folder in folders:
        print(resend(folder))
