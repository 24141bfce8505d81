"""Training a classifier with labels: what `baseline` and `finetune` do alike, so that the comparison is fair."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from components.shared.artifacts import Dataset, Result, save_predictions
from components.shared.errors import UserError
from components.shared.evaluation.calibration import rescale
from components.shared.params.schema import Params, check_colors
from components.shared.progress import Progress
from components.shared.step import Work
from components.shared.training.checkpoints import Finished
from components.shared.training.choice import Chosen, calibrate, training_metrics, validation_metrics
from components.shared.training.curves import Curves
from components.shared.training.devices import on_devices, precision_here
from components.shared.training.inputs import fewer_labels, labelled
from components.shared.training.trainers import supervised_trainer
from models.classifier import Recipe, SupervisedTrainer, predict
from models.layers import layers_of
from models.training import EpochPace


def train_supervised(
    data: Dataset,
    chosen: Chosen,
    params: Params,
    seed: int,
    work: Work,
    finished: Finished,
    pretrained: list[np.ndarray] | None,
) -> Result:
    """Train one replicate as the search chose, and once more as published where the options say how.

    Writes `classifier.keras`, `predictions.npz`, `curves.csv`, the record, and, where they are asked for,
    `budgets.npz` (answers on test with fewer labels) and `published.npz` (those of the published training).

    Args:
        data: the dataset.
        chosen: by the search.
        params: reads encoder, supervised and runtime.
        seed: of the replicate.
        work: the step in progress.
        finished: keeps what each of the trainings has given.
        pretrained: the weights to start from, as `pretrained_weights` gives them; None starts from random ones.

    Raises:
        UserError: a labelled split is empty, the images do not suit an augmentation, the devices can't be used, or
            the loss is no longer a number.
    """
    check_colors(params, data.manifest.channels)
    work.run.dataset(data, "training")
    train = chosen.train()
    batch = min(params.supervised.batch_size, len(train[1]))
    with on_devices(work.step, params.runtime.devices, batch, "supervised.batch_size") as devices:
        training = _Training(data, chosen, params, seed, work, finished, pretrained, devices)
        return training.run(train)


class _Training:
    def __init__(
        self,
        data: Dataset,
        chosen: Chosen,
        params: Params,
        seed: int,
        work: Work,
        finished: Finished,
        pretrained: list[np.ndarray] | None,
        devices: int,
    ):
        self.data, self.chosen, self.params, self.seed, self.work = data, chosen, params, seed, work
        self.finished, self.pretrained, self.devices = finished, pretrained, devices
        self.curves = Curves(work.run)

    def run(self, train: tuple[np.ndarray, np.ndarray]) -> Result:
        data, out, recipe = self.data, self.work.out, self.chosen.recipe()
        test_images, test_labels = labelled(data, "test")
        validation = self.chosen.validation()
        trainer = self._trainer(recipe)
        steps = self._fit(trainer, recipe, train, validation)
        plain = trainer.deployable()
        own = None if validation is None else predict(plain, validation[0])
        held_out, labels = self.chosen.held_out(own)
        calibration = calibrate(held_out[0], labels)
        model = trainer.deployable(calibration.temperature)
        model.save(out / "classifier.keras")
        splits = {
            "validation": (rescale(held_out, calibration.temperature), labels),
            "test": (predict(model, test_images)[None], test_labels),
        }
        save_predictions(out / "predictions.npz", splits)
        self.curves.write(out / "curves.csv")
        files = ["predictions.npz", "curves.csv"]
        if self.chosen.choice.budgets:
            self._train_with_fewer(trainer, recipe, train, splits["test"][0])
            files.append("budgets.npz")
        if self.params.supervised.published is not None:
            self._train_published(self.params.supervised.published, train)
            files.append("published.npz")
        for name in files:
            self.work.run.file(out / name)
        logged = self.work.run.model(out / "classifier.keras", self.work.step, data.classes, data, classifier=True)
        return self.work.finish(
            data.manifest.digest,
            {**validation_metrics(*splits["validation"]), **training_metrics(predict(model, train[0]), train[1])},
            logged,
            seed=self.seed,
            **_told(recipe, self.chosen),
            temperature=calibration.temperature,
            temperature_why=calibration.why,
            optimisation_steps=steps,
            images=len(train[1]),
            encoder=self.params.encoder.name,
            curves="curves.csv",
            devices=self.devices,
            precision=precision_here(self.params.runtime.precision),
            # after scaling and resizing
            networks=dict(zip(("encoder", "classifier"), map(layers_of, model.layers[-2:]), strict=True)),
        )

    def _trainer(self, recipe: Recipe) -> SupervisedTrainer:
        try:
            return supervised_trainer(
                self.data, self.params, self.chosen.choice.projection, recipe.augmentation, recipe.optimizer,
                self.pretrained is not None,
            )  # fmt: skip
        except ValueError as error:
            raise UserError(f"encoder.name = {self.params.encoder.name}: {error}") from None

    def _fit(
        self,
        trainer: SupervisedTrainer,
        recipe: Recipe,
        train: tuple[np.ndarray, np.ndarray],
        validation: tuple[np.ndarray, np.ndarray] | None,
    ) -> int:
        """Train, and keep it, or take what is kept; returns the number of steps."""
        found = self.finished.once("all", partial(self._train, trainer, recipe, train, validation))
        if not self.curves.rows:
            # of a run that was interrupted later
            trainer.model.set_weights([found[name] for name in sorted(found) if name.startswith("weight_")])
            for row in json.loads(found["curves"].item()):
                self.curves.add(row.pop("epoch"), row)
        return int(found["steps"])

    def _train(
        self,
        trainer: SupervisedTrainer,
        recipe: Recipe,
        train: tuple[np.ndarray, np.ndarray],
        validation: tuple[np.ndarray, np.ndarray] | None,
    ) -> dict[str, Any]:
        progress = Progress(self.work.step, recipe.epochs, "epoch")

        def on_epoch(epoch: int, logs: Mapping[str, float]) -> None:
            values = {name.replace("val_", "validation_"): float(value) for name, value in logs.items()}
            # they depend on the clock: in MLflow alone, not among the curves, which are the same again
            self.curves.log(epoch, {name: values.pop(name) for name in EpochPace.LOGS})
            self.curves.add(epoch, values)
            progress.step(values, min(epoch, recipe.epochs) - progress.done)

        try:
            steps = trainer.fit(
                recipe, self.seed, train, self.pretrained, validation, on_epoch,
                self.params.supervised.class_weight, self.params.supervised.head_start,
            )  # fmt: skip
        except FloatingPointError as error:
            raise UserError(
                f"{self.work.step}: seed {self.seed}, learning rate {recipe.learning_rate}: {error}; add a smaller "
                "rate to supervised.search.learning_rates"
            ) from None
        progress.close()
        weights = {f"weight_{index:05d}": value for index, value in enumerate(trainer.model.get_weights())}
        return {"steps": steps, "curves": json.dumps(self.curves.rows), **weights}

    def _train_with_fewer(
        self, trainer: SupervisedTrainer, recipe: Recipe, train: tuple[np.ndarray, np.ndarray], answers: np.ndarray
    ) -> None:
        """Answers on test with fewer labels, to be drawn beside the probe's; they decide nothing.

        Each is the same training, with as many passes, on the images whose labels the probe is left too. Only up to
        half of the labels: what lies closer to all of them costs most and tells least.

        Args:
            trainer: as compiled for the training with all labels.
            recipe: of that training.
            train: its images and labels.
            answers: its probabilities on test, (1, N, classes).
        """
        images, labels = train
        budgets = fewer_labels(labels, self.chosen.choice.budgets, self.seed)
        most = max(budgets)
        predicted = {}
        for budget in (known for known in budgets if 2 * known <= most):
            own = budgets[budget]
            fewer = images[own], labels[own]
            found = self.finished.once(f"{budget}-labels", partial(self._answers, trainer, recipe, fewer))
            predicted[budget] = found["predicted"]
        predicted[most] = answers[0].argmax(axis=1)
        np.savez_compressed(
            self.work.out / "budgets.npz",
            labels_per_class=np.array(list(predicted), np.int64),
            predicted=np.stack(list(predicted.values()))[:, None].astype(np.int32),
        )

    def _answers(
        self, trainer: SupervisedTrainer, recipe: Recipe, few: tuple[np.ndarray, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """The class that a training with few labels gives to each test image; −1 where its loss was no number."""
        test, count = self.data.images("test"), len(few[1])
        # repeated to fill a batch, so that nothing is compiled anew
        rows = np.tile(np.arange(count), -(-recipe.batch_size // count))
        alike = replace(recipe, epochs=max(1, round(recipe.epochs * count / len(rows))))
        try:
            trainer.fit(
                alike, self.seed, (few[0][rows], few[1][rows]), self.pretrained,
                class_weight=self.params.supervised.class_weight,
                head_start=self.params.supervised.head_start,
            )  # fmt: skip
            return {"predicted": predict(trainer.deployable(), test).argmax(axis=1)}
        except FloatingPointError:
            # no answer is right
            return {"predicted": np.full(len(test), -1)}

    def _train_published(self, recipe: Recipe, train: tuple[np.ndarray, np.ndarray]) -> None:
        found = self.finished.once("published", partial(self._answers_as_published, recipe, train))
        answers, labels = found["test_probabilities"], self.data.labels("test")
        np.savez_compressed(self.work.out / "published.npz", test_probabilities=answers, test_labels=labels)

    def _answers_as_published(self, recipe: Recipe, train: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
        """Probabilities on test, (1, N, classes)."""
        trainer = self._trainer(recipe)
        try:
            trainer.fit(recipe, self.seed, train, self.pretrained)
        except FloatingPointError as error:
            raise UserError(f"supervised.published: seed {self.seed}: {error}; lower its learning rate") from None
        return {"test_probabilities": predict(trainer.deployable(), self.data.images("test"))[None]}


def _told(recipe: Recipe, chosen: Chosen) -> dict[str, Any]:
    """What of the choice a reader of the record asks for."""
    choice = chosen.choice
    names = ("learning_rate", "weight_decay", "epochs")
    return {
        **{name: getattr(recipe, name) for name in names},
        "held_out": choice.held_out,
        "answers_of_search": choice.answers_of_search,
        "refit": choice.refit,
        "capped": choice.capped,
    }
