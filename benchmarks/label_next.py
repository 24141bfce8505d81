"""Do the images that `contrastive label next` proposes teach more than images chosen at random?

From no label to `--labels` per class, in equal rounds as a user would: choose, learn the labels, choose again. The
judge is a linear probe on the same features, trained on the chosen images, asked all test images; random choice is
without regard to class, which nobody knows beforehand. Encoders are given, such as those that `benchmarks.labels`
leaves, or one is pretrained here, briefly.

    python -m benchmarks.label_next --data ../shared/data/cifar10 --encoders cifar/500/encoder/*/encoder.keras \\
        --labels 5 10 20 --seeds 20 21 22 23 24 25 26 27 --out label-next.json
    python -m benchmarks.label_next --data ../shared/data/cifar10 --out label-next.json \\
        --set data=parquet data.name=cifar10-jpeg augmentation=photographs
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.whole_runs import run
from components.shared.sources.parquet import Parquet
from components.shared.training.backend import start_backend
from pipelines.inference.label import choose

PENALTY, STEPS = (
    0.1,
    300,
)  # of the probe that judges: the best of random choice, with 0.3, of 0.03, 0.1, 0.3 and 1


def features_of(data: Path, encoder: Path, pool: int) -> dict[str, np.ndarray]:
    """Features and labels of the first training images and of all test images."""
    start_backend()
    import keras

    from models.classifier import predict

    network = keras.saving.load_model(encoder, compile=False)
    source, found = Parquet(data, network.get_layer("resize").height), {}
    for name, split in (("pool", "train"), ("test", "test")):
        count = pool if name == "pool" else len(source.labels(split))
        images = np.stack([image.pixels for image, _ in zip(source.images(split), range(count), strict=False)])
        found |= {name: predict(network, images), f"{name}_labels": source.labels(split)[:count]}
    return found


def accuracy(found: dict[str, np.ndarray], rows: np.ndarray) -> float:
    """Test accuracy of a linear probe on the labels of some images of the pool."""
    from models.probes import fit_linear_probe

    classes = int(found["pool_labels"].max()) + 1
    probe = fit_linear_probe(found["pool"][rows], found["pool_labels"][rows], classes, PENALTY, STEPS, seed=0)
    return float((probe.probabilities(found["test"]).argmax(axis=1) == found["test_labels"]).mean())


def proposed(found: dict[str, np.ndarray], labels: int, rounds: int, seed: int) -> np.ndarray:
    """Rows that are proposed, round by round."""
    rows = np.zeros(0, np.int64)
    for done in range(rounds):
        rest = np.setdiff1d(np.arange(len(found["pool"])), rows)
        count = labels * (done + 1) // rounds - len(rows)
        chosen, _, _ = choose(found["pool"][rest], found["pool"][rows], found["pool_labels"][rows], count, seed)
        rows = np.concatenate([rows, rest[chosen]])
    return rows


def measure(
    found: dict[str, np.ndarray], per_class: list[int], rounds: int, seeds: list[int]
) -> list[dict[str, Any]]:
    """A row for each number of labels per class."""
    classes, table = int(found["pool_labels"].max()) + 1, []
    for each in per_class:
        count = each * classes
        random = [
            accuracy(found, np.random.default_rng(seed).choice(len(found["pool"]), count, replace=False))
            for seed in seeds
        ]
        chosen = [accuracy(found, proposed(found, count, rounds, seed)) for seed in seeds]
        table.append({"labels_per_class": each, "random": random, "proposed": chosen})
        gain = 100 * (np.mean(chosen) - np.mean(random))
        print(f"| {each} | {in_words(random)} | {in_words(chosen)} | {gain:+.1f} |", flush=True)
    return table


def in_words(values: list[float]) -> str:
    """Mean and range, in per cent."""
    return f"{100 * np.mean(values):.1f} ({100 * min(values):.1f} to {100 * max(values):.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument("--encoders", type=Path, nargs="+", help="`encoder.keras` files; else one is made")
    parser.add_argument("--pool", type=int, default=20_000, help="training images to choose from")
    parser.add_argument("--labels", type=int, nargs="+", default=[10], help="per class, on average")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--set", nargs="*", default=[], help="overrides of the pretraining")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    table = []
    with tempfile.TemporaryDirectory() as temporary:
        for encoder in options.encoders or [_pretrained(options.data, options.set, Path(temporary))]:
            found = features_of(options.data, encoder, options.pool)
            print(f"{encoder}\n\n| labels per class | random | proposed | gain |\n|---|---|---|---|")
            table.append(measure(found, options.labels, options.rounds, options.seeds))
    if options.out:
        told = {"pool": options.pool, "rounds": options.rounds, "seeds": options.seeds, "overrides": options.set}
        options.out.write_text(json.dumps({**told, "encoders": table}, indent=1) + "\n")


def _pretrained(data: Path, overrides: list[str], place: Path) -> Path:
    run([f"data.path={data.resolve()}", "runtime.replicates=[0]", *overrides], place, until="pretrain")
    return place / "encoder" / "encoder.keras"


if __name__ == "__main__":
    main()
