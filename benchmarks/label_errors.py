"""How many wrong labels does the probe's list of suspects hold, and how many right ones?

Labels of CIFAR-10 are changed at random to another class; an encoder is pretrained for a few epochs without labels;
then the list is made as the step `probe` makes it.

    nice python -m benchmarks.label_errors /tmp/labels ../shared/data/cifar10 --out benchmarks/results/<date>-….json
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np

from components.ingest import ingest
from components.pretrain import pretrain
from components.shared.artifacts import Dataset
from components.shared.params.composing import compose_params
from components.shared.params.schema import select


def measure(features: np.ndarray, true: np.ndarray, share: float, neighbours: int, seed: int) -> dict[str, float]:
    """Flip a share of the labels, and compare the suspects with what was flipped."""
    # Keras is started by now
    from models.label_errors import find_suspects

    rng, classes = np.random.default_rng(seed), int(true.max()) + 1
    flipped = rng.random(len(true)) < share
    labels = np.where(flipped, (true + rng.integers(1, classes, len(true))) % classes, true)
    start = time.monotonic()
    found = find_suspects(features, labels, classes, neighbours, temperature=0.1)
    right = flipped[found.rows]
    first = right[: flipped.sum()]
    return {
        "images": len(true),
        "flipped": int(flipped.sum()),
        "suspects": len(found.rows),
        "flipped_among_suspects": float(right.sum() / max(flipped.sum(), 1)),
        "suspects_not_flipped": float((~right).mean()) if len(right) else 0.0,
        "not_flipped_among_as_many_first_ones_as_were_flipped": float((~first).mean()) if len(first) else 0.0,
        "given_their_true_label": float((found.suggested == true[found.rows])[right].mean())
        if right.any()
        else 0.0,
        "seconds": round(time.monotonic() - start, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for what is trained; is written")
    parser.add_argument("cifar", type=Path, help="folder of CIFAR-10's Parquet files")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--labels", type=int, default=1000, help="of each class, for the smaller run")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{options.folder.resolve()}/mlflow.db"
    given = ("data=parquet", "data.name=cifar10", f"data.path={options.cifar}", "data.near_copies=keep")
    how = ("augmentation=photographs", f"runtime.epochs={options.epochs}", "runtime.batch_size=512")
    params, dataset = compose_params([*given, *how])[0], options.folder / "dataset"
    if not dataset.exists():
        ingest(dataset, select(params, "ingest"))
    encoder = options.folder / f"encoder-{options.epochs}"
    start = time.monotonic()
    if not encoder.exists():
        pretrain(dataset, encoder, select(params, "pretrain"), 0, options.folder / "states")
    seconds = time.monotonic() - start
    from components.shared.training.inputs import load_encoder
    from models.classifier import predict

    data = Dataset(dataset)
    network = load_encoder(encoder, data)
    splits = ("train", "validation")
    features = np.concatenate([predict(network, data.images(split)) for split in splits])
    labels = np.concatenate([data.labels(split) for split in splits])
    few = np.concatenate([np.flatnonzero(labels == label)[: options.labels] for label in np.unique(labels)])
    neighbours = params.probe.knn_neighbours
    found = {
        "encoder": params.encoder.name,
        "epochs": options.epochs,
        "pretraining_seconds": round(seconds),
        "neighbours": neighbours,
        "all_labels": measure(features, labels, 0.05, neighbours, 0),
        f"{options.labels}_of_each_class": measure(features[few], labels[few], 0.05, neighbours, 0),
        "none_flipped": measure(features, labels, 0.0, neighbours, 0),
    }
    print(json.dumps(found, indent=2))
    if options.out:
        options.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
