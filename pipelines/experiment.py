"""Check options, then run them as a DVC experiment.

  python -m pipelines experiment data=cifar10 runtime.epochs=200

is `dvc exp run -S data=cifar10 -S runtime.epochs=200`, but a wrong option or value is told in one line before DVC
touches params.yaml.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from components.shared.errors import UserError
from components.shared.params.composing import compose


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "overrides", nargs="*", metavar="OVERRIDE", help="such as data=cifar10 or runtime.epochs=200"
    )
    parser.add_argument("--name", help="name of the experiment; DVC makes one up without it")


def main(options: argparse.Namespace) -> int:
    """Check the options and hand them to DVC; returns DVC's exit status.

    Raises:
        UserError: an override is not allowed, or DVC is not installed.
    """
    compose(options.overrides)
    name = ["--name", options.name] if options.name else []
    chosen = [part for override in options.overrides for part in ("-S", override)]
    # the stages call `python`: this environment's, also where it is not activated
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    command = [sys.executable, "-m", "dvc", "exp", "run", *name, *chosen]
    try:
        return subprocess.run(command, env={**os.environ, "PATH": path}, check=False).returncode
    except OSError as error:
        raise UserError(f"dvc: can't be run: {error.strerror}; make the environment with `make env`") from None
