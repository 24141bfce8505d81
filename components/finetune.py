"""Train the pretrained network on the labels: all of its weights, or the classifier on top alone.

Reads `dataset/` and `encoder/`; writes `finetune/`: `classifier.keras`, `predictions.npz`, `curves.csv`,
`result.json`.
"""

from __future__ import annotations

from pathlib import Path

from components.shared.artifacts import Dataset, Result
from components.shared.params.schema import Params
from components.shared.step import command_line, working
from components.shared.training.backend import start_backend


def finetune(dataset: Path, encoder: Path, out: Path, params: Params) -> Result:
    """Fine-tune the encoder with a classifier on top; everything but the first weights is as in `baseline`.

    With `supervised.freeze_encoder` only the classifier learns, which the baseline, on random weights, does not do.

    Args:
        dataset: folder written by `ingest`.
        encoder: folder written by `pretrain`, from the same dataset.
        out: folder to write.
        params: reads encoder, supervised and runtime.

    Returns:
        The record that is written to `result.json`.

    Raises:
        UserError: an input is not finished, the encoder belongs to another dataset, or no learning rate gives a
            finite loss.
    """
    start_backend()
    # imported here: Keras, only now that its announcements are muted
    from components.shared.training.inputs import load_encoder
    from components.shared.training.supervised import train_supervised

    data = Dataset(dataset)
    pretrained = load_encoder(encoder, data, params.encoder)
    inputs = {"dataset": dataset, "encoder": encoder}
    with working("finetune", out, params, inputs, data.manifest.name) as work:
        return train_supervised(data, params, work, pretrained.get_weights())


if __name__ == "__main__":
    command_line("finetune", finetune)
