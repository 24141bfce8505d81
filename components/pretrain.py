"""Pretrain an encoder by contrast on all images; labels serve only the online probe and label-using methods.

Reads `dataset/`; writes `encoder/`: for each seed of `runtime.replicates` a folder with `encoder.keras` (from uint8
images to features, built-in layers only), `projection_head.keras` (from features to embeddings), `curves.csv`,
`views.png` and `result.json`, and what they are together; `encoder/encoder.keras` is the first one's. A killed run
goes on from its last finished epoch and ends with the same result.
"""

from __future__ import annotations

from pathlib import Path

from components.shared.artifacts import Dataset, Result, require_writable
from components.shared.errors import UserError
from components.shared.params.schema import Params, check_colors
from components.shared.step import command_line, working
from components.shared.training.backend import start_backend
from components.shared.training.checkpoints import Checkpoint, cache_folder, training_key
from components.shared.training.distributed import initialize


def pretrain(dataset: Path, out: Path, params: Params, seed: int, checkpoints: Path | None = None) -> Result:
    """Train an encoder to recognise the views of the same image.

    Args:
        dataset: folder written by `ingest`.
        out: folder to write.
        params: reads method, encoder and runtime.
        seed: of the replicate; decides first weights, order and views.
        checkpoints: folder of the state kept for interrupted runs; None: below `.cache/`.

    Returns:
        The record that is written to `result.json`.

    Raises:
        UserError: `checkpoints` can't be written, the images do not suit encoder or augmentation, there are fewer
            than two, or no labels for a method that learns from them, the devices can't be used, `encoder.weights`
            names no start for this encoder, `monitor.stop_by` is never measured, `runtime.sub_batch` does not
            divide a step's images, a step does not fit into memory, or the loss is no number.
    """
    start_backend()
    # imported here: Keras, only now that its announcements are muted
    from components.shared.training.devices import on_devices, precision_here
    from components.shared.training.pretraining import PARTS, Pretraining
    from components.shared.training.start import start_digest
    from models import methods

    data = Dataset(dataset)
    check_colors(params, data.manifest.channels)
    checkpoints = checkpoints or cache_folder("pretrain")
    require_writable(checkpoints, "the state of the training")
    images = sum(data.manifest.counts.get(split, 0) for split in PARTS)
    if images < 2:
        raise UserError(f"{data.folder}: {images} images to pretrain on; at least 2 are needed")
    if methods.uses_labels(params.method) and not data.classes:
        raise UserError(
            f"method.name = {params.method.name}: learns from labels, and no image has one; choose another"
        )
    initialize()
    runtime = params.runtime
    with (
        on_devices("pretrain", runtime.devices, min(runtime.batch_size, images), "runtime.batch_size") as devices,
        Checkpoint(training_key("pretrain", params, seed, {"dataset": dataset}), checkpoints) as checkpoint,
    ):
        with working("pretrain", out, params, {"dataset": dataset}, data.manifest.name, seed, True) as work:
            work.run.dataset(data, "training")
            training = Pretraining(data, params, seed, work, checkpoint)
            training.fit()
            training.save()
            metrics = {name: value for name, value in training.last().items() if name != "epoch"}
            result = work.finish(
                data.manifest.digest,
                metrics,
                training.logged,
                seed=seed,
                method=params.method.name,
                encoder=params.encoder.name,
                weights=params.encoder.weights,
                weights_digest=start_digest(params.encoder.weights),
                epochs=training.epochs,
                images=training.images,
                features=int(training.model.encoder.output_shape[-1]),
                devices=devices,
                precision=precision_here(runtime.precision),
                networks=training.networks(),
            )
        # only now is the encoder in its place: a run killed before goes on from the last epoch
        training.forget()
    return result


if __name__ == "__main__":
    command_line("pretrain", pretrain)
