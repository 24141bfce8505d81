"""The state of a training, so that a killed run goes on where it stopped."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.shared.artifacts import replace_file

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
        """Keep the state after `epoch` epochs: `variables` in a fixed order, `rows` of the curves."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {f"v{index:05d}": np.asarray(variable) for index, variable in enumerate(variables)}
        state = json.dumps({"epoch": epoch, "rows": list(rows)}).encode()
        buffer = io.BytesIO()
        np.savez(buffer, state=np.frombuffer(state, "uint8"), **arrays)  # type: ignore[arg-type]
        replace_file(self.path, buffer.getvalue())

    def restore(self, variables: Sequence[Any]) -> tuple[int, list[dict[str, Any]]]:
        """Put a kept state into `variables`.

        Returns:
            The number of finished epochs and the rows of their curves; (0, []) where nothing usable is kept.
        """
        try:
            with np.load(self.path) as kept:
                state = json.loads(kept["state"].tobytes())
                arrays = [kept[f"v{index:05d}"] for index in range(len(variables))]
        except (OSError, KeyError, ValueError, zipfile.BadZipFile):
            return 0, []
        if any(a.shape != tuple(v.shape) for a, v in zip(arrays, variables, strict=True)):
            return 0, []
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)
        return int(state["epoch"]), state["rows"]

    def remove(self) -> None:
        """The training is finished."""
        self.path.unlink(missing_ok=True)
