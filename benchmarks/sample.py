"""Does pretraining pay on the built-in sample, and does the gate refuse where it does not?

For each seed the baseline is trained once and the pipeline runs three times: with the default settings, without
pretraining (0 epochs), and with colour distortion off. Prints a table, and writes the numbers as JSON.

    python -m benchmarks.sample --seeds 5 --out sample.json
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import tempfile
from pathlib import Path

from components.shared.params.composing import compose
from components.shared.params.schema import select

COLOUR_OFF = [f"method.augmentation.{name}=0" for name in ("brightness", "contrast", "saturation", "hue")]
VARIANTS = {
    "default": [],
    "0 epochs of pretraining": ["runtime.epochs=0"],
    "colour distortion off": [*COLOUR_OFF, "method.augmentation.grey_probability=0"],
}


def run_seed(seed: int, folder: Path, variants: list[str], data: str) -> list[dict]:
    """All variants of one seed: a row each."""
    from components.baseline import baseline
    from components.champion import champion
    from components.evaluate import evaluate
    from components.finetune import finetune
    from components.ingest import ingest
    from components.pretrain import pretrain
    from components.probe import probe

    base = [f"runtime.seed={seed}", f"data.path={data}"]
    params, _ = compose(base)
    dataset, rival = folder / "dataset", folder / f"baseline-{seed}"
    if not dataset.exists():
        ingest(dataset, select(params, "ingest"))
    baseline(dataset, rival, select(params, "baseline"))
    rows = []
    for variant in variants:
        place = folder / f"{variant.replace(' ', '-')}-{seed}"
        place.mkdir()
        params, _ = compose([*base, *VARIANTS[variant]])
        trained = pretrain(dataset, place / "encoder", select(params, "pretrain"), place / "checkpoints")
        probe(dataset, place / "encoder", place / "probe", select(params, "probe"))
        finetune(dataset, place / "encoder", place / "finetune", select(params, "finetune"))
        champion(place / "champion", select(params, "champion"))
        inputs = [dataset, place / "probe", rival, place / "finetune", place / "champion"]
        evaluate(*inputs, place / "evaluation", select(params, "evaluate"))
        blessing = json.loads((place / "evaluation" / "blessing.json").read_text())
        metrics = json.loads((place / "evaluation" / "metrics.json").read_text())
        rows.append(
            {"variant": variant, "seed": seed, "winner": blessing["winner"], "blessed": blessing["blessed"],
             "refused_by": [check["name"] for check in blessing["checks"] if not check["passed"]],
             "pretrain_seconds": trained.seconds, **metrics}
        )  # fmt: skip
        print(f"seed {seed}, {variant}: {json.dumps(rows[-1])}", flush=True)
    return rows


def table(rows: list[dict]) -> str:
    """The rows as a Markdown table, one line a variant and seed."""
    lines = [
        "| variant | seed | baseline | linear probe | fine-tuned | gain (95 % interval) | gate |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (list(VARIANTS).index(row["variant"]), row["seed"])):
        numbers = [f"{100 * row[f'{model}_accuracy']:.1f} %" for model in ("baseline", "probe", "finetune")]
        gain = f"{100 * row['gain']:+.1f} ({100 * row['gain_low']:+.1f} to {100 * row['gain_high']:+.1f})"
        gate = "blessed" if row["blessed"] else f"refused: {', '.join(row['refused_by'])}"
        lines.append(f"| {row['variant']} | {row['seed']} | {' | '.join(numbers)} | {gain} | {gate} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="default: 0 1 2 3 4")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--out", type=Path, help="write the rows here as JSON")
    parser.add_argument("--verbose", action="store_true", help="show the steps' own lines")
    options = parser.parse_args()
    data = str(Path("data/sample/textures10.zip").resolve())
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        with contextlib.chdir(folder):
            for seed in options.seeds:
                with contextlib.nullcontext() if options.verbose else contextlib.redirect_stderr(io.StringIO()):
                    rows += run_seed(seed, Path(folder), options.variants, data)
    print(table(rows))
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
