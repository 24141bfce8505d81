"""Send what steps could not log because the tracking server was lost.

A step that ends while the server is away keeps its metrics, tags and files in `unsent/<run id>/`, where it was run.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from components.shared.tracking.client import connect
from components.shared.tracking.delivery import UNSENT, resend


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("folder", type=Path, nargs="?", default=Path(UNSENT), help=f"default: {UNSENT}/")


def main(options: argparse.Namespace) -> None:
    """Send each run's rest to `MLFLOW_TRACKING_URI` and remove it here."""
    if not any(options.folder.glob("*/calls.json")):
        print(f"{options.folder}/: nothing is waiting")
        return
    connect()
    for line in resend(options.folder):
        print(line)
