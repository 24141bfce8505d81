"""Train the pretrained network on the labels: all of its weights, or the classifier on top alone.

Reads `dataset/`, `encoder/` and `search/`; writes `finetune/`: a folder for each seed of `runtime.replicates`, and
what they are together: `classifier.keras`, `predictions.npz`, `curves.csv`, `result.json`.
"""

from __future__ import annotations

from pathlib import Path

from components.shared.artifacts import Dataset, Result, read_record
from components.shared.params.schema import Params
from components.shared.step import command_line, working
from components.shared.tracking.models import ENCODER
from components.shared.training.backend import start_backend
from components.shared.training.checkpoints import keeping


def finetune(
    dataset: Path,
    encoder: Path,
    search: Path,
    out: Path,
    params: Params,
    seed: int,
    checkpoints: Path | None = None,
) -> Result:
    """Fine-tune the encoder with a classifier on top; everything but the first weights is as in `baseline`.

    With `supervised.freeze_encoder` only the classifier learns, which the baseline, on random weights, does not do.

    Args:
        dataset: folder written by `ingest`.
        encoder: folder written by `pretrain`, from the same dataset and the same seed.
        search: folder written by `search`.
        out: folder to write.
        params: reads encoder, supervised and runtime.
        seed: of the replicate; decides the classifier's first weights, order and augmentation.
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
    from components.shared.training.inputs import load_encoder, pretrained_weights
    from components.shared.training.supervised import train_supervised

    data = Dataset(dataset)
    pretrained = load_encoder(encoder, data, params.encoder)
    chosen = Chosen(search, "finetune", data)
    inputs = {"dataset": dataset, "encoder": encoder, "search": Path(search) / "finetune.json"}
    with (
        keeping("finetune", params, seed, inputs, checkpoints) as finished,
        working("finetune", out, params, inputs, data.manifest.name, seed) as work,
    ):
        work.run.uses(read_record(encoder, Result).mlflow_run_id, ENCODER)
        start = pretrained_weights(
            encoder, pretrained, chosen.choice.projection, params.supervised.projection_layers
        )
        return train_supervised(data, chosen, params, seed, work, finished, start)


if __name__ == "__main__":
    command_line("finetune", finetune)
