"""Search: the best training of baseline and fine-tuning, looked for at the same points, on held-out images.

Reads `dataset/` and the first encoder; writes `search/`: for baseline, fine-tuning and probe what was chosen
(`<step>.json`) and what it answered on the held-out images (`<step>.npz`); of the first two how they did on these
while they were trained (`<step>.csv`); `augmentations.png` (what it could choose from), and `result.json` with all
trials.
"""

from __future__ import annotations

from pathlib import Path

from components.shared.artifacts import Dataset, Result
from components.shared.params.schema import Params, check_colors
from components.shared.step import command_line, working
from components.shared.training.backend import start_backend
from components.shared.training.checkpoints import keeping


def search(
    dataset: Path, encoder: Path, out: Path, params: Params, seed: int, checkpoints: Path | None = None
) -> Result:
    """Choose augmentation, rate, decay and length for baseline and fine-tuning, and the probe's penalty.

    Both sides try every point that either of them asks for, so that their spaces and budgets are equal. The
    baseline's training is never shorter than fine-tuning's, and longer by the pretraining's epochs where the
    options ask for equal totals. Held-out images decide, by log-loss; test images are not opened.

    Args:
        dataset: folder written by `ingest`.
        encoder: folder written by `pretrain`, of the first replicate.
        out: folder to write.
        params: reads method (its views, and whether it learns from labels), encoder, supervised, probe and runtime.
        seed: of the first replicate, and of all trials.
        checkpoints: folder of what an interrupted run has finished; None: below `.cache/`.

    Returns:
        The record that is written to `result.json`.

    Raises:
        UserError: an input is not finished or about another dataset, `checkpoints` can't be written,
            the images do not suit an augmentation, or the loss of a side is never a number.
    """
    start_backend()
    # imported here: Keras, only now that its announcements are muted
    from components.shared.training.inputs import load_encoder
    from components.shared.training.search import run_search

    data = Dataset(dataset)
    check_colors(params, data.manifest.channels)
    pretrained = load_encoder(encoder, data, params.encoder)
    inputs = {"dataset": dataset, "encoder": encoder}
    with (
        keeping("search", params, seed, inputs, checkpoints) as finished,
        working("search", out, params, inputs, data.manifest.name, seed) as work,
    ):
        work.run.dataset(data, "training")
        return run_search(data, Path(encoder), pretrained, params, seed, work, finished)


if __name__ == "__main__":
    command_line("search", search)
