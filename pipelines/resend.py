"""Log what steps could not, because the tracking server was lost while they ran.

A step that ends while the server is away leaves all that it logged in its folder, as `tracking.json`.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("folders", type=Path, nargs="*", metavar="FOLDER", help="of steps; default: all here")


def main(options: argparse.Namespace) -> None:
    """Make each folder's run at `MLFLOW_TRACKING_URI` whole; nothing changes in the folders.

    Raises:
        UserError: a folder holds nothing to send, or the server does not take all of it.
    """
    # MLflow takes seconds to import, which other commands must not wait for
    from components.shared.tracking.client import connect
    from components.shared.tracking.resend import resend, waiting_folders

    folders = options.folders or waiting_folders(Path())
    if not folders:
        print("nothing here waits to be sent")
        return
    connect()
    for folder in folders:
        print(resend(folder))
