"""Where does pretraining pay? The fair rival beside probe and fine-tuned model, over labels per class.

The encoders are pretrained once, with the most labels, and serve all budgets: the images that pretraining sees are
the same but for the few that are held out, and it does not see their labels. Search, probe, baseline, fine-tuning
and gate are the pipeline's own, with a ledger of looks for each budget.

    python -m benchmarks.labels --data ../shared/data/cifar10 --labels 10 25 50 100 250 500 --out cifar10.json \\
        --set data=parquet data.name=cifar10-jpeg augmentation=photographs runtime.epochs=10
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.whole_runs import adopt, run
from components.shared.progress import Progress


def measure(
    labels: list[int], overrides: list[str], folder: Path, encoders: Path | None = None
) -> list[dict[str, Any]]:
    """A row for each number of labels per class; `encoders` are taken where they are given."""
    rows = []
    progress = Progress("labels", len(labels), "budget")
    for budget in sorted(labels, reverse=True):
        place = folder / str(budget)
        own = [*overrides, f"data.labels_per_class={budget}"]
        if encoders is None:
            row = run(own, place)
            encoders = place / "encoder"
        else:
            run(own, place, until="ingest")
            given = {"dataset": place / "dataset", "encoder": adopt(encoders, place / "dataset", place / "encoder")}
            row = run(own, place, given)
        rows.append({"labels_per_class": budget, **row})
        progress.step({"labels_per_class": budget, "gain": row["gain"] or float("nan")})
        print("\n".join(table(rows)), flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The rows as a Markdown table, fewest labels first."""
    lines = [
        "| labels per class | baseline | linear probe | fine-tuned | winner's gain (interval) | gate |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: row["labels_per_class"]):
        known = row["test"].get("accuracies", {})
        cells = []
        for model in ("baseline", "probe", "finetune"):
            values = 100 * np.array(known.get(model, []))
            cells.append(f"{values.mean():.1f} ± {values.std(ddof=1):.1f} %" if len(values) > 1 else "–")
        gain = "–"
        if row["gain"] is not None:
            low, high = row["interval"]
            gain = f"{row['winner']} {100 * row['gain']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
        gate = "blessed" if row["blessed"] else row["closed"] or "refused: " + ", ".join(row["refused_by"])
        lines.append(f"| {row['labels_per_class']} | {' | '.join(cells)} | {gain} | {gate} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="data.path of the run")
    parser.add_argument("--labels", type=int, nargs="+", required=True, help="per class")
    parser.add_argument("--set", nargs="*", default=[], help="further overrides")
    parser.add_argument("--folder", type=Path, help="to work in, where finished trainings are kept")
    parser.add_argument(
        "--encoders", type=Path, help="encoder/ of an earlier call's folder, pretrained with the same options"
    )
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    overrides = [f"data.path={options.data.resolve()}", *options.set]
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        rows = measure(options.labels, overrides, folder, options.encoders and options.encoders.resolve())
    if options.out:
        told = [override for override in overrides if not override.startswith("data.path=")]
        options.out.write_text(json.dumps({"overrides": told, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
