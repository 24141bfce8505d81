"""Whether this installation is whole: steps and options are there, /tmp and home are writable."""

from __future__ import annotations

import os
import tempfile
from importlib.util import find_spec
from pathlib import Path

from components.shared.errors import UserError
from components.shared.params.composing import options
from components.shared.steps import STEPS


def check_health() -> None:
    """Print what was found to be whole.

    Raises:
        UserError: something is not; the line says what.
    """
    for step in STEPS:
        if find_spec(f"components.{step}") is None:
            raise UserError(f"components.{step}: is not there; install it anew")
    for folder in (Path(tempfile.gettempdir()), Path.home()):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"x")
        except OSError as error:
            raise UserError(
                f"{folder}: can't be written: {error.strerror}; mount a volume there, such as an emptyDir, "
                "or set TMPDIR and HOME"
            ) from None
    count = sum(map(len, options().values()))
    print(f"ok: {len(STEPS)} steps, {count} options, commit {os.environ.get('GIT_COMMIT') or 'unknown'}")
