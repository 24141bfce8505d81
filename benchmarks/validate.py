"""Validate beside a plain NumPy loop: seconds, processor seconds and peak memory, on made-up images.

`loop` is what anyone would write: each array mapped into memory, and of each image its mean, its deviation and a
hash; one thread. `validate` is the whole step: all expectations, Data Docs, pictures, tracking.

    nice python -m benchmarks.validate /tmp/ingest --images 113000 --out benchmarks/results/<date>-cpu-validate.json
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks.ingest import SIDE, ingest, measured, write_jpegs
from components.shared.artifacts import Dataset

LOOP = """
import hashlib, sys
from pathlib import Path
import numpy as np
found = []
for path in sorted(Path(sys.argv[1]).glob("*.images.npy")):
    for image in np.load(path, mmap_mode="r"):
        found.append((image.mean(), image.std(axis=(0, 1)).max(), hashlib.sha256(image).digest()))
"""
VALIDATE = """
import runpy, sys
sys.argv = ["validate", "--params", sys.argv[1], "--dataset", sys.argv[2], "--out", sys.argv[3]]
runpy.run_module("components.validate", run_name="__main__")
"""


def main() -> None:
    """Measure, and print as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for the images, or with the dataset; is written")
    parser.add_argument("--images", type=int, default=113_000)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    folder: Path = options.folder
    tree, dataset, out = folder / f"jpegs-{options.images}", folder / "dataset", folder / "validation"
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder.resolve()}/mlflow.db"
    if not dataset.exists():
        if not tree.exists():
            write_jpegs(tree, options.images)
        ingest(folder, tree, f"data.image_size={SIDE}", "data.near_copies=keep")
    found: dict[str, object] = {
        "images": Dataset(dataset).manifest.counts,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }
    runs: dict[str, Callable[[], dict[str, float | str]]] = {
        "loop": lambda: measured(LOOP, str(dataset)),
        "validate": lambda: measured(VALIDATE, str(folder / "params.yaml"), str(dataset), str(out)),
    }
    for name, run in runs.items():
        found[name] = run()
        print(name, json.dumps(found[name]), flush=True)
        if options.out:
            options.out.write_text(json.dumps(found, indent=2) + "\n")
    shutil.rmtree(out)


if __name__ == "__main__":
    main()
