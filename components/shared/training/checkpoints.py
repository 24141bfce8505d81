"""The state of a training, so that a killed run goes on where it stopped."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.shared.artifacts import TO_WRITE, remove_half_written, replace_file
from components.shared.errors import UserError

FOLDER = Path(".cache/pretrain")


class Checkpoint:
    """One file with a training's variables and the curves so far; written whole or not at all.

    It is kept outside the step's output, which DVC removes before each run, and is named by everything that decides
    the result, so that a changed parameter or dataset never goes on from it.

    Args:
        key: digest of the parameters and inputs.
        folder: where checkpoints are kept.
    """

    def __init__(self, key: str, folder: Path = FOLDER):
        self.path = folder / f"{key}.npz"

    def save(self, epoch: int, rows: Sequence[Mapping[str, Any]], variables: Sequence[Any]) -> None:
        """Keep the state after `epoch` epochs: `variables` in a fixed order, `rows` of the curves.

        Raises:
            UserError: it can't be written.
        """
        arrays = {f"v{index:05d}": np.asarray(variable) for index, variable in enumerate(variables)}
        state = json.dumps({"epoch": epoch, "rows": list(rows)}).encode()
        buffer = io.BytesIO()
        np.savez(buffer, state=np.frombuffer(state, "uint8"), **arrays)  # type: ignore[arg-type]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self.path, buffer.getvalue())
        except OSError as error:
            raise UserError(
                f"{self.path}: the state of the training can't be kept: {error.strerror}; make room for it, "
                f"or {TO_WRITE}"
            ) from None

    def restore(self, variables: Sequence[Any]) -> tuple[int, list[dict[str, Any]]]:
        """Put a kept state into `variables`.

        Returns:
            The number of finished epochs and the rows of their curves; (0, []) where nothing usable is kept.
        """
        try:
            epoch, rows, arrays = self._read()
        except Exception:  # NumPy answers to foreign and damaged files with exceptions of a dozen kinds
            return 0, []
        if [(a.shape, a.dtype) for a in arrays] != [(tuple(v.shape), np.dtype(v.dtype)) for v in variables]:
            return 0, []
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)
        return epoch, rows

    def _read(self) -> tuple[int, list[dict[str, Any]], list[np.ndarray]]:
        with np.load(self.path, allow_pickle=False) as kept:
            state = json.loads(kept["state"].tobytes())
            return (
                int(state["epoch"]),
                [dict(row) for row in state["rows"]],
                [kept[f"v{index:05d}"] for index in range(len(kept.files) - 1)],
            )

    def remove(self) -> None:
        """The training is finished."""
        self.path.unlink(missing_ok=True)
        remove_half_written(self.path)
