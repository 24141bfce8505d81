"""Starting Keras and what it runs on: quietly, and so that the same seed gives the same result."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from components.shared.errors import UserError, first_line

# Keras imports them where they are installed, for wrappers and plots that nothing here uses: a third of its start
UNUSED = ("IPython", "matplotlib", "pandas", "sklearn")


def start_backend() -> None:
    """Import Keras and its backend; TensorFlow then gives the same result from the same seed on this machine.

    Raises:
        UserError: KERAS_BACKEND names none.
    """
    # Level 2 still shows harmless "E" lines of TensorFlow's data pipeline when it is made
    # deterministic; real failures are raised, not logged
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _muted(), _hidden(*UNUSED), _not_collected():
        try:
            # imported here, as TensorFlow is: where what they announce is held back
            import keras
        except ValueError as error:
            raise UserError(f"KERAS_BACKEND: {first_line(error)}; set it to tensorflow, jax or torch") from None

        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            tf.config.experimental.enable_op_determinism()
            # it warns of tracing each of several models once, which is what is meant
            tf.get_logger().setLevel("ERROR")
        elif importlib.util.find_spec("tensorflow"):
            # Keras asks it on every backend whether data is its own; announced now, not among the step's lines
            importlib.import_module("tensorflow")


@contextmanager
def _not_collected() -> Iterator[None]:
    """Take what the block imports as here to stay: Python's collector of garbage does not look through it.

    Half a million objects come with TensorFlow. To look through them again and again is a third of its start, and
    later a part of every collection.
    """
    if "keras" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def _hidden(*names: str) -> Iterator[None]:
    """Let packages seem not to be installed within the block, unless they are imported already."""
    hidden = [name for name in names if name not in sys.modules]
    for name in hidden:
        # to Python, a module that can't be imported
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextmanager
def _muted() -> Iterator[None]:
    """Hold back what a library writes to the error stream's descriptor; show it if the block fails.

    TensorFlow announces its processor features there before any log level of it applies.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(kept, 2)
            held.seek(0)
            os.write(2, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
