"""The rival: the same network trained on the same labels from random weights.

Reads `dataset/` and `search/`; writes `baseline/`: a folder for each seed of `runtime.replicates`, and what they
are together: `classifier.keras`, `predictions.npz`, `curves.csv`, `result.json`.
"""

from __future__ import annotations

from pathlib import Path

from components.shared.artifacts import Dataset, Result
from components.shared.params.schema import Params
from components.shared.step import command_line, working
from components.shared.training.backend import start_backend
from components.shared.training.checkpoints import keeping


def baseline(
    dataset: Path, search: Path, out: Path, params: Params, seed: int, checkpoints: Path | None = None
) -> Result:
    """Train the supervised baseline as the search found best, in the space that fine-tuning was searched in.

    Args:
        dataset: folder written by `ingest`.
        search: folder written by `search`.
        out: folder to write.
        params: reads encoder, supervised and runtime.
        seed: of the replicate; decides first weights, order and augmentation.
        checkpoints: folder of what an interrupted run has finished; None: below `.cache/`.

    Returns:
        The record that is written to `result.json`.

    Raises:
        UserError: an input is not finished or about another dataset, `checkpoints` can't be written,
            or the loss is no longer a number.
    """
    start_backend()
    # imported here: Keras, only now that its announcements are muted
    from components.shared.training.choice import Chosen
    from components.shared.training.supervised import train_supervised

    data = Dataset(dataset)
    chosen = Chosen(search, "baseline", data)
    inputs = {"dataset": dataset, "search": Path(search) / "baseline.json"}
    with (
        keeping("baseline", params, seed, inputs, checkpoints) as finished,
        working("baseline", out, params, inputs, data.manifest.name, seed) as work,
    ):
        return train_supervised(data, chosen, params, seed, work, finished, None)


if __name__ == "__main__":
    command_line("baseline", baseline)
