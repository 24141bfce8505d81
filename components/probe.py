"""How good the frozen features are: a linear classifier, nearest neighbours, and accuracy over label budgets.

Reads `dataset/` and `encoder/`; writes `probe/`: `classifier.keras` (the encoder with the linear layer on top),
`predictions.npz`, `curves.csv` (the online probe during pretraining), `budgets.csv`, pictures, `result.json`.
"""

from __future__ import annotations

from pathlib import Path

from components.shared.artifacts import Dataset, Result
from components.shared.params.schema import Params
from components.shared.step import command_line, working
from components.shared.training.backend import start_backend


def probe(dataset: Path, encoder: Path, out: Path, params: Params) -> Result:
    """Evaluate an encoder's features without changing them.

    The penalty of the linear classifier is chosen on validation; the solver `minibatch` has its own weight decay
    instead. Seeds decide its first weights and, where a budget keeps only some labels, which ones; a convex problem
    has one best solution, so that with all labels the seeds differ little.

    Args:
        dataset: folder written by `ingest`.
        encoder: folder written by `pretrain`, from the same dataset.
        out: folder to write.
        params: reads probe and runtime.

    Returns:
        The record that is written to `result.json`.

    Raises:
        UserError: an input is not finished, or the encoder belongs to another dataset.
    """
    start_backend()
    # imported here: Keras, only now that its announcements are muted
    from components.shared.training.inputs import load_encoder
    from components.shared.training.probing import Probing

    data = Dataset(dataset)
    network = load_encoder(encoder, data)
    inputs = {"dataset": dataset, "encoder": encoder}
    with working("probe", out, params, inputs, data.manifest.name) as work:
        work.run.dataset(data, "evaluation")
        return Probing(data, network, encoder, params, work).run()


if __name__ == "__main__":
    command_line("probe", probe)
