"""Pretrain an encoder by contrast on all images; labels serve only the online probe and label-using methods.

Reads `dataset/`; writes `encoder/`: `encoder.keras` (from uint8 images to features, built-in layers only),
`curves.csv`, `views.png`, `result.json`. A killed run goes on from its last finished epoch and ends with the same
result.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from components.shared.artifacts import UNLABELLED, Dataset, Result
from components.shared.code import code_digest
from components.shared.digests import value_digest
from components.shared.errors import UserError
from components.shared.params.schema import Params, params_digest
from components.shared.progress import Progress
from components.shared.step import Work, command_line, working
from components.shared.training.backend import start_backend
from components.shared.training.checkpoints import FOLDER, Checkpoint
from components.shared.training.devices import on_devices
from components.shared.training.distributed import agree, join, leads
from components.shared.training.inputs import Curves, augmentation, network
from components.shared.training.monitor import Monitor

# splits with images to learn from
PARTS = ("unlabelled", "train")


def pretrain(dataset: Path, out: Path, params: Params, checkpoints: Path = FOLDER) -> Result:
    """Train an encoder to recognise two views of the same image.

    Args:
        dataset: folder written by `ingest`.
        out: folder to write.
        params: reads method, encoder and runtime.
        checkpoints: folder of the state kept for interrupted runs.

    Returns:
        The record that is written to `result.json`.

    Raises:
        UserError: the images do not suit the encoder, there are fewer than two, the devices can't be used, or the
            loss is no longer a number.
    """
    data = Dataset(dataset)
    images = sum(data.manifest.counts.get(split, 0) for split in PARTS)
    if images < 2:
        raise UserError(f"{data.folder}: {images} images to pretrain on; at least 2 are needed")
    start_backend()
    join()
    runtime = params.runtime
    with (
        on_devices("pretrain", runtime.devices, min(runtime.batch_size, images), "runtime.batch_size") as devices,
        working("pretrain", out, params, {"dataset": dataset}, data.manifest.name, together=True) as work,
    ):
        work.run.dataset(data, "training")
        training = _Pretraining(data, params, work, checkpoints)
        training.fit()
        training.save()
        metrics = {name: value for name, value in training.last().items() if name != "epoch"}
        result = work.finish(
            data.manifest.digest,
            metrics,
            epoch=params.runtime.epochs,
            method=params.method.name,
            encoder=params.encoder.name,
            epochs=params.runtime.epochs,
            images=training.images,
            features=int(training.model.encoder.output_shape[-1]),
            devices=devices,
        )
    # only now is the encoder in its place: a run killed before goes on from the last epoch
    training.forget()
    return result


class _Pretraining:
    """The model, its batches and its state."""

    def __init__(self, data: Dataset, params: Params, work: Work, checkpoints: Path):
        import keras

        from models import encoders, methods
        from models.training import jit, precision

        self.data, self.params, self.work = data, params, work
        runtime, method = params.runtime, params.method
        self.parts = [(data.images(split), _labels(data, split)) for split in PARTS]
        self.images = sum(len(labels) for _, labels in self.parts)
        self.network = network(params.encoder, data)
        keras.utils.set_random_seed(runtime.seed)
        try:
            with precision(runtime.precision):
                encoder = encoders.build(**self.network)
                self.model = methods.build(
                    method.name, encoder, method.model_dump(), augmentation(method.augmentation), data.classes,
                    runtime.seed, runtime.epochs * self._steps(),
                )  # fmt: skip
        except ValueError as error:
            raise UserError(f"data.image_size = {data.manifest.image_size}: {error}") from None
        self.model.compile(optimizer=self._optimizer(), jit_compile=jit())
        self.model.optimizer.build(self.model.trainable_variables)
        self.monitor = Monitor(self.model, data, params.monitor, runtime.epochs)
        self.checkpoint = Checkpoint(_key(data, params), checkpoints)
        self.curves = Curves(work.run)

    def fit(self) -> None:
        import keras

        from models.batches import Batches
        from models.training import EpochSeed, StopOnNaN, share, validation_batch

        runtime = self.params.runtime
        progress = Progress("pretrain", runtime.epochs, "epoch")
        epoch, rows = self.checkpoint.restore(self._state())
        if len(epochs := set(agree(epoch))) > 1:
            raise UserError(
                f"{self.checkpoint.path.parent}: the processes found states after {sorted(epochs)} epochs; "
                "mount one shared folder there"
            )
        for row in rows:
            self.curves.add(row["epoch"], {name: value for name, value in row.items() if name != "epoch"})
        if epoch:
            print(f"pretrain: going on after epoch {epoch}, kept in {self.checkpoint.path}", flush=True)
            progress.start_at(epoch)

        def end_of_epoch(epoch: int, logs: dict[str, Any]) -> None:
            # only the probe is measured on validation images; there are no two views to contrast
            measured = ("val_probe_accuracy", "val_probe_loss")
            logs = {
                name.replace("val_", "validation_"): value
                for name, value in logs.items()
                if name in measured or not name.startswith("val_")
            }
            logs |= self.monitor.measure(epoch + 1)
            if warning := self.monitor.warning(epoch + 1, logs):
                progress.note(warning)
            self.curves.add(epoch + 1, logs)
            if leads():
                self.checkpoint.save(epoch + 1, self.curves.rows, self._state())
            shown = ("contrastive_loss", "contrastive_accuracy", "validation_probe_accuracy", "knn_accuracy")
            progress.step({name: logs[name] for name in shown if name in logs})

        if epoch < runtime.epochs:
            try:
                batches = Batches(self.parts, runtime.batch_size, runtime.seed, share=share())
                self.model.fit(
                    batches,
                    shuffle=False,
                    initial_epoch=epoch,
                    epochs=runtime.epochs,
                    validation_data=self._validation(),
                    validation_batch_size=validation_batch() // share()[1],
                    verbose=0,
                    callbacks=[
                        EpochSeed(runtime.seed, batches),
                        StopOnNaN(),
                        keras.callbacks.LambdaCallback(on_epoch_end=end_of_epoch),
                    ],
                )
            except FloatingPointError as error:
                # going on from the epoch before would end the same way
                self.forget()
                rate = self.params.method.optimizer.learning_rate
                raise UserError(f"method.optimizer.learning_rate = {rate}: {error}; lower it") from None
        progress.close()

    def forget(self) -> None:
        """Remove the state that was kept for a killed run."""
        if leads():
            self.checkpoint.remove()

    def save(self) -> None:
        from components.shared.plots.grids import draw_rows
        from models import encoders
        from models.augmentation import augment

        out = self.work.out
        # float32 whatever the training's precision, so that it gives the same features anywhere
        plain = encoders.build(**self.network)
        plain.set_weights(self.model.encoder.get_weights())
        encoders.deployable(plain).save(out / "encoder.keras")
        self.work.run.file(out / "encoder.keras")
        # a plot fails without a column that it names, and one view of an image has no other to be found
        self.curves.write(out / "curves.csv", ["contrastive_accuracy"])
        self.work.run.file(out / "curves.csv")
        originals = np.asarray(max((images for images, _ in self.parts), key=len)[:10])
        rows = [("original", list(originals))]
        for number in range(1, 5):
            views = np.asarray(augment(originals, self.model.policy, self.model.seed_generator))
            rows.append((f"view {number}", list(views)))
        draw_rows(rows).savefig(out / "views.png", dpi=100)
        self.work.run.file(out / "views.png", "pictures")

    def last(self) -> dict[str, float]:
        """The last epoch's numbers; none where there was no epoch."""
        return dict(self.curves.rows[-1]) if self.curves.rows else {}

    def _validation(self) -> tuple[np.ndarray, np.ndarray] | None:
        from models.batches import filled
        from models.training import devices, share

        images, labels = self.data.images("validation"), self.data.labels("validation")
        if not len(labels):
            return None
        index, count = share()
        # what is filled up with is not labelled, and so not counted
        images, labels = filled(np.asarray(images), devices()), filled(labels, devices(), UNLABELLED)
        return images[index::count], labels[index::count]

    def _state(self) -> list[Any]:
        return [*self.model.variables, *self.model.optimizer.variables]

    def _optimizer(self) -> Any:
        from models import optimizers

        options, steps = self.params.method.optimizer, self._steps()
        optimizer = optimizers.build(
            options.name,
            options.learning_rate,
            weight_decay=options.weight_decay,
            momentum=options.momentum,
            schedule=options.schedule,
            final_fraction=options.final_fraction,
            warmup_steps=options.warmup_epochs * steps,
            steps=self.params.runtime.epochs * steps,
        )
        optimizers.exclude_vectors(optimizer, self.model.trainable_variables)
        return optimizer

    def _steps(self) -> int:
        return max(1, self.images // min(self.params.runtime.batch_size, self.images))


def _key(data: Dataset, params: Params) -> str:
    """Digest of everything that decides the result, the code of the training among it."""
    import keras

    code = code_digest("pretrain", params)
    return value_digest(
        [params_digest(params), data.manifest.digest, keras.backend.backend(), keras.version(), code]
    )


def _labels(data: Dataset, split: str) -> np.ndarray:
    labels = data.labels(split)
    return labels if split == "train" else np.full(len(labels), UNLABELLED)


if __name__ == "__main__":
    command_line("pretrain", pretrain)
