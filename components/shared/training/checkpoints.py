"""What is kept of a step's trainings, so that a killed run goes on where it stopped: states, and finished ones."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from components.shared.artifacts import (
    TO_WRITE,
    input_digest,
    locked,
    remove_half_written,
    replace_file,
    require_writable,
)
from components.shared.code import code_digest
from components.shared.digests import value_digest
from components.shared.errors import UserError
from components.shared.params.schema import Params, params_digest
from components.shared.repository import state_folder
from components.shared.training.backend import start_backend
from components.shared.training.distributed import all_gather
from components.shared.training.start import start_digest

# a folder for each step
CACHE = Path(".cache")


def cache_folder(step: str) -> Path:
    """Where what a step has trained so far is kept, unless it is told where."""
    return state_folder() / CACHE / step


def training_key(step: str, params: Params, seed: int, inputs: Mapping[str, Path]) -> str:
    """Digest of everything that decides a training's result, its code among it; starts Keras.

    Args:
        step: the step's name.
        params: what the step is handed.
        seed: of the replicate.
        inputs: name → finished folder, or file, that the step reads.

    Raises:
        UserError: an input is not finished.
    """
    start_backend()
    # imported here: only for steps that start Keras themselves a moment later
    import keras

    from components.shared.training.devices import precision_here

    # the probe computes in full precision
    runtime = getattr(params, "runtime", None)
    place = [keras.backend.backend(), keras.version(), precision_here(getattr(runtime, "precision", "float32"))]
    # a file may have been replaced under its name
    start = start_digest(params.encoder.weights) if step == "pretrain" else None
    digests = {name: input_digest(folder) for name, folder in inputs.items()}
    return value_digest([step, params_digest(params), start, seed, digests, code_digest(step, params), place])


class Checkpoint:
    """One file with a training's variables and the curves so far; written whole or not at all.

    It is kept outside the step's output, which DVC removes before each run, and is named by everything that decides
    the result, so that a changed parameter or dataset never goes on from it. Of several processes that train the
    same on one folder one keeps the state: who has claimed it, until the block of a `with` or the process ends.
    Where a file system has no locks each of them does, and the last one that wrote counts: any of their states is
    one of this training.

    Args:
        key: digest of the parameters and inputs.
        folder: where checkpoints are kept.
    """

    def __init__(self, key: str, folder: Path):
        self.path = folder / f"{key}.npz"
        self._lock_file = folder / f".{key}.lock"
        self._lock, self._claimed = ExitStack(), False

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *error: object) -> None:
        if self._claimed:
            self._lock_file.unlink(missing_ok=True)
        self._lock.close()
        self._claimed = False

    def claim(self) -> bool:
        """Whether this process keeps the state: it does from now on, unless another one does that still runs.

        Raises:
            UserError: the folder can't be written.
        """
        with _told(self._lock_file):
            self._lock_file.parent.mkdir(parents=True, exist_ok=True)
            # also so that it looks as young as the training; another user's, who was killed, is locked as it is
            with suppress(PermissionError):
                self._lock_file.touch()
            if not self._claimed:
                with ExitStack() as lock, suppress(FileNotFoundError):  # just removed by who had it
                    self._claimed = lock.enter_context(locked(self._lock_file))
                    if self._claimed:
                        self._lock = lock.pop_all()
        return self._claimed

    def save(self, epoch: int, rows: Sequence[Mapping[str, Any]], variables: Sequence[Any]) -> None:
        """Keep the state after `epoch` epochs: `variables` in a fixed order, `rows` of the curves.

        Raises:
            UserError: it can't be written.
        """
        arrays = {f"v{index:05d}": np.asarray(variable) for index, variable in enumerate(variables)}
        state = json.dumps({"epoch": epoch, "rows": list(rows)}).encode()
        with _told(self.path):
            _write(self.path, {"state": np.frombuffer(state, "uint8"), **arrays})

    def restore(self, variables: Sequence[Any]) -> tuple[int, list[dict[str, Any]]]:
        """Put a kept state into `variables`.

        Returns:
            The number of finished epochs and the rows of their curves; (0, []) where nothing usable is kept.

        Raises:
            UserError: the processes of one training found different states.
        """
        epoch, rows, arrays = self._read(variables)
        if len(set(all_gather(epoch))) > 1:
            # another training that keeps this state may have written it in between
            epoch, rows, arrays = self._read(variables)
        if len(epochs := set(all_gather(epoch))) > 1:
            raise UserError(
                f"{self.path.parent}: the processes found states after {sorted(epochs)} epochs; mount one shared "
                "folder there"
            )
        if epoch:
            for variable, array in zip(variables, arrays, strict=True):
                variable.assign(array)
        return epoch, rows

    def _read(self, variables: Sequence[Any]) -> tuple[int, list[dict[str, Any]], list[np.ndarray]]:
        """The state, as many epochs as it is old; (0, [], []) where there is none for such variables."""
        try:
            with np.load(self.path, allow_pickle=False) as kept:
                state = json.loads(kept["state"].tobytes())
                epoch, rows = int(state["epoch"]), [dict(row) for row in state["rows"]]
                arrays = [kept[f"v{index:05d}"] for index in range(len(kept.files) - 1)]
        except Exception:  # NumPy answers to foreign and damaged files with exceptions of a dozen kinds
            return 0, [], []
        if [(a.shape, a.dtype) for a in arrays] != [(tuple(v.shape), np.dtype(v.dtype)) for v in variables]:
            return 0, [], []
        return epoch, rows, arrays

    def remove(self) -> None:
        """The training is finished."""
        self.path.unlink(missing_ok=True)
        remove_half_written(self.path)


class Finished:
    """What the finished trainings of a step have given, so that a killed step makes none of them again.

    Args:
        folder: of this step with these inputs; None keeps nothing.
    """

    def __init__(self, folder: Path | None = None):
        self.folder = folder

    def once(self, name: str, train: Callable[[], Mapping[str, Any]]) -> dict[str, np.ndarray]:
        """What a training gave, arrays by name: what is kept of it, or what `train` gives now.

        Args:
            name: of the training, among those of the step.
            train: gives arrays, numbers and texts by name.

        Raises:
            UserError: it can't be written.
        """
        if self.folder is None:
            return _arrays(train())
        path = self.folder / f"{name}.npz"
        # as of a state: what can't be read is not there
        with suppress(Exception), np.load(path, allow_pickle=False) as kept:
            return dict(kept)
        arrays = _arrays(train())
        # it is removed where another process, which did the same, has just finished the step
        with _told(path), suppress(FileNotFoundError):
            _write(path, arrays)
        return arrays


@contextmanager
def keeping(
    step: str, params: Params, seed: int, inputs: Mapping[str, Path], folder: Path | None = None
) -> Iterator[Finished]:
    """What the finished trainings of a step have given, until the block ends without an error.

    Args:
        step, params, seed, inputs: as of `training_key`, which names what is kept.
        folder: where; None: `cache_folder`.

    Raises:
        UserError: the folder can't be written, or an input is not finished.
    """
    folder = folder or cache_folder(step)
    require_writable(folder, "finished trainings")
    own = folder / training_key(step, params, seed, inputs)[:32]
    if there := len(list(own.glob("*.npz"))):
        print(f"{step}: going on after {there} finished trainings, kept in {own}", flush=True)
    yield Finished(own)
    shutil.rmtree(own, ignore_errors=True)


def _arrays(values: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in values.items()}


def _write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, buffer.getvalue())


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Let what the system says against a file be one line."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}: the state of the training can't be kept: {error.strerror}; make room for it, or {TO_WRITE}"
        ) from None
