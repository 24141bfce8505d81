"""Does pretraining pay on the built-in sample against the fair rival, and does the gate refuse where it does not?

Each run has seeds of its own (as many as `params.yaml`), a search, and, unless told otherwise, a ledger of looks.
Four variants: the default settings; without pretraining (0 epochs); with shuffled labels; with the views' colour
changes off. Pretraining sees no label, so a run with shuffled ones takes over the encoders of the default run of
the same seeds. Prints tables, and writes all numbers as JSON; runs that stand there already are not made again.

    python -m benchmarks.sample --runs 10 --out sample.json
    python -m benchmarks.sample --runs 30 --one-ledger --variants "0 epochs of pretraining" --out month.json
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

from benchmarks.whole_runs import adopt, run
from components.shared.params.composing import compose_params

COLOUR_OFF = [f"method.augmentation.{name}=0" for name in ("brightness", "contrast", "saturation", "hue")]
DEFAULT, SHUFFLED = "default", "labels shuffled"
VARIANTS: dict[str, list[str]] = {
    DEFAULT: [],
    "0 epochs of pretraining": ["runtime.epochs=0"],
    SHUFFLED: [],
    "colour changes of the views off": [*COLOUR_OFF, "method.augmentation.grey_probability=0"],
}
SAMPLE = Path("data/sample/textures10.zip")


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


def measure(
    number: int, replicates: int, variant: str, place: Path, encoders: Path | None, extra: list[str], verbose: bool
) -> dict[str, Any]:
    """One run in a folder of its own: a row. `encoders` are taken over where labels are shuffled."""
    seeds = [replicates * number + index for index in range(replicates)]
    place.mkdir(parents=True, exist_ok=True)
    data, given = SAMPLE.resolve(), None
    if variant == SHUFFLED:
        data = shuffled(data, place / "shuffled.zip", number)
    overrides = [f"data.path={data}", f"runtime.replicates={seeds}".replace(" ", ""), *VARIANTS[variant], *extra]
    quiet: Any = contextlib.nullcontext() if verbose else contextlib.redirect_stdout(io.StringIO())
    with quiet:
        if variant == SHUFFLED and encoders is not None:
            run(overrides, place, until="ingest")
            dataset = place / "dataset"
            given = {"dataset": dataset, "encoder": adopt(encoders, dataset, place / "encoder")}
        return {"variant": variant, "seeds": seeds, "set": extra, **run(overrides, place, given)}


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
    usual = len(compose_params([])[0].runtime.replicates)
    parser.add_argument("--replicates", type=int, default=usual, help=f"of each side in a run; default: {usual}")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--set", nargs="*", default=[], help="further overrides, such as runtime.epochs=20")
    parser.add_argument(
        "--one-ledger", action="store_true", help="runs of a variant are nights, and share a ledger"
    )
    parser.add_argument("--out", type=Path, help="write the rows here as JSON")
    parser.add_argument("--verbose", action="store_true", help="show the steps' own lines")
    options = parser.parse_args()
    # a ledger ends with the command, and so do the nights that share it
    goes_on = options.out and options.out.exists() and not options.one_ledger
    rows = json.loads(options.out.read_text()) if goes_on else []
    made = {(row["variant"], row["seeds"][0], *row["set"]) for row in rows}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.first, options.first + options.runs):
            encoders = None
            for variant in options.variants:
                if (variant, options.replicates * number, *options.set) in made:
                    continue
                night = "" if options.one_ledger else f"-{number}"
                place = Path(folder) / f"{variant.replace(' ', '-')}{night}"
                rows.append(
                    measure(number, options.replicates, variant, place, encoders, options.set, options.verbose)
                )
                print(lines(rows[-1:])[-1], flush=True)
                if options.out:
                    options.out.write_text(json.dumps(rows, indent=1) + "\n")
                if variant == DEFAULT:
                    encoders = place / "encoder"
                elif not options.one_ledger:
                    shutil.rmtree(place)
    print("\n".join(["", *lines(rows), "", *summary(rows)]))


if __name__ == "__main__":
    main()
