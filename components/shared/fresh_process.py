"""Answers of a logged model as its user gets them: loaded by MLflow in a fresh process without this project.

This file is also the program that the fresh process runs, so it imports nothing of the project.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

_PACKAGES = ("components", "models", "pipelines")


def answers(model_uri: str, images: np.ndarray, environment: dict[str, str], seconds: float = 600) -> np.ndarray:
    """Load a model through MLflow's `pyfunc` in a fresh process and ask it.

    Args:
        model_uri: anything `mlflow.pyfunc.load_model` takes.
        images: uint8, shape (N, H, W, 3).
        environment: variables to set for the process, such as the tracking server's absolute address.
        seconds: give up after so long.

    Returns:
        What the model answers, shape (N, classes).

    Raises:
        RuntimeError: the model does not load or does not answer; the message is the process's last words.
    """
    with tempfile.TemporaryDirectory(prefix="fresh-") as folder:
        asked, answered = Path(folder) / "images.npy", Path(folder) / "answers.npy"
        np.save(asked, np.ascontiguousarray(images))
        # -I: neither this project's folder nor the user's packages are on the path
        command = [sys.executable, "-I", str(Path(__file__).resolve()), model_uri, str(asked), str(answered)]
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env={**os.environ, **environment},
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"no answer within {seconds:.0f} s") from None
        if done.returncode != 0:
            lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
            raise RuntimeError(lines[-1][:300] if lines else f"the process ended with status {done.returncode}")
        return np.load(answered, allow_pickle=False)


def _main(model_uri: str, images: str, answered: str) -> None:
    for name in _PACKAGES:
        # even where the project is installed as a package, the model must load without it
        sys.modules[name] = None  # type: ignore[assignment]
    import mlflow

    model = mlflow.pyfunc.load_model(model_uri)
    np.save(answered, np.asarray(model.predict(np.load(images))))


if __name__ == "__main__":
    try:
        _main(*sys.argv[1:])
    except Exception as error:
        # the last line is what the caller reads; Keras's messages have many
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}")
