"""Composing options into params.yaml, and running them as a DVC experiment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from components.shared.errors import UserError
from components.shared.params.composing import compose, write_params
from components.shared.repository import find_root, in_repository


def write_composed(overrides: Sequence[str], out: Path | None = None) -> None:
    """Compose and check; write only what is valid.

    Args:
        overrides: such as `data=cifar10` or `runtime.epochs=200`.
        out: the file; None is the repository's params.yaml.

    Raises:
        UserError: an override is not allowed, or the file can't be written.
    """
    out = out or in_repository("params.yaml")
    _, values = compose(overrides, find_root() / "conf")
    partial = out.with_name(f".{out.name}.partial")
    try:
        write_params(values, partial)
        partial.replace(out)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise UserError(f"{out}: can't be written: {error.strerror}; choose another --out") from None
    print(f"{out}: composed from {' '.join(overrides) or 'the defaults'}")


def run_experiment(overrides: Sequence[str], name: str | None = None) -> int:
    """Check the options and hand them to DVC; returns DVC's exit status.

    Args:
        overrides: such as `data=cifar10` or `runtime.epochs=200`.
        name: of the experiment; None lets DVC make one up.

    Raises:
        UserError: an override is not allowed, or DVC is not installed.
    """
    root = find_root()
    compose(overrides, root / "conf")
    named = ["--name", name] if name else []
    chosen = [part for override in overrides for part in ("-S", override)]
    # the stages call `python`: this environment's, also where it is not activated
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    command = [sys.executable, "-m", "dvc", "exp", "run", *named, *chosen]
    try:
        return subprocess.run(command, cwd=root, env={**os.environ, "PATH": path}, check=False).returncode
    except OSError as error:
        raise UserError(f"dvc: can't be run: {error.strerror}; make the environment with `make env`") from None
