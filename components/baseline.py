"""The rival: the same network trained on the same labels from random weights.

Reads `dataset/`; writes `baseline/`: `classifier.keras`, `predictions.npz`, `curves.csv`, `result.json`.
"""

from __future__ import annotations

from pathlib import Path

from components.shared.artifacts import Dataset, Result
from components.shared.params.schema import Params
from components.shared.step import command_line, working
from components.shared.training.backend import start_backend


def baseline(dataset: Path, out: Path, params: Params) -> Result:
    """Train the supervised baseline, with the learning rate chosen on validation as for fine-tuning.

    Args:
        dataset: folder written by `ingest`.
        out: folder to write.
        params: reads encoder, supervised and runtime.

    Returns:
        The record that is written to `result.json`.

    Raises:
        UserError: the dataset is not finished, or no learning rate gives a finite loss.
    """
    start_backend()
    # imported here: Keras, only now that its announcements are muted
    from components.shared.training.supervised import train_supervised

    data = Dataset(dataset)
    with working("baseline", out, params, {"dataset": dataset}, data.manifest.name) as work:
        return train_supervised(data, params, work, None)


if __name__ == "__main__":
    command_line("baseline", baseline)
