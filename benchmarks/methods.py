"""Does every method learn? kNN accuracy on test images after a short pretraining, beside a random encoder's.

    python -m benchmarks.methods --data sample --epochs 20 --out methods.json
    python -m benchmarks.methods --data cifar10 --cifar10 ../shared/data/cifar10 --epochs 10

`sample` is the built-in one. `cifar10` is 10,000 training images of which 1,000 have a label, and 2,000 test
images, from a folder of train*.parquet and test*.parquet. Each run goes through the pipeline's own ingest and
pretrain steps; neighbours come from the labelled training images. Prints a table and writes the numbers as JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
from pathlib import Path

from components.shared.params.composing import compose_params, options
from components.shared.params.schema import select

IMAGES = {"train": 10_000, "test": 2_000}
OVERRIDES = {
    "sample": ["data=sample"],
    "cifar10": [
        "data=parquet",
        "augmentation=photographs",
        "data.labels_per_class=100",
        "data.split.validation=0.1",
    ],
}


def subset(source: Path, folder: Path) -> Path:
    """The first rows of a dataset in the Hugging Face layout, whose order is random."""
    import pyarrow.parquet as pq

    folder.mkdir()
    for split, rows in IMAGES.items():
        table = pq.read_table(sorted(source.glob(f"{split}*.parquet"))[0])
        pq.write_table(table.slice(0, rows), folder / f"{split}.parquet")
    return folder


def knn_accuracy(dataset: Path, encoder: Path) -> float:
    """Of test images, by the 20 most similar labelled training images."""
    import keras

    from components.shared.artifacts import Dataset
    from models.classifier import predict
    from models.knn import knn_probabilities

    data = Dataset(dataset)
    network = keras.saving.load_model(encoder / "encoder.keras", compile=False)
    features = {split: predict(network, data.images(split)) for split in ("train", "test")}
    votes = knn_probabilities(features["train"], data.labels("train"), features["test"], data.classes, 20, 0.1)
    return float((votes.argmax(axis=1) == data.labels("test")).mean())


def measure(name: str, dataset: Path, place: Path, overrides: list[str], seed: int) -> dict:
    """Pretrain with one option of `conf/method/` and look at the encoder: a row."""
    from components.pretrain import pretrain

    params, _ = compose_params(overrides)
    # several methods' progress in one log would hide the table
    with contextlib.redirect_stdout(None):
        record = pretrain(dataset, place, select(params, "pretrain"), seed, place.parent / "checkpoints")
    row = {"method": name, "knn": knn_accuracy(dataset, place), "seconds": record.seconds, "overrides": overrides}
    return {**row, **{k: record.metrics[k] for k in ("embedding_spread", "embedding_rank") if k in record.metrics}}


def table(rows: list[dict], epochs: int) -> str:
    """The rows as a Markdown table, best first."""
    lines = [
        f"| method | kNN after {epochs} epochs | spread | rank | seconds |",
        "|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: -row["knn"]):
        shape = " | ".join(f"{row[k]:.2f}" if k in row else "" for k in ("embedding_spread", "embedding_rank"))
        lines.append(f"| {row['method']} | {100 * row['knn']:.1f} % | {shape} | {row['seconds']:.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=list(OVERRIDES), default="sample")
    parser.add_argument("--cifar10", type=Path, help="folder of train*.parquet and test*.parquet")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="*", default=options()["method"], help="options of conf/method/")
    parser.add_argument("--set", nargs="*", default=[], help="further overrides, such as method.temperature=0.2")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    if arguments.data == "cifar10" and arguments.cifar10 is None:
        parser.error("--cifar10 must name the folder of the images")
    from components.ingest import ingest

    root, out = Path.cwd(), arguments.out and arguments.out.resolve()
    common = [*OVERRIDES[arguments.data], *arguments.set]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / 'mlflow.db'}"
        if arguments.data == "cifar10":
            common.append(f"data.path={subset(arguments.cifar10.resolve(), folder / 'images')}")
        else:
            common.append(f"data.path={root / 'data' / 'sample' / 'textures10.zip'}")
        os.chdir(folder)
        ingest(folder / "dataset", select(compose_params(common)[0], "ingest"))
        rows = []
        for name, extra in [
            ("random encoder", ["runtime.epochs=0"]),
            *((m, [f"method={m}"]) for m in arguments.methods),
        ]:
            overrides = [*common, f"runtime.epochs={arguments.epochs}", *extra]
            rows.append(
                measure(name, folder / "dataset", folder / name.replace(" ", "-"), overrides, arguments.seed)
            )
            print(json.dumps(rows[-1]), flush=True)
        os.chdir(root)
    print(f"\n{arguments.data}, seed {arguments.seed}\n\n{table(rows, arguments.epochs)}")
    for row in rows:
        row["overrides"] = [o for o in row["overrides"] if not o.startswith("data.path=")]
    if out:
        out.write_text(
            json.dumps({"data": arguments.data, "epochs": arguments.epochs, "rows": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
