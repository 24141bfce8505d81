"""Pretraining: the model, its batches, what is watched and what is kept."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from components.shared.artifacts import UNLABELLED, Dataset
from components.shared.errors import UserError
from components.shared.params.schema import Params
from components.shared.plots.grids import draw_rows
from components.shared.progress import Progress
from components.shared.step import Work
from components.shared.tracking.models import ENCODER
from components.shared.training.checkpoints import Checkpoint
from components.shared.training.curves import Curves
from components.shared.training.devices import precision_here
from components.shared.training.distributed import is_chief
from components.shared.training.inputs import PROJECTION_HEAD, network
from components.shared.training.memory import require_memory, sub_batches
from components.shared.training.monitor import Monitor
from components.shared.training.start import load_start
from components.shared.training.stopping import best_epoch, is_over, require_figure
from models import encoders, methods, optimizers
from models.augmentation import augment
from models.batches import Batches, feed, filled
from models.kernels import fuse
from models.layers import layers_of
from models.methods.shared.heads import head
from models.training import (
    EpochPace,
    EpochSeed,
    StopOnNaN,
    devices,
    jit,
    precision,
    process_shard,
    validation_batch,
)

# splits with images to learn from
PARTS = ("unlabelled", "train")


class Pretraining:
    """The model, its batches and its state; `seed` decides first weights, order and views."""

    def __init__(self, data: Dataset, params: Params, seed: int, work: Work, checkpoint: Checkpoint):
        self.data, self.params, self.seed, self.work, self.checkpoint = data, params, seed, work, checkpoint
        runtime, method = params.runtime, params.method
        self.parts = [(data.images(split), _labels(data, split)) for split in PARTS]
        self.images = sum(len(labels) for _, labels in self.parts)
        parts = sub_batches(runtime, self.images)
        self.network = network(params.encoder, data)
        keras.utils.set_random_seed(seed)
        try:
            with precision(precision_here(runtime.precision)):
                encoder = self.network()
                if params.encoder.weights is not None:
                    shapes = [tuple(weight.shape) for weight in encoder.weights]
                    encoder.set_weights(load_start(params.encoder.weights, shapes, data.manifest.image_shape))
                if method.augmentation.size is not None:
                    encoder = encoders.any_size(encoder)
                # without labels the online probe has one class, and learns nothing
                classes = max(data.classes, 1)
                self.model = methods.build(encoder, method, classes, seed, runtime.epochs * self._steps(), parts)
                fuse(self.model)
        except ValueError as error:
            raise UserError(f"data.image_size = {data.manifest.image_size}: {error}") from None
        self.model.compile(optimizer=self._optimizer(), jit_compile=jit())
        self.model.optimizer.build(self.model.trainable_variables)
        require_memory(self.model, data.manifest.image_shape, min(runtime.batch_size, self.images))
        require_figure(params.monitor, data, self.model.views)
        self.monitor = Monitor(self.model, data, params.monitor, runtime.epochs, runtime.batch_size)
        self.curves = Curves(work.run)
        self.logged: dict[str, str] = {}

    def fit(self) -> None:
        """Train up to the last epoch, from where a killed run stopped.

        Raises:
            UserError: the processes found different states, or the loss is no longer a number.
        """
        runtime = self.params.runtime
        progress = Progress("pretrain", runtime.epochs, "epoch")
        if is_chief() and not self.checkpoint.claim():
            print(
                f"pretrain: another process trains the same and keeps {self.checkpoint.path}; this one trains on "
                "its own, and keeps no state while the other one does",
                flush=True,
            )
        epoch, rows = self.checkpoint.restore(self._state())
        for row in rows:
            self.curves.add(row["epoch"], {name: value for name, value in row.items() if name != "epoch"})
        if epoch:
            print(f"pretrain: going on after epoch {epoch}, kept in {self.checkpoint.path}", flush=True)
            progress.start_at(epoch)

        def end_of_epoch(epoch: int, logs: dict[str, Any]) -> None:
            # it depends on the clock: in MLflow alone, not among the curves, which are the same again
            self.curves.log(epoch + 1, {name: logs.pop(name) for name in EpochPace.LOGS})
            # Keras measures the probe alone on validation images: the monitor makes the views to contrast
            measured = ("val_probe_accuracy", "val_probe_loss")
            logs = {
                name.replace("val_", "validation_"): value
                for name, value in logs.items()
                if name in measured or not name.startswith("val_")
            }
            if not self.data.classes:
                logs = {name: value for name, value in logs.items() if not name.startswith("probe_")}
            watched = self.monitor.measure(epoch + 1)
            logs |= watched
            if is_over([*self.curves.rows, {"epoch": epoch + 1, **logs}], self.params.monitor):
                logs |= watched or self.monitor.measure(epoch + 1, last=True)
                self.model.stop_training = True
            if warning := self.monitor.warning(epoch + 1, logs):
                progress.note(warning)
            self.curves.add(epoch + 1, logs)
            if is_chief() and self.checkpoint.claim():
                self.checkpoint.save(epoch + 1, self.curves.rows, self._state())
            shown = ("contrastive_loss", "contrastive_accuracy", "validation_probe_accuracy", "knn_accuracy")
            progress.step({name: logs[name] for name in shown if name in logs})

        if epoch < runtime.epochs and not is_over(self.curves.rows, self.params.monitor):
            try:
                batches = Batches(self.parts, runtime.batch_size, self.seed, shard=process_shard())
                self.model.fit(
                    **feed(batches, epoch, whole_epochs=True),
                    initial_epoch=epoch,
                    epochs=runtime.epochs,
                    validation_data=self._validation(),
                    validation_batch_size=validation_batch() // process_shard()[1],
                    verbose=0,
                    callbacks=[
                        EpochSeed(self.seed, batches),
                        EpochPace(batches.images),
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
        if self.epochs < runtime.epochs and (name := self.params.monitor.stop_by):
            best, _ = best_epoch(self.curves.rows, name)
            print(f"pretrain: ended after epoch {self.epochs}: {name} was best after epoch {best}", flush=True)

    def forget(self) -> None:
        """Remove the state that was kept for a killed run, unless another process keeps it."""
        if is_chief() and self.checkpoint.claim():
            self.checkpoint.remove()

    def save(self) -> None:
        """Write the encoder, the curves and some views."""
        out = self.work.out
        # float32 whatever the training's precision, so that it gives the same features anywhere
        plain = self.network()
        plain.set_weights(self.model.encoder.get_weights())
        # The moving statistics stay those of the views: with those of plain images the probe lost 0.6 to 1.0 points
        # (three pretrainings of the fast encoder, on the sample and CIFAR-10). Fine-tuning moves them by itself
        encoders.deployable(plain).save(out / "encoder.keras")
        self.logged = self.work.run.model(
            out / "encoder.keras", ENCODER, int(plain.output_shape[-1]), self.data, classifier=False
        )
        # for a fine-tuning that starts from a layer of it; in float32 too
        top = head("projection_head", plain.output_shape[-1], self.params.method.projection)
        top.set_weights(self.model.projection_head.get_weights())
        top.save(out / PROJECTION_HEAD)
        # a plot fails without a column that it names, and one view of an image has no other to be found
        self.curves.write(out / "curves.csv", ["contrastive_accuracy"])
        self.work.run.file(out / "curves.csv")
        originals = np.asarray(max((images for images, _ in self.parts), key=len)[:10])
        rows = [("original", list(originals))]
        # of methods with one view two, to compare
        for number in range(1, max(2, self.model.views) + 1):
            views = np.asarray(augment(originals, self.model.policy, self.model.seed_generator))
            rows.append((f"view {number}", list(views)))
        draw_rows(rows).savefig(out / "views.png", dpi=100)
        self.work.run.file(out / "views.png", "pictures")

    @property
    def epochs(self) -> int:
        """Number of finished epochs."""
        return int(self.curves.rows[-1]["epoch"]) if self.curves.rows else 0

    def networks(self) -> dict[str, list[dict[str, Any]]]:
        """The layers of encoder and projection head, as `layers_of` lists them."""
        return {
            "encoder": layers_of(self.model.encoder),
            "projection head": layers_of(self.model.projection_head),
        }

    def last(self) -> dict[str, float]:
        """The last epoch's numbers; none where there was no epoch."""
        return dict(self.curves.rows[-1]) if self.curves.rows else {}

    def _validation(self) -> tuple[np.ndarray, np.ndarray] | None:
        images, labels = self.data.images("validation"), self.data.labels("validation")
        if not len(labels):
            return None
        index, count = process_shard()
        # what is filled up with is not labelled, and so not counted
        images, labels = filled(np.asarray(images), devices()), filled(labels, devices(), UNLABELLED)
        return images[index::count], labels[index::count]

    def _state(self) -> list[Any]:
        return [*self.model.variables, *self.model.optimizer.variables]

    def _optimizer(self) -> keras.optimizers.Optimizer:
        optimizer = optimizers.build(self.params.method.optimizer, self.params.runtime.epochs, self._steps())
        optimizers.exclude_vectors(optimizer, self.model.trainable_variables)
        return optimizer

    def _steps(self) -> int:
        return max(1, self.images // min(self.params.runtime.batch_size, self.images))


def _labels(data: Dataset, split: str) -> np.ndarray:
    labels = data.labels(split)
    return labels if split == "train" else np.full(len(labels), UNLABELLED)
