"""Whether the environment that runs this is the one that the repository's locks name."""

from __future__ import annotations

import filecmp
import sys
from pathlib import Path

from components.shared.errors import UserError
from components.shared.repository import find_root


def warn_if_stale() -> None:
    """Say on the error stream if this is the repository's `.venv`, made from another lock than those here.

    An environment that `make env` did not make, such as an image's, is nobody's business.
    """
    try:
        root = find_root()
    except UserError:
        return
    environment = root / ".venv"
    installed = environment / "installed.lock"
    if not installed.exists() or Path(sys.prefix).resolve() != environment.resolve():
        return
    if not any(filecmp.cmp(lock, installed, shallow=False) for lock in root.glob("requirements*.lock")):
        print("warning: .venv is older than requirements.lock; run `make env`", file=sys.stderr)
