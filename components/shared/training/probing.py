"""What the step `probe` measures on frozen features."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from components.shared.artifacts import Dataset, Result, read_record, save_predictions
from components.shared.errors import UserError
from components.shared.params.schema import Params
from components.shared.plots.grids import draw_rows
from components.shared.plots.probe import draw_budgets, nearest_rows
from components.shared.progress import Progress
from components.shared.step import Work
from components.shared.training.inputs import labelled
from components.shared.training.supervised import accuracies, summarize
from models.classifier import predict, softmax_head
from models.knn import knn_probabilities
from models.probes import LinearProbe, fit_linear_probe, fit_minibatch_probe

Features = dict[str, np.ndarray]
Splits = dict[str, tuple[np.ndarray, np.ndarray]]


class Probing:
    """Features of the labelled splits, and what is measured on them."""

    def __init__(self, data: Dataset, network: keras.Model, encoder: Path, params: Params, work: Work):
        self.data, self.network, self.encoder, self.params, self.work = data, network, encoder, params, work
        self.labels = {split: labelled(data, split)[1] for split in ("train", "validation", "test")}
        self.features: Features = {}
        progress = Progress("probe", len(self.labels), "split")
        for split in self.labels:
            self.features[split] = predict(network, data.images(split))
            progress.step()
        progress.close()
        self.seeds = [params.runtime.seed + index for index in range(params.runtime.repeats)]

    def run(self) -> Result:
        """Fit, measure, and write the folder."""
        out = self.work.out
        rows = np.arange(len(self.labels["train"]))
        probes, l2, splits = self._linear([rows] * len(self.seeds))
        exported = int(accuracies(*splits["validation"]).argmax())
        self._save_classifier(probes[exported])
        save_predictions(out / "predictions.npz", splits)
        budgets = self._budgets()
        self._write_curves()
        self._draw(budgets)
        for name in ("classifier.keras", "predictions.npz", "curves.csv", "budgets.csv"):
            self.work.run.file(out / name)
        pretraining = read_record(self.encoder, Result)
        return self.work.finish(
            self.data.manifest.digest,
            {**summarize(splits), **self._knn()},
            exported_seed=exported,
            solver=self.params.probe.solver,
            l2=l2,
            method=pretraining.details.get("method"),
            encoder=pretraining.details.get("encoder"),
            pretraining_run=pretraining.mlflow_run_id,
            curves="curves.csv",
        )

    def _linear(self, subsets: list[np.ndarray]) -> tuple[list[LinearProbe], float | None, Splits]:
        """One probe per seed on that seed's rows, with the penalty that is best on validation (minibatch: none)."""
        options = self.params.probe
        best: tuple[float, list[LinearProbe], float | None] | None = None
        for l2 in options.l2 if options.solver == "full_batch" else [None]:
            probes = [self._fit(rows, l2, seed) for rows, seed in zip(subsets, self.seeds, strict=True)]
            found = np.stack([p.probabilities(self.features["validation"]) for p in probes])
            score = float(accuracies(found, self.labels["validation"]).mean())
            if best is None or score > best[0]:
                best = (score, probes, l2)
        probes, l2 = best[1:] if best else ([], None)
        splits = {
            split: (np.stack([p.probabilities(self.features[split]) for p in probes]), self.labels[split])
            for split in ("validation", "test")
        }
        return probes, l2, splits

    def _fit(self, rows: np.ndarray, l2: float | None, seed: int) -> LinearProbe:
        options = self.params.probe
        train = self.features["train"][rows], self.labels["train"][rows], self.data.classes
        if l2 is not None:
            return fit_linear_probe(*train, l2, options.steps, seed)
        return fit_minibatch_probe(*train, options.minibatch, seed)

    def _budgets(self) -> list[dict[str, float]]:
        """Test accuracy with fewer labels per class; budgets beyond the labels there are, are left out."""
        smallest = int(np.unique(self.labels["train"], return_counts=True)[1].min())
        rows = []
        for budget in sorted({b for b in self.params.probe.label_budgets if b <= smallest} | {smallest}):
            subsets = [_subset(self.labels["train"], budget, seed) for seed in self.seeds]
            _, _, splits = self._linear(subsets)
            values = accuracies(*splits["test"])
            rows.append(
                {"labels_per_class": budget, "accuracy": float(values.mean()), "lowest": float(values.min()),
                 "highest": float(values.max())}
            )  # fmt: skip
            self.work.run.metrics({"accuracy_over_labels": rows[-1]["accuracy"]}, step=budget)
        _write_rows(self.work.out / "budgets.csv", list(rows[0]), rows)
        return rows

    def _knn(self) -> dict[str, float]:
        options = self.params.probe
        found = {}
        for split in ("validation", "test"):
            votes = knn_probabilities(
                self.features["train"], self.labels["train"], self.features[split], self.data.classes,
                options.knn_neighbours, options.knn_temperature,
            )  # fmt: skip
            found[f"knn_{split}_accuracy"] = float((votes.argmax(axis=1) == self.labels[split]).mean())
        return found

    def _save_classifier(self, chosen: LinearProbe) -> None:
        head = softmax_head(chosen.kernel, chosen.bias)
        keras.Model(self.network.input, head(self.network.output), name="classifier").save(
            self.work.out / "classifier.keras"
        )

    def _write_curves(self) -> None:
        """The online probe's accuracy during pretraining, for the plot that compares all trainings."""
        columns = ("epoch", "probe_accuracy", "validation_probe_accuracy")
        path = self.encoder / "curves.csv"
        try:
            with path.open() as file:
                rows = [{name: row.get(name, "") for name in columns} for row in csv.DictReader(file)]
        except OSError as error:
            raise UserError(f"{path}: can't be read: {error.strerror}; run the pretrain step again") from None
        _write_rows(self.work.out / "curves.csv", columns, rows)

    def _draw(self, budgets: list[dict[str, float]]) -> None:
        out = self.work.out
        draw_budgets(budgets).savefig(out / "budgets.png", dpi=110)
        rows = nearest_rows(self.data, self.features)
        draw_rows(rows, titles=["query", *(f"nearest {n}" for n in range(1, 8))]).savefig(
            out / "neighbours.png", dpi=100
        )
        for name in ("budgets.png", "neighbours.png"):
            self.work.run.file(out / name, "pictures")


def _write_rows(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _subset(labels: np.ndarray, budget: int, seed: int) -> np.ndarray:
    """Rows of `budget` images of each class."""
    rng = np.random.default_rng((seed, budget))
    chosen = [rng.choice(np.flatnonzero(labels == c), budget, replace=False) for c in np.unique(labels)]
    return np.sort(np.concatenate(chosen))
