"""Does pretraining pay on the built-in sample against the fair rival, and does the gate refuse where it does not?

Each run has three seeds of its own, a search of its own and a ledger of its own. Four variants: the default
settings; without pretraining (0 epochs); with shuffled labels; with the views' colour changes off. Prints tables,
and writes all numbers as JSON.

    python -m benchmarks.sample --runs 10 --out sample.json
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.whole_runs import run

COLOUR_OFF = [f"method.augmentation.{name}=0" for name in ("brightness", "contrast", "saturation", "hue")]
VARIANTS: dict[str, list[str]] = {
    "default": [],
    "0 epochs of pretraining": ["runtime.epochs=0"],
    "labels shuffled": [],
    "colour changes of the views off": [*COLOUR_OFF, "method.augmentation.grey_probability=0"],
}
SAMPLE = Path("data/sample/textures10.zip")
REPLICATES = 3


def shuffled(source: Path, out: Path, seed: int) -> Path:
    """A copy of the sample whose labelled training images have each other's labels."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(out, "w") as new:
        names = [name for name in old.namelist() if not name.endswith("/")]
        train = [name for name in names if "/train/" in f"/{name}" or "/validation/" in f"/{name}"]
        rng = np.random.default_rng(seed)
        contents = dict(zip(train, rng.permutation(np.array(train, object)), strict=True))
        for name in names:
            new.writestr(name, old.read(contents.get(name, name)))
    return out


def measure(number: int, variant: str, folder: Path, extra: list[str], verbose: bool) -> dict[str, Any]:
    """One run: a row."""
    seeds = [REPLICATES * number + index for index in range(REPLICATES)]
    place = folder / f"{variant.replace(' ', '-')}-{number}"
    place.mkdir(parents=True)
    data = SAMPLE.resolve()
    if variant == "labels shuffled":
        data = shuffled(data, place / "shuffled.zip", number)
    overrides = [f"data.path={data}", f"runtime.replicates={seeds}".replace(" ", ""), *VARIANTS[variant], *extra]
    quiet: Any = contextlib.nullcontext() if verbose else contextlib.redirect_stdout(io.StringIO())
    with quiet:
        row = {"variant": variant, "seeds": seeds, **run(overrides, place)}
    shutil.rmtree(place)
    return row


def lines(rows: list[dict[str, Any]]) -> list[str]:
    """A line of a Markdown table for each run."""
    found = [
        "| variant | seeds | baseline | linear probe | fine-tuned | gain of the winner (interval) | gate |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        known = row["test"].get("accuracies", {})
        numbers = [
            f"{100 * np.mean(known[m]):.1f} %" if m in known else "–" for m in ("baseline", "probe", "finetune")
        ]
        gain = "–"
        if row["gain"] is not None:
            low, high = row["interval"]
            gain = f"{row['winner']} {100 * row['gain']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
        gate = "blessed" if row["blessed"] else f"not judged: {row['closed']}" if row["closed"] else "refused: "
        if gate == "refused: ":
            gate += ", ".join(row["refused_by"])
        seeds = f"{row['seeds'][0]}–{row['seeds'][-1]}"
        found.append(f"| {row['variant']} | {seeds} | {' | '.join(numbers)} | {gain} | {gate} |")
    return found


def summary(rows: list[dict[str, Any]]) -> list[str]:
    """A line of a Markdown table for each variant: how often blessed, and the range of what was measured."""
    found = [
        "| variant | runs | blessed | baseline | fine-tuned | gain of the winner, least to most | minutes a run |",
        "|---|---|---|---|---|---|---|",
    ]
    for variant in dict.fromkeys(row["variant"] for row in rows):
        own = [row for row in rows if row["variant"] == variant]
        gains = [100 * row["gain"] for row in own if row["gain"] is not None]
        cells = []
        for model in ("baseline", "finetune"):
            means = [100 * np.mean(row["test"]["accuracies"][model]) for row in own if row["test"]]
            cells.append(f"{min(means):.1f} to {max(means):.1f} %" if means else "–")
        gain = f"{min(gains):+.1f} to {max(gains):+.1f}" if gains else "not opened"
        minutes = np.median([sum(row["seconds"].values()) / 60 for row in own])
        blessed = sum(row["blessed"] for row in own)
        found.append(f"| {variant} | {len(own)} | {blessed} | {' | '.join(cells)} | {gain} | {minutes:.1f} |")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10, help="of each variant; default: 10")
    parser.add_argument("--first", type=int, default=0, help="number of the first run; default: 0")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--set", nargs="*", default=[], help="further overrides, such as runtime.epochs=20")
    parser.add_argument("--out", type=Path, help="write the rows here as JSON")
    parser.add_argument("--verbose", action="store_true", help="show the steps' own lines")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.first, options.first + options.runs):
            for variant in options.variants:
                rows.append(measure(number, variant, Path(folder), options.set, options.verbose))
                print(lines(rows[-1:])[-1], flush=True)
                if options.out:
                    options.out.write_text(json.dumps(rows, indent=1) + "\n")
    print("\n".join(["", *lines(rows), "", *summary(rows)]))


if __name__ == "__main__":
    main()
