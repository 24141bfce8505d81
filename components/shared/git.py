"""What git says of the code here; nothing where there is no git or no repository."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def commit(folder: Path | None = None) -> str | None:
    """The commit that the code is of: `GIT_COMMIT`, as in an image, or what is checked out in the folder."""
    return os.environ.get("GIT_COMMIT") or _git(folder, "rev-parse", "HEAD") or None


def is_dirty(*paths: str, folder: Path | None = None) -> bool:
    """Whether tracked files differ from the commit.

    Args:
        paths: to look at, as git writes them: `:!dvc.lock` leaves that file out.
        folder: to look in, by default the working folder.
    """
    return bool(_git(folder, "status", "--porcelain", "--untracked-files=no", "--", *paths))


def _git(folder: Path | None, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
