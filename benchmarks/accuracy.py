"""What accuracy do minutes of pretraining buy? Both beside each other, by encoder, method and length.

Each run goes through the pipeline's own steps up to fine-tuning, with one replicate, and opens no test images. Rows
that stand in the file already are not made again; a row is printed when it is there.

    python -m benchmarks.accuracy --data ../shared/data/cifar10 --labels 500 --epochs 5 10 20 --out accuracy.json \\
        --runs "encoder=conv" "encoder=fast" "encoder=resnet18 runtime.batch_size=128" "encoder=fast method=byol"
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.whole_runs import run
from components.shared.artifacts import Result, read_record

CIFAR = ("data=parquet", "data.name=cifar10-jpeg", "augmentation=photographs", "runtime.replicates=[0]")
MODELS = ("baseline", "probe", "finetune")


def measure(overrides: list[str], place: Path) -> dict[str, Any]:
    """Minutes of each step and held-out accuracies of one run."""
    seconds = run(overrides, place, until="finetune")["seconds"]
    records = {step: read_record(place / step, Result) for step in MODELS}
    return {
        "minutes": {step: round(took / 60, 2) for step, took in seconds.items()},
        "accuracy": {step: record.metrics["validation_accuracy"] for step, record in records.items()},
        "held_out_images": read_record(place / "search", Result).details["held_out_images"],
    }


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The rows as a Markdown table, shortest pretraining first; in bold what no shorter one reaches."""
    lines = [
        "| run | labels | epochs | minutes of pretraining | search | fine-tuning | baseline | probe | fine-tuned |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    best: dict[int, float] = {}
    for row in sorted(rows, key=lambda row: (row["labels"], row["minutes"]["pretrain"])):
        minutes, accuracy = row["minutes"], row["accuracy"]
        shown = {model: f"{100 * accuracy[model]:.1f} %" for model in MODELS}
        reached = max(accuracy["probe"], accuracy["finetune"])
        if reached > best.get(row["labels"], 0.0):
            best[row["labels"]] = reached
            winner = max(("probe", "finetune"), key=accuracy.__getitem__)
            shown[winner] = f"**{shown[winner]}**"
        cells = [row["run"], row["labels"], row["epochs"]]
        cells += [f"{minutes[step]:.1f}" for step in ("pretrain", "search", "finetune")]
        lines.append(f"| {' | '.join(map(str, [*cells, *shown.values()]))} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of Parquet files, as Hugging Face has them"
    )
    parser.add_argument("--runs", nargs="+", default=["encoder=conv", "encoder=fast"], help="overrides of each run")
    parser.add_argument("--labels", type=int, nargs="+", default=[500], help="per class")
    parser.add_argument("--epochs", type=int, nargs="+", default=[5, 10, 20], help="of pretraining")
    parser.add_argument("--set", nargs="*", default=[], help="further overrides of all runs")
    parser.add_argument("--out", type=Path, help="write the rows here as JSON")
    options = parser.parse_args()
    rows = json.loads(options.out.read_text()) if options.out and options.out.exists() else []
    made = {(row["run"], row["labels"], row["epochs"], *row["set"]) for row in rows}
    for name in options.runs:
        for labels in options.labels:
            for epochs in options.epochs:
                if (name, labels, epochs, *options.set) in made:
                    continue
                asked = {"run": name, "labels": labels, "epochs": epochs, "set": options.set}
                own = [f"data.path={options.data.resolve()}", f"data.labels_per_class={labels}"]
                overrides = [*CIFAR, *own, f"runtime.epochs={epochs}", *options.set, *name.split()]
                with tempfile.TemporaryDirectory() as place:
                    rows.append({**asked, **measure(overrides, Path(place))})
                print(table(rows[-1:])[-1], flush=True)
                if options.out:
                    options.out.write_text(json.dumps(rows, indent=1) + "\n")
    print("\n".join(["", *table(rows)]))


if __name__ == "__main__":
    main()
