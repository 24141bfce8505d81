"""How many wrong labels does the probe's list of suspects hold, and how many right ones?

Labels are changed at random to another class, and the list is made as the step `probe` makes it: of CIFAR-10 with
an encoder that was pretrained for a few epochs, without labels, and of new textures10 with the encoder of a run on
the sample, where one is given.

    nice python -m benchmarks.label_errors /tmp/labels ../shared/data/cifar10 --sample encoder/encoder.keras
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.textures10 import draw_split
from components.ingest import ingest
from components.pretrain import pretrain
from components.shared.artifacts import Dataset
from components.shared.params.composing import compose_params
from components.shared.params.schema import select


def measure(features: np.ndarray, true: np.ndarray, share: float, neighbours: int, seed: int) -> dict[str, float]:
    """Flip a share of the labels, and compare the suspects with what was flipped."""
    # Keras is started by now
    from models.knn import knn_probabilities
    from models.label_errors import find_suspects

    rng, classes = np.random.default_rng(seed), int(true.max()) + 1
    flipped = rng.random(len(true)) < share
    labels = np.where(flipped, (true + rng.integers(1, classes, len(true))) % classes, true)
    start = time.monotonic()
    found = find_suspects(features, labels, classes, neighbours, temperature=0.1)
    right = flipped[found.rows]
    first = right[: flipped.sum()]
    votes = knn_probabilities(features, true, features, classes, neighbours, itself=np.arange(len(true)))
    return {
        "images": len(true),
        "accuracy_of_neighbours": float((votes.argmax(axis=1) == true).mean()),
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
    parser.add_argument("--images", type=int, default=20_000, help="of train, to keep it short")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--sample", type=Path, help="encoder.keras of a run on the sample")
    parser.add_argument("--labels", type=int, default=1000, help="of each class, for the smaller run")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{options.folder.resolve()}/mlflow.db"
    part = options.folder / "cifar10"
    if not part.exists():
        part.mkdir()
        for file in options.cifar.glob("*.parquet"):
            pq.write_table(pq.read_table(file)[: options.images], part / file.name)
    given = ("data=parquet", "data.name=cifar10", f"data.path={part}", "data.near_copies=keep")
    how = ("augmentation=photographs", "encoder.width=24", f"runtime.epochs={options.epochs}")
    params, dataset = compose_params([*given, *how])[0], options.folder / "dataset"
    if not dataset.exists():
        ingest(dataset, select(params, "ingest"))
    encoder = options.folder / f"encoder-{options.epochs}"
    if not encoder.exists():
        pretrain(dataset, encoder, select(params, "pretrain"), 0, options.folder / "states")
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
        "encoder": f"{params.encoder.name}, width {params.encoder.width}",
        "epochs": options.epochs,
        "neighbours": neighbours,
        "all_labels": measure(features, labels, 0.05, neighbours, 0),
        f"{options.labels}_of_each_class": measure(features[few], labels[few], 0.05, neighbours, 0),
        "none_flipped": measure(features, labels, 0.0, neighbours, 0),
    }
    if options.sample:
        import keras

        images, labels = draw_split(3000, np.random.default_rng(99))
        features = predict(keras.saving.load_model(options.sample, compile=False), images)
        found["textures10"] = measure(features, labels, 0.05, neighbours, 0)
    print(json.dumps(found, indent=2))
    if options.out:
        options.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
