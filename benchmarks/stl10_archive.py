"""An archive of STL-10's full size and format, made up, through the reader of TensorFlow Datasets: seconds, memory.

113,000 images of 96 px in the authors' layout, 3.1 GB of pixels, noise on ramps. The archive is gzip's format
without its packing, which would take longest and is not what is measured. Each phase is a process of its own, so
that each has its own peak.

    nice -n 19 python -m benchmarks.stl10_archive /tmp/stl10 benchmarks/results/<date>-cpu-stl10-archive.json
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np

SIDE, CHUNK = 96, 500
COUNTS = {"train": 5000, "test": 8000, "unlabeled": 100_000}
CLASSES = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]
NAME = "stl10_binary.tar.gz"


class Pixels(io.RawIOBase):
    """A file of so many made-up images, made as it is read; no two are alike."""

    def __init__(self, count: int, seed: int):
        self._rng, self._left, self._rest = np.random.default_rng(seed), count, b""
        ramps = np.add.outer(np.arange(SIDE), np.arange(SIDE)).astype(np.uint8)
        self._ramps = np.broadcast_to(ramps, (CHUNK, 3, SIDE, SIDE))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        if not self._rest and self._left:
            noise = self._rng.integers(0, 64, self._ramps.shape, np.uint8)
            self._rest, self._left = (self._ramps + noise).tobytes(), self._left - CHUNK
        part, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


def make(folder: Path) -> None:
    """Write the archive."""
    with tarfile.open(folder / NAME, "w:gz", compresslevel=0) as archive:

        def add(name: str, size: int, content) -> None:
            entry = tarfile.TarInfo(f"stl10_binary/{name}")
            entry.size = size
            archive.addfile(entry, content)

        for seed, (split, count) in enumerate(COUNTS.items()):
            pixels = io.BufferedReader(Pixels(count, seed), 1 << 20)
            add(f"{split}_X.bin", count * 3 * SIDE**2, pixels)
            if split != "unlabeled":
                labels = (np.arange(count) % 10 + 1).astype(np.uint8).tobytes()
                add(f"{split}_y.bin", count, io.BytesIO(labels))
        names = "".join(f"{name}\n" for name in CLASSES).encode()
        add("class_names.txt", len(names), io.BytesIO(names))
        folds = "".join(" ".join(map(str, range(400 * f, 400 * f + 1000))) + "\n" for f in range(10)).encode()
        add("fold_indices.txt", len(folds), io.BytesIO(folds))


def read(folder: Path) -> int:
    """Open the source, prepared or not, and read all its images; returns how many."""
    import tensorflow_datasets
    from tensorflow_datasets.core.download.checksums import compute_url_info

    from components.shared.sources.tfds import TensorFlowDataset

    os.environ["TFDS_DATA_DIR"] = str(folder / "cache")
    # let it take this archive for the original one
    infos = tensorflow_datasets.builder("stl10", data_dir=str(folder / "cache")).url_infos
    (url,) = infos
    infos[url] = compute_url_info(folder / NAME)
    source = TensorFlowDataset("stl10", folder, SIDE)
    return sum(1 for split in ("train", "test", "unlabelled") for _ in source.images(split))


def prepare(folder: Path) -> int:
    """As `read`, without reading the images."""
    import components.shared.sources.tfds as tfds

    tfds.TensorFlowDataset.images = lambda self, split: iter(())
    return read(folder)


PHASES = {"make": make, "prepare": prepare, "read": read}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--phase", choices=PHASES)
    given = parser.parse_args()
    if given.phase:
        start = time.perf_counter()
        images = PHASES[given.phase](given.folder)
        used = resource.getrusage(resource.RUSAGE_SELF)
        found = {
            "seconds": round(time.perf_counter() - start, 1),
            "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
            "peak_mib": round(used.ru_maxrss / 1024),
            **({"images": images} if images else {}),
        }
        given.out.write_text(json.dumps(found))
        return
    given.folder.mkdir(parents=True)
    results: dict[str, object] = {"images": sum(COUNTS.values()), "load_at_start": os.getloadavg()[0]}
    for phase in PHASES:
        part = given.folder / f"{phase}.json"
        subprocess.run(
            [sys.executable, "-m", "benchmarks.stl10_archive", given.folder, part, "--phase", phase], check=True
        )
        results[phase] = json.loads(part.read_text())
        results["archive_bytes"] = (given.folder / NAME).stat().st_size
        given.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
