"""Training a classifier with labels: what `baseline` and `finetune` do alike, so that the comparison is fair."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from components.shared.artifacts import Dataset, Result, save_predictions
from components.shared.errors import UserError
from components.shared.evaluation.statistics import accuracy, correct, spread
from components.shared.params.schema import Params
from components.shared.progress import Progress
from components.shared.step import Work
from components.shared.training.curves import Curves
from components.shared.training.devices import on_devices
from components.shared.training.inputs import labelled, network
from models.classifier import SupervisedTrainer, predict


def train_supervised(data: Dataset, params: Params, work: Work, pretrained: list[np.ndarray] | None) -> Result:
    """Train with each learning rate of the grid and several seeds; keep the rate that is best on validation.

    Writes `classifier.keras` (of the seed that is best on validation), `predictions.npz`, `curves.csv` and the
    record.

    Args:
        data: the dataset.
        params: reads encoder, supervised and runtime.
        work: the step in progress.
        pretrained: the encoder's weights to start from; None starts from random ones.

    Raises:
        UserError: a labelled split is empty, the devices can't be used, or every learning rate of the grid ended in
            a loss that is no number.
    """
    work.run.dataset(data, "training")
    batch = min(params.supervised.batch_size, data.manifest.counts["train"])
    with on_devices(work.step, params.runtime.devices, batch, "supervised.batch_size") as devices:
        search = _Search(data, params, work, pretrained)
        search.run()
        return search.finish(devices)


def accuracies(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Accuracy of each seed: probabilities (seeds, N, classes), labels (N,) → (seeds,)."""
    return accuracy(correct(probabilities, labels))


def summarize(splits: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Mean and standard deviation over seeds of each split's accuracy."""
    metrics = {}
    for split, (probabilities, labels) in splits.items():
        values = accuracies(probabilities, labels)
        metrics[f"{split}_accuracy"] = float(values.mean())
        metrics[f"{split}_accuracy_std"] = spread(values)
    return metrics


class _Search:
    """The grid of learning rates, the seeds, and the best so far."""

    def __init__(self, data: Dataset, params: Params, work: Work, pretrained: list[np.ndarray] | None):
        self.data, self.params, self.work = data, params, work
        train, validation, test = (labelled(data, split) for split in ("train", "validation", "test"))
        # the labels that the predictions are kept with
        self.labels = {"validation": validation[1], "test": test[1]}
        try:
            self.trainer = SupervisedTrainer(
                params.supervised, network(params.encoder, data), data.classes, params.runtime.precision,
                train, validation, pretrained,
            )  # fmt: skip
        except ValueError as error:
            raise UserError(f"encoder.name = {params.encoder.name}: {error}") from None
        self.seeds = [params.runtime.seed + index for index in range(params.runtime.repeats)]
        self.curves = Curves(work.run)
        self.scores: dict[float, float] = {}
        self.rate = 0.0
        self.weights: list[list[np.ndarray]] = []

    def run(self) -> None:
        rates = self.params.supervised.learning_rates
        progress = Progress(self.work.step, len(rates) * len(self.seeds), "training")
        for rate in rates:
            trained: list[list[np.ndarray]] = []
            found: list[float] = []
            for seed in self.seeds:
                found.append(self._train(rate, seed))
                trained.append(self.trainer.weights())
                progress.step({"learning_rate": rate, "seed": seed, "validation_accuracy": found[-1]})
            score = float(np.mean(found))
            self.scores[rate] = score
            # the first of equals: the smaller rate where the grid is in order
            if np.isfinite(score) and score > self.scores.get(self.rate, -1.0):
                self.rate, self.weights = rate, trained
        progress.close()
        if not self.weights:
            raise UserError(
                f"supervised.learning_rates = {list(rates)}: the loss became NaN with each; add smaller ones"
            )

    def finish(self, devices: int) -> Result:
        data, out, run = self.data, self.work.out, self.work.run
        found: dict[str, list[np.ndarray]] = {split: [] for split in self.labels}
        models: list[keras.Model] = []
        for weights in self.weights:
            self.trainer.restore(weights)
            models.append(self.trainer.deployable())
            for split in self.labels:
                found[split].append(predict(models[-1], data.images(split)))
        splits = {split: (np.stack(found[split]), labels) for split, labels in self.labels.items()}
        exported = int(accuracies(*splits["validation"]).argmax())
        models[exported].save(out / "classifier.keras")
        save_predictions(out / "predictions.npz", splits)
        self._keep_chosen_curves()
        self.curves.write(out / "curves.csv")
        for name in ("classifier.keras", "predictions.npz", "curves.csv"):
            run.file(out / name)
        return self.work.finish(
            data.manifest.digest,
            summarize(splits),
            exported_seed=exported,
            learning_rate=self.rate,
            validation_accuracy_by_learning_rate={str(rate): score for rate, score in self.scores.items()},
            optimisation_steps=self.trainer.steps,
            encoder=self.params.encoder.name,
            curves="curves.csv",
            devices=devices,
        )

    def _train(self, rate: float, seed: int) -> float:
        """Train once; the last epoch's validation accuracy, NaN where the loss is no number."""
        last: dict[str, float] = {}

        def on_epoch(epoch: int, logs: Mapping[str, float]) -> None:
            values = {name.replace("val_", "validation_"): float(value) for name, value in logs.items()}
            values.pop("learning_rate", None)
            self.curves.add(epoch, values, log=False, seed=seed, learning_rate=rate)
            last.update(values)

        try:
            self.trainer.fit(rate, seed, on_epoch)
        except FloatingPointError as error:
            print(f"{self.work.step}: learning rate {rate}, seed {seed}: {error}; left out", flush=True)
            return float("nan")
        return last["validation_accuracy"]

    def _keep_chosen_curves(self) -> None:
        """Drop the other learning rates' curves; log the chosen one's, averaged over seeds."""
        self.curves.rows = [row for row in self.curves.rows if row["learning_rate"] == self.rate]
        names = ("loss", "accuracy", "validation_loss", "validation_accuracy")
        for epoch in sorted({row["epoch"] for row in self.curves.rows}):
            same = [row for row in self.curves.rows if row["epoch"] == epoch]
            # apart from the names of the final numbers, which MLflow shows in one table
            self.work.run.metrics(
                {f"curve_{n}": float(np.mean([row[n] for row in same])) for n in names}, step=epoch
            )
