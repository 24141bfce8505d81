"""Do exported models answer raw photographs as `predict` does, whose images ingest's function prepares?

A classifier is trained shortly on a folder's images at each size, exported in every format, and asked the test
files twice: as they are, so that the model's own resizing has to prepare them, and as `contrastive predict` does.
Only files of one shape are asked, the one that most have, since ONNX and LiteRT take one.

    python -m benchmarks.raw_files --photos ../shared/data/flowers/flowers.zip --sizes 32 64 96 --out raw-files.json
"""

from __future__ import annotations

import argparse
import collections
import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.whole_runs import run
from components.shared.artifacts import Dataset
from components.shared.training.backend import start_backend
from pipelines.inference.export import ANY_SIZE, ENDINGS, Format, export_model

# in so many the images are asked, for less memory
PARTS = 10
# enough that a classifier is right more often than not; pretraining changes nothing about resizing
SHORT = (
    *("runtime.epochs=0", "runtime.replicates=[0]", "data.labels_per_class=100", "data.split.test=0.4"),
    *("supervised.search.augmentations=[weak]", "supervised.search.learning_rates=[0.004]"),
    *("supervised.search.weight_decays=[0.05]", "supervised.search.epochs=[10]", "supervised.search.widen=0"),
    "probe.label_budgets=[10]",
)


def raw(photos: Path, names: list[str]) -> dict[str, np.ndarray]:
    """The files as they are, by name: those of the commonest shape, uint8, (H, W, 3)."""
    with zipfile.ZipFile(photos) as archive:
        images = {name: np.asarray(Image.open(archive.open(name)).convert("RGB")) for name in names}
    shape, _ = collections.Counter(image.shape for image in images.values()).most_common(1)[0]
    return {name: image for name, image in images.items() if image.shape == shape}


def answers(path: Path, kind: Format, images: np.ndarray) -> np.ndarray:
    """Probabilities of raw images by an exported model, some at a time: float32, (N, classes)."""
    # imported here: Keras, only now that its announcements are muted
    from pipelines.inference.formats import ask

    return np.concatenate([ask(kind, path, part) for part in np.array_split(images, PARTS)])


def measure(photos: Path, size: int, place: Path) -> list[dict[str, Any]]:
    """A row for each format."""
    run(
        [f"data.path={photos.resolve()}", "data=folder", f"data.image_size={size}", *SHORT], place, until="baseline"
    )
    data = Dataset(place / "dataset")
    names = list(data.files("test").path)
    files = raw(photos, names)
    rows = [names.index(name) for name in files]
    images = np.stack(list(files.values()))
    with np.load(place / "baseline" / "predictions.npz") as kept:
        recorded, labels = kept["probabilities"][0][rows], kept["labels"][rows]
    found = []
    for kind, ending in ENDINGS.items():
        out = place / f"exported{ending}"
        sides = None if kind in ANY_SIZE else f"{images.shape[1]}x{images.shape[2]}"
        export_model(str(place / "baseline" / "classifier.keras"), out, kind, False, sides, "uint8")
        given = answers(out, kind, images)
        found.append(
            {
                "image_size": size,
                "raw": list(images.shape[1:]),
                "format": kind,
                "images": len(images),
                "accuracy": float((recorded.argmax(axis=1) == labels).mean()),
                "equal_answers": float((given.argmax(axis=1) == recorded.argmax(axis=1)).mean()),
                "largest_difference": float(np.abs(given - recorded).max()),
                "mean_difference": float(np.abs(given - recorded).mean()),
            }
        )
    return found


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The rows as a Markdown table."""
    lines = [
        "| trained at | files of | format | images | right | equal answers | probability differs by at most |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        height, width, _ = row["raw"]
        cells = [f"{row['image_size']} px", f"{height}×{width}", row["format"], f"{row['images']:,}"]
        cells += [f"{100 * row[share]:.2f} %" for share in ("accuracy", "equal_answers")]
        lines.append(f"| {' | '.join(cells)} | {row['largest_difference']:.3f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="a zip of <class>/<file>")
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 96], help="to train at")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    start_backend()
    rows: list[dict[str, Any]] = []
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as place:
            rows += measure(options.photos, size, Path(place))
    print("\n".join(table(rows)))
    if options.out:
        options.out.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
