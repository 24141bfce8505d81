"""What the step `probe` measures on frozen features."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pandas as pd

from components.shared.artifacts import FEATURES, LABEL_SUSPECTS, Dataset, Result, read_record, save_predictions
from components.shared.errors import UserError
from components.shared.evaluation.calibration import rescale
from components.shared.params.schema import Params
from components.shared.plots.grids import draw_rows
from components.shared.plots.probe import nearest_rows, suspect_rows
from components.shared.progress import Progress
from components.shared.step import Work
from components.shared.training.augmented import augmented_features
from components.shared.training.choice import Chosen, calibrate, training_metrics, validation_metrics
from components.shared.training.inputs import fewer_labels, labelled
from models.classifier import predict, softmax_head
from models.knn import knn_probabilities
from models.label_errors import FEWEST, find_suspects
from models.layers import layers_of
from models.probes import LinearProbe, fit_probe

Features = dict[str, np.ndarray]
SUSPECTS_DRAWN = 10
# a map of more is a blot
FEATURES_KEPT = 1000


class Probing:
    """Features of the labelled splits, and what is measured on them, for one replicate."""

    def __init__(
        self,
        data: Dataset,
        network: keras.Model,
        encoder: Path,
        chosen: Chosen,
        params: Params,
        seed: int,
        work: Work,
    ):
        self.data, self.network, self.encoder, self.chosen = data, network, encoder, chosen
        self.options, self.seed, self.work = params.probe, seed, work
        self.labels = {split: labelled(data, split)[1] for split in ("train", "validation", "test")}
        self.features: Features = {}
        learned = ("train", "validation") if chosen.choice.refit else ("train",)
        images = sum(len(data.images(split)) for split in self.labels)
        copied = self.options.augmented_copies * sum(len(data.images(split)) for split in learned)
        progress = Progress("probe", images + copied, "image")

        def on_batch(count: int) -> None:
            progress.step(count=count)

        for split in self.labels:
            self.features[split] = predict(network, data.images(split), on_batch=on_batch)
        self.known = np.concatenate([self.features[split] for split in learned])
        self.known_labels = np.concatenate([self.labels[split] for split in learned])
        # copies × images × features
        copies = [
            augmented_features(
                network, data.images(split), self.options.augmentation, self.options.augmented_copies, seed,
                on_batch,
            )
            for split in learned
        ]  # fmt: skip
        progress.close()
        self.copies = np.concatenate(copies, axis=1)

    def run(self) -> Result:
        """Fit, measure, and write the folder."""
        out = self.work.out
        fitted = self._fit(np.arange(len(self.known_labels)))
        own = None if self.chosen.choice.refit else fitted.probabilities(self.features["validation"])
        held_out, labels = self.chosen.held_out(own)
        calibration = calibrate(held_out[0], labels)
        head = softmax_head(fitted.kernel / calibration.temperature, fitted.bias / calibration.temperature)
        classifier = keras.Model(self.network.input, head(self.network.output), name="classifier")
        classifier.save(out / "classifier.keras")
        test = rescale(fitted.probabilities(self.features["test"])[None], calibration.temperature)
        splits = {
            "validation": (rescale(held_out, calibration.temperature), labels),
            "test": (test, self.labels["test"]),
        }
        save_predictions(out / "predictions.npz", splits)
        self._save_budgets()
        self._write_curves()
        rows = nearest_rows(self.data, "validation", self.features["validation"])
        titles = ["query", *(f"nearest {n}" for n in range(1, 8))]
        draw_rows(rows, titles=titles).savefig(out / "neighbours.png", dpi=100)
        self.work.run.file(out / "neighbours.png", "pictures")
        suspects = self._save_suspects()
        self._save_features()
        for name in ("predictions.npz", "budgets.npz", FEATURES, "curves.csv", LABEL_SUSPECTS):
            self.work.run.file(out / name)
        logged = self.work.run.model(
            out / "classifier.keras", self.work.step, self.data.classes, self.data, classifier=True
        )
        pretraining = read_record(self.encoder, Result)
        return self.work.finish(
            self.data.manifest.digest,
            {
                **validation_metrics(*splits["validation"]),
                **training_metrics(fitted.probabilities(self.known), self.known_labels),
                "knn_validation_accuracy": self._knn_accuracy(),
                "label_suspects": suspects,
            },
            logged,
            seed=self.seed,
            solver=self.options.solver,
            l2=self.chosen.choice.l2,
            held_out=self.chosen.choice.held_out,
            answers_of_search=self.chosen.choice.answers_of_search,
            refit=self.chosen.choice.refit,
            temperature=calibration.temperature,
            temperature_why=calibration.why,
            method=pretraining.details.get("method"),
            encoder=pretraining.details.get("encoder"),
            pretraining_run=pretraining.mlflow_run_id,
            pretraining_cost=pretraining.cost.model_dump() if pretraining.cost else None,
            pretraining_seconds=pretraining.seconds,
            networks={**pretraining.details.get("networks", {}), "classifier": layers_of(head)},
            curves="curves.csv",
        )

    def _fit(self, rows: np.ndarray) -> LinearProbe:
        known = np.concatenate([self.known[rows], *self.copies[:, rows]])
        labels = np.tile(self.known_labels[rows], 1 + len(self.copies))
        return fit_probe(known, labels, self.data.classes, self.options, self.chosen.choice.l2, self.seed)

    def _save_budgets(self) -> None:
        """Answers on test with fewer labels per class, and of the nearest neighbours; nobody looks at them here.

        Budgets beyond the labels there are, are left out. The penalty is that of all labels.
        """
        budgets = fewer_labels(self.known_labels, self.options.label_budgets, self.seed)
        answers = [self._fit(rows).probabilities(self.features["test"]).argmax(axis=1) for rows in budgets.values()]
        np.savez_compressed(
            self.work.out / "budgets.npz",
            labels_per_class=np.array(list(budgets), np.int64),
            predicted=np.stack(answers)[:, None].astype(np.int32),
            knn_predicted=self._knn("test")[None].astype(np.int32),
        )

    def _save_features(self) -> None:
        """Features of some test images, evenly spaced, to be drawn where the test set is opened."""
        rows = np.unique(np.linspace(0, len(self.labels["test"]) - 1, FEATURES_KEPT).astype(np.int64))
        np.savez_compressed(
            self.work.out / FEATURES, rows=rows, features=self.features["test"][rows].astype(np.float16)
        )

    def _save_suspects(self) -> int:
        """Labels of train and validation that may be wrong, as a table and a picture; those of test stay closed."""
        splits, names = ("train", "validation"), np.array(self.data.manifest.class_names)
        labels = np.concatenate([self.labels[split] for split in splits])
        found = find_suspects(
            np.concatenate([self.features[split] for split in splits]), labels, self.data.classes,
            self.options.knn_neighbours, self.options.knn_temperature, self.seed,
        )  # fmt: skip
        files = pd.concat([self.data.files(split) for split in splits], ignore_index=True).iloc[found.rows]
        table = files[["path", "split", "row"]].assign(
            label=names[labels[found.rows]],
            neighbours_label=names[found.suggested],
            share=found.share.round(3),
            own_share=found.own_share.round(3),
        )
        table.to_csv(self.work.out / LABEL_SUSPECTS, index=False)
        small = names[np.bincount(labels, minlength=len(names)) < FEWEST]
        if len(small):
            print(
                f"probe: wrong labels are not looked for in {len(small):,} of {len(names):,} classes, such as "
                f"{small[0]}, that have fewer than {FEWEST} labelled images",
                flush=True,
            )
        if len(table):
            first = table.iloc[0]
            print(
                f"probe: {len(table):,} of {len(labels):,} labels may be wrong, such as {first['path']}: "
                f"{first['label']}, its neighbours are {first['neighbours_label']}; all are in {LABEL_SUSPECTS}",
                flush=True,
            )
            rows = suspect_rows(self.data, table, self.features, self.labels, SUSPECTS_DRAWN)
            titles = ["suspect", *(f"nearest {n}" for n in range(1, 6))]
            draw_rows(rows, titles=titles).savefig(self.work.out / "suspects.png", dpi=100)
            self.work.run.file(self.work.out / "suspects.png", "pictures")
        return len(table)

    def _knn(self, split: str) -> np.ndarray:
        votes = knn_probabilities(
            self.features["train"], self.labels["train"], self.features[split], self.data.classes,
            self.options.knn_neighbours, self.options.knn_temperature,
        )  # fmt: skip
        return votes.argmax(axis=1)

    def _knn_accuracy(self) -> float:
        return float((self._knn("validation") == self.labels["validation"]).mean())

    def _write_curves(self) -> None:
        """How the pretraining went, for the report: the online probe, the loss, and how often a view is found."""
        columns = [
            "epoch",
            *(f"{split}probe_{kind}" for kind in ("accuracy", "loss") for split in ("", "validation_")),
            *("contrastive_loss", "contrastive_accuracy"),
        ]
        path = self.encoder / "curves.csv"
        try:
            rows = pd.read_csv(path, dtype=str, keep_default_na=False)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"{path}: can't be read: {reason}; run the pretrain step again") from None
        rows.reindex(columns=columns, fill_value="").to_csv(self.work.out / "curves.csv", index=False)
