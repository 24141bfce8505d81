"""The repository under test: where it is, and which files are its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def make_root(folder: Path) -> Path:
    """Make a folder what a command takes for a repository of the pipeline, with this one's options."""
    (folder / "dvc.yaml").touch()
    (folder / "conf").symlink_to(ROOT / "conf")
    return folder


def on_jax() -> dict[str, str]:
    """The environment of a process that runs this repository's code on JAX, on the processor."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}


def tracked_files():
    """Files that git tracks, or would if they were added."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
