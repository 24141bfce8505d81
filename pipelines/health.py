"""Whether this installation is whole: steps and options are there, /tmp is writable, libraries start."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from components.shared.errors import UserError
from components.shared.params.composing import compose, options
from components.shared.steps import STEPS
from components.shared.training.backend import start_backend

# one that fails to start would otherwise be met hours into a run; in the order of the steps that need them
LIBRARIES = (
    *("numpy", "pandas", "pyarrow", "PIL", "tensorflow_datasets", "great_expectations", "keras"),
    *("sklearn", "matplotlib", "mlflow", "kfp", "kfp.dsl.executor_main", "kfp.kubernetes"),
)


def check_health(libraries: bool = False) -> None:
    """Print what was found to be whole.

    Args:
        libraries: whether to start them too.

    Raises:
        UserError: something is not; the line says what.
    """
    for step in STEPS:
        if find_spec(f"components.{step}") is None:
            raise UserError(f"components.{step}: is not there; install it anew")
    count = sum(len(names) for names in options().values())
    _writable(Path(tempfile.gettempdir()))
    _writable(Path.home())
    print(f"ok: {len(STEPS)} steps, {count} options, commit {os.environ.get('GIT_COMMIT') or 'unknown'}")
    if libraries:
        for line in _start_libraries():
            print(line, flush=True)


def _import(name: str) -> None:
    try:
        import_module(name)
    except Exception as error:
        raise UserError(f"{name}: can't be imported: {type(error).__name__}: {error}; install it anew") from None


def _writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        raise UserError(
            f"{folder}: can't be written: {error.strerror}; mount a volume there, such as an emptyDir, "
            "or set TMPDIR and HOME"
        ) from None


def _start_libraries() -> Iterator[str]:
    """Start Keras, compose the options and import what the steps need; says on which devices it is."""
    try:
        start_backend()
    except Exception as error:
        raise UserError(f"keras: can't start: {type(error).__name__}: {error}") from None
    compose()
    for name in [*LIBRARIES, *(f"components.{step}" for step in STEPS)]:
        _import(name)
    # not at the top: its backend must have started
    import keras

    identity = keras.ops.matmul(keras.ops.eye(2), keras.ops.eye(2))
    if float(keras.ops.sum(identity)) != 2.0:
        raise UserError(f"keras: {keras.backend.backend()} multiplies matrices wrongly; check the driver")
    devices = ", ".join(keras.distribution.list_devices())
    yield f"keras {version('keras')} on {keras.backend.backend()}: {devices}"
    yield f"{len(LIBRARIES)} libraries start; mlflow {version('mlflow')}, kfp {version('kfp')}"
