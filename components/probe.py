"""How good the frozen features are: a linear classifier, nearest neighbours, and answers with fewer labels.

Reads `dataset/`, `encoder/` and `search/`; writes `probe/`: a folder for each seed of `runtime.replicates`, and
what they are together: `classifier.keras` (the encoder with the linear layer on top), `predictions.npz`,
`budgets.npz` (answers on test with fewer labels), `curves.csv` (the online probe during pretraining),
`label_suspects.csv`, pictures, `result.json`.

`label_suspects.csv` lists labels of train and validation that may be wrong, the surest first: path, split, row,
label, neighbours_label, and the shares of the neighbours' votes for that (share) and for the image's own
(own_share).
"""

from __future__ import annotations

from pathlib import Path

from components.shared.artifacts import Dataset, Result, read_record
from components.shared.params.schema import Params, check_colors
from components.shared.step import command_line, working
from components.shared.tracking.models import ENCODER
from components.shared.training.backend import start_backend


def probe(dataset: Path, encoder: Path, search: Path, out: Path, params: Params, seed: int) -> Result:
    """Evaluate an encoder's features without changing them.

    The search chose the penalty of the linear classifier; the solver `minibatch` has its own weight decay instead.
    A convex problem has one best solution: replicates differ because their encoders do.

    Args:
        dataset: folder written by `ingest`.
        encoder: folder written by `pretrain`, from the same dataset and the same seed.
        search: folder written by `search`.
        out: folder to write.
        params: reads probe.
        seed: of the replicate; decides the first weights, and which labels a smaller budget keeps.

    Returns:
        The record that is written to `result.json`.

    Raises:
        UserError: an input is not finished, or belongs to another dataset, or the images do not suit the
            augmentation.
    """
    start_backend()
    # imported here: Keras, only now that its announcements are muted
    from components.shared.training.choice import Chosen
    from components.shared.training.inputs import load_encoder
    from components.shared.training.probing import Probing

    data = Dataset(dataset)
    check_colors(params, data.manifest.channels)
    network = load_encoder(encoder, data)
    chosen = Chosen(search, "probe", data)
    inputs = {"dataset": dataset, "encoder": encoder, "search": Path(search) / "probe.json"}
    with working("probe", out, params, inputs, data.manifest.name, seed) as work:
        work.run.dataset(data, "evaluation")
        work.run.uses(read_record(encoder, Result).mlflow_run_id, ENCODER)
        return Probing(data, network, encoder, chosen, params, seed, work).run()


if __name__ == "__main__":
    command_line("probe", probe)
