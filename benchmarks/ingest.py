"""Ingest beside a plain Pillow loop: seconds, processor seconds and peak memory, and what hostile sizes take.

Each line is a process of its own, so that each has its own peak. `loop` is what anyone would write: open, convert
to RGB, resize, write to one file; one thread. `read` is what the ingest step does with the same files, on all
processors: besides it looks for bad ones, and hashes each file and each image's pixels. `ingest` is the whole step:
besides it splits, tracks and draws (near-copies have a benchmark of their own).

Reading is 1.7 times as fast as the loop on two cores (median of three turns), the whole step as fast: the search
for copies, a digest of what was written, a tracking database and the imports of its libraries are in it. The first
try of the loop may read from the disk what all others find in memory.

    nice python -m benchmarks.ingest /tmp/ingest --images 113000 --out benchmarks/results/<date>-cpu-ingest.json
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from components.shared.params.composing import compose_params, write_params

SIDE, CLASSES, TRIES = 96, 10, 3
LOOP = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image
size = int(sys.argv[2])
with open(sys.argv[3], "wb") as out:
    for path in sorted(Path(sys.argv[1]).rglob("*.*")):
        with Image.open(path) as image:
            out.write(np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)).tobytes())
"""
READ = """
import sys
from pathlib import Path
from components.shared.sources.folder import Folder
from components.shared.sources.pixels import Picture
with open(sys.argv[3], "wb") as out, Folder(Path(sys.argv[1]), int(sys.argv[2])) as source:
    for found in source.images("train"):
        if isinstance(found, Picture):
            out.write(found.pixels.data)
        else:
            print(found, file=sys.stderr)
    source.digest()
"""
INGEST = """
import runpy, sys
sys.argv = ["ingest", "--params", sys.argv[1], "--out", sys.argv[2]]
runpy.run_module("components.ingest", run_name="__main__")
"""


def measured(program: str, *arguments: str) -> dict[str, float | str]:
    """Run a program of Python's; its seconds, those of the processor, its peak memory, and its last line."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    # not `ru_maxrss`, which begins with the size of the process that started this one
    watch = (
        "import sys; code = sys.argv.pop(1)\n"
        "try: exec(code)\n"
        "finally: print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
    )
    command = [sys.executable, "-c", watch, program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = [line for line in done.stderr.splitlines() if line.strip()]
    return {
        "seconds": round(time.monotonic() - start, 1),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "peak_mib": int(done.stdout.split()[-1]) >> 10,
        "said": (said[-1] if said else "")[:300],
    }


def ingest(folder: Path, path: Path, *overrides: str) -> dict[str, float | str]:
    """Run the step as DVC does."""
    write_params(compose_params(["data=folder", f"data.path={path}", *overrides])[1], folder / "params.yaml")
    found = measured(INGEST, str(folder / "params.yaml"), str(folder / "dataset"))
    return {**found, "said": str(found["said"]).replace(f"{folder}/", "")}


def write_jpegs(root: Path, count: int) -> None:
    """So many JPEGs of 96 px, no two alike."""
    rng = np.random.default_rng(0)
    for index in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8))
        path = root / f"{index % CLASSES}/{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path, quality=90)


def few(root: Path) -> Path:
    """Two classes of small images, beside which large ones are put."""
    write_jpegs(root, 40)
    for name in range(2, CLASSES):
        shutil.rmtree(root / str(name))
    for name in "01":
        for index in range(20):
            Image.fromarray(np.random.default_rng([int(name), index]).integers(0, 256, (40, 40, 3), np.uint8)).save(
                root / name / f"small {index}.png"
            )
    return root


def write_png(path: Path, width: int, height: int, channels: int) -> None:
    """A large PNG, written row by row."""
    packer = zlib.compressobj(1)
    row = b"\0" + bytes(range(256)) * (-(-width * channels // 256))
    row = row[: 1 + width * channels]
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, {3: 2, 4: 6}[channels], 0, 0, 0)
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for name, content in ((b"IHDR", head), (b"IDAT", packed), (b"IEND", b"")):
            file.write(struct.pack(">I", len(content)) + name + content)
            file.write(struct.pack(">I", zlib.crc32(name + content)))


def hostile(folder: Path) -> Iterator[tuple[str, Path]]:
    """Sources of hostile sizes, each written and, when the next one is asked for, removed."""

    def sparse(root: Path) -> Path:
        with (few(root) / "0/sparse.jpg").open("wb") as file:
            file.truncate(3 << 30)
        return root

    def large(root: Path) -> Path:
        few(root)
        for index in range(2):
            write_png(root / f"0/large {index}.png", 13_000, 13_000, 4)
        return root

    def photographs(root: Path) -> Path:
        few(root)
        for index in range(40):
            write_png(root / f"{index % 2}/photograph {index}.png", 6000, 4000, 3)
        return root

    def zipped(root: Path) -> Path:
        path = root.with_suffix(".zip")
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in few(root).rglob("*.*"):
                archive.write(file, file.relative_to(root))
            with archive.open("0/zeros.jpg", "w", force_zip64=True) as member:
                for _ in range(2048):
                    member.write(bytes(1 << 20))
        return path

    cases: dict[str, Callable[[Path], Path]] = {
        "a sparse file of 3 GiB": sparse,
        "two RGBA of 13,000²": large,
        "40 PNGs of 24 MP": photographs,
        "a zip member of 2 GiB": zipped,
    }
    for name, make in cases.items():
        root = folder / "hostile"
        yield name, make(root)
        shutil.rmtree(root)
        root.with_suffix(".zip").unlink(missing_ok=True)


def main() -> None:
    """Measure, and print as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for the images; is written")
    parser.add_argument("--images", type=int, default=113_000)
    parser.add_argument("--tries", type=int, default=TRIES, help="of which the fastest counts")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    folder: Path = options.folder
    tree, out = folder / f"jpegs-{options.images}", folder / "out"
    found: dict[str, object] = {"images": options.images, "cores": os.cpu_count(), "load": os.getloadavg()[0]}

    def tell(name: str, what: object) -> None:
        found[name] = what
        print(name, json.dumps(what), flush=True)
        if options.out:
            options.out.write_text(json.dumps(found, indent=2) + "\n")

    if not tree.exists():
        write_jpegs(tree, options.images)

    def whole() -> dict[str, float | str]:
        return ingest(folder, tree, f"data.image_size={SIDE}", "data.near_copies=keep")

    runs: dict[str, Callable[[], dict[str, float | str]]] = {
        "loop": lambda: measured(LOOP, str(tree), str(SIDE), str(out)),
        "read": lambda: measured(READ, str(tree), str(SIDE), str(out)),
        "ingest": whole,
    }
    # in turn, so that whatever else the machine does slows all of them
    tries = [{name: run() for name, run in runs.items()} for _ in range(options.tries)]
    for name in runs:
        times = [one[name]["seconds"] for one in tries]
        tell(name, {**min((one[name] for one in tries), key=lambda one: one["seconds"]), "tries": times})
    for name in ("read", "ingest"):
        tell(f"{name}_times_as_fast", [round(one["loop"]["seconds"] / one[name]["seconds"], 2) for one in tries])
    out.unlink()
    for name, path in hostile(folder):
        tell(name, ingest(folder, path, "data.image_size=32", "data.on_bad_image=skip"))


if __name__ == "__main__":
    main()
