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


def on_jax(compiled: Path | None = None, devices: int | None = None) -> dict[str, str]:
    """The environment of a process that runs this repository's code on JAX, on the processor.

    Compilation takes most of a short run.

    Args:
        compiled: where what one process compiles is kept for all that are handed the same folder; None: nowhere.
        devices: so many processors are simulated, and the compilation is kept short; None: as in use.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    if compiled is not None:
        environment |= {
            "JAX_COMPILATION_CACHE_DIR": str(compiled),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
    if devices is not None:
        # by the last, devices that wait for each other on a busy machine do not give up
        environment["XLA_FLAGS"] = (
            f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0 "
            "--xla_llvm_disable_expensive_passes=true --xla_cpu_collective_call_terminate_timeout_seconds=600"
        )
    return environment


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
