"""What moves an encoder's features how far: the distance that `evaluate` tells, for known changes of the images.

Uses the dataset and the encoder that benchmarks.label_errors leaves in its folder, and photographs of flowers as
images of another kind.

    nice python -m benchmarks.feature_drift /tmp/labels ../shared/data/flowers/flowers.zip --out drift.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.near_copies import changed
from components.shared.artifacts import Dataset
from components.shared.evaluation.feature_drift import MOST, WARNING, FeatureDrift, discrepancy
from components.shared.sources.folder import Folder

Change = Callable[[np.ndarray], np.ndarray]


def _scaled(factor: float) -> Change:
    return lambda images: np.clip(images * factor, 0, 255).astype(np.uint8)


CHANGES: dict[str, Change] = {
    "none": lambda images: images,
    "JPEG 95": lambda images: changed(images, "JPEG 95"),
    "JPEG 75": lambda images: changed(images, "JPEG 75"),
    "half size and back": lambda images: np.repeat(np.repeat(images[:, ::2, ::2], 2, 1), 2, 2),
    "10 % brighter": _scaled(1.1),
    "30 % brighter": _scaled(1.3),
    "half as bright": _scaled(0.5),
    "grey": lambda images: np.repeat(images.mean(axis=3, keepdims=True).astype(np.uint8), 3, axis=3),
    "red and blue exchanged": lambda images: np.ascontiguousarray(images[..., ::-1]),
    "upside down": lambda images: np.ascontiguousarray(images[:, ::-1]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of benchmarks.label_errors")
    parser.add_argument("photos", type=Path, help="folder or archive of photographs")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    data = Dataset(options.folder / "dataset")
    from components.shared.training.backend import start_backend

    start_backend()
    from components.shared.training.inputs import load_encoder
    from models.classifier import predict

    network = load_encoder(next(options.folder.glob("encoder-*")), data)
    rows = np.random.default_rng(0).permutation(len(data.labels("test")))
    images, labels = np.asarray(data.images("test")), data.labels("test")
    before, now = images[rows[:MOST]], rows[MOST:]
    known = predict(network, before)
    found: dict[str, dict[str, float]] = {}

    def tell(name: str, others: np.ndarray, reference: np.ndarray = known) -> None:
        moved = FeatureDrift("test", *discrepancy(reference, predict(network, others)))
        found[name] = {"distance": round(moved.distance, 6), "times_chance": round(moved.times, 2)}
        print(name, found[name], flush=True)

    for name, change in CHANGES.items():
        tell(name, change(images[now[:MOST]]))
    # one class instead of a tenth of the images a fifth, and half
    for share in (0.2, 0.5):
        of_class, others = now[labels[now] == 0], now[labels[now] != 0]
        count = min(int(share * MOST), len(of_class))
        tell(f"one class {share:.0%} of the images", images[np.r_[of_class[:count], others[: MOST - count]]])
    with Folder(options.photos, data.manifest.image_size) as source:
        flowers = np.stack([picture.pixels for picture in source.images("train")])
    chosen = np.random.default_rng(0).permutation(len(flowers))[:MOST]
    tell("photographs of flowers", flowers[chosen])
    tell("100 images of each, none changed", images[now[:100]], known[:100])
    tell("100 images of each, half as bright", _scaled(0.5)(images[now[:100]]), known[:100])
    if options.out:
        result = {"images": MOST, "warning": WARNING, "changes": found}
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
