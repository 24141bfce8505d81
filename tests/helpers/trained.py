"""Folders as the probe, baseline and finetune steps leave them, with simulated predictions, for tests."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.shared.artifacts import Dataset, Result, save_predictions, write_record
from components.shared.checks.verdict import VERDICT, Found, Verdict
from components.shared.digests import value_digest
from components.shared.evaluation.champion import Champion, write_champion


def simulate(labels: np.ndarray, classes: int, accuracy: float, seeds: int, rng: np.random.Generator) -> np.ndarray:
    """Probabilities (seeds, N, classes) of a model that is right about so often; hard images are hard for all."""
    hardness = np.random.default_rng(0).random(len(labels))
    noisy = hardness[None, :] + 0.15 * rng.standard_normal((seeds, len(labels)))
    levels = np.clip(accuracy + 0.008 * rng.standard_normal(seeds), 0, 1)
    right = noisy < np.quantile(noisy, levels, method="linear")[:, None]
    wrong = (labels + rng.integers(1, classes, (seeds, len(labels)))) % classes
    answers = np.where(right, labels, wrong)
    logits = 3.0 * np.eye(classes)[answers] + rng.random((seeds, len(labels), classes))
    return (np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)).astype(np.float32)


def search_details(number: int = 4) -> dict[str, Any]:
    """Details of a search that tried baseline and fine-tuning at the same points."""
    points = [
        {
            **dict(augmentation=("weak", "views")[trial % 2], learning_rate=0.001 * 3**trial, weight_decay=1e-4),
            **dict(epochs=10, log_loss=1.0 + trial / 10, accuracy=0.6),
        }
        for trial in range(number)
    ]
    sides = ("baseline", "finetune")
    chosen = {side: points[0] for side in sides}
    return {
        "trials": {side: [dict(point) for point in points] for side in sides},
        "chosen": chosen,
        "held_out": "validation",
        "capped": [],
    }


def write_search(folder: Path, dataset: Path, **details: Any) -> Path:
    """Write `search/` as its step leaves it."""
    folder.mkdir(parents=True)
    write_record(folder, _result("search", dataset, **{**search_details(), **details}))
    return folder


def write_validation(folder: Path, dataset: Path, findings: Sequence[Found] = ()) -> Path:
    """Write `validation/` as its step leaves it of a dataset that passed: 24 expectations, but for these hold."""
    folder.mkdir(parents=True)
    write_record(folder, _result("validate", dataset))
    verdict = Verdict(passed=True, expectations=[{}] * 24, findings=list(findings))
    (folder / VERDICT).write_text(verdict.model_dump_json())
    return folder


def write_trained(
    folder: Path,
    dataset: Path,
    accuracy: float,
    *,
    seeds: int = 3,
    steps: int = 600,
    epochs: int = 10,
    rng_seed: int = 0,
) -> Path:
    """Write `folder` (probe, baseline or finetune) with predictions that are right about so often."""
    data = Dataset(dataset)
    rng = np.random.default_rng([rng_seed, *folder.name.encode()])
    splits = {}
    for split in ("validation", "test"):
        labels = data.labels(split)
        splits[split] = (simulate(labels, data.classes, accuracy, seeds, rng), labels)
    folder.mkdir(parents=True)
    save_predictions(folder / "predictions.npz", splits)
    _write_curves(folder, accuracy, seeds, epochs, rng)
    validation, labels = splits["validation"]
    metrics = {"validation_accuracy": float((validation.argmax(axis=2) == labels).mean())}
    inputs = {"dataset": data.manifest.digest}
    details = {
        **{"exported_seed": 1 if seeds > 1 else 0, "replicates": list(range(seeds)), "held_out": "validation"},
        **{"optimisation_steps": steps, "curves": "curves.csv"},
        **{"learning_rate": 0.001, "weight_decay": 1e-4, "epochs": 10},
    }
    if folder.name != "baseline":
        inputs["encoder"] = value_digest("encoder")
    if folder.name == "probe":
        details |= {"method": "simclr", "encoder": "conv"}
    write_record(
        folder,
        Result(
            step=folder.name,
            params={"encoder": {"name": "conv", "width": 8}} if folder.name != "probe" else {},
            params_digest=value_digest({}),
            inputs=inputs,
            seconds=1.0,
            mlflow_run_id="0" * 32,
            dataset_digest=data.manifest.digest,
            metrics=metrics,
            details=details,
        ),
    )
    return folder


def write_all(
    root: Path, dataset: Path, *, baseline: float, probe: float, finetune: float, **more
) -> dict[str, Path]:
    """Write the models' folders, the search's, the data check's, and that of a registry without a champion.

    Returns:
        Name → folder.
    """
    accuracies = {"probe": probe, "baseline": baseline, "finetune": finetune}
    folders = {name: write_trained(root / name, dataset, value, **more) for name, value in accuracies.items()}
    (root / "champion").mkdir()
    write_champion(root / "champion", Champion(model="tiny"))
    folders |= {"search": write_search(root / "search", dataset), "champion": root / "champion"}
    return {**folders, "validation": write_validation(root / "validation", dataset)}


def _result(step: str, dataset: Path, **details: Any) -> Result:
    return Result(
        **dict(step=step, params={}, params_digest=value_digest({}), inputs={}, seconds=1.0),
        **dict(mlflow_run_id="0" * 32, metrics={}, details=details),
        dataset_digest=Dataset(dataset).manifest.digest,
    )


def _write_curves(folder: Path, accuracy: float, seeds: int, epochs: int, rng: np.random.Generator) -> None:
    with (folder / "curves.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        if folder.name == "probe":
            writer.writerow(["epoch", "loss", "probe_accuracy"])
            for epoch in range(1, 2 * epochs + 1):
                writer.writerow([epoch, 5 / epoch, accuracy * (1 - np.exp(-epoch / 4))])
            return
        writer.writerow(["epoch", "seed", "loss", "accuracy", "validation_loss", "validation_accuracy"])
        for seed in range(seeds):
            for epoch in range(1, epochs + 1):
                level = accuracy * (1 - np.exp(-epoch / 3)) + 0.01 * rng.standard_normal()
                writer.writerow([epoch, seed, 2 / epoch, min(1.0, level + 0.05), 2.2 / epoch, level])
