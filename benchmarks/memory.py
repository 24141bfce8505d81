"""Peak memory of a pretraining step by encoder, batch and sub-batch, each in a process of its own.

    python -m benchmarks.memory
    python -m benchmarks.memory --encoders resnet18 --batches 512 --sub-batches 0 128 --precision bfloat16

SimCLR on random images of 32 px. `at rest` is the process with the network built, before the first step; `step` is
what the peak is above that. A sub-batch of 0 is the whole batch at once.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

SIZE, STEPS = 32, 2
ENCODERS = {
    "conv": ("encoder=conv", "encoder.width=128"),
    "fast": ("encoder=fast", "encoder.width=24"),
    "resnet18": ("encoder=resnet18",),
}


def peak_mib() -> float:
    """Of this process so far; Linux's, in KiB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def one(encoder: str, batch: int, sub_batch: int, precision: str) -> dict[str, float]:
    """Train some steps here."""
    from components.shared.training.backend import start_backend

    start_backend()
    import numpy as np

    from components.shared.params.composing import compose_params
    from components.shared.training.memory import step_bytes
    from models import encoders, methods, optimizers, training
    from models.encoders.shared.normalization import pixel_statistics
    from models.kernels import fuse

    params, _ = compose_params(["method=simclr", *ENCODERS[encoder]])
    images = np.random.default_rng(0).integers(0, 256, (batch, SIZE, SIZE, 3), "uint8")
    parts = batch // sub_batch if sub_batch else 1
    statistics = pixel_statistics([images]) if params.encoder.normalization == "statistics" else None
    with training.precision(precision):
        network = encoders.build(params.encoder, SIZE, statistics)
        model = methods.build(network, params.method, 10, seed=0, sub_batches=parts)
    fuse(model)
    model.compile(optimizer=optimizers.build(params.method.optimizer, 100, 100), jit_compile=training.jit())
    model.optimizer.build(model.trainable_variables)
    expected = step_bytes(model, images.shape[1:], batch, parts) / 2**20
    at_rest, start = peak_mib(), time.perf_counter()
    for _ in range(STEPS):
        model.train_on_batch(images, np.full(batch, -1))
    step = peak_mib() - at_rest
    return {"at rest": at_rest, "step": step, "expected": expected, "seconds": time.perf_counter() - start}


def main() -> None:
    """Measure, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="+", default=["conv"], choices=list(ENCODERS))
    parser.add_argument("--batches", nargs="+", type=int, default=[512, 4096])
    parser.add_argument("--sub-batches", nargs="+", type=int, default=[0, 512])
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(**json.loads(options.one))))
        return
    print("| encoder | batch | sub-batch | at rest, MiB | step, MiB | expected, MiB |", "|---" * 6 + "|", sep="\n")
    for encoder, batch, sub_batch in product(options.encoders, options.batches, options.sub_batches):
        if sub_batch >= batch:
            continue
        asked = {"encoder": encoder, "batch": batch, "sub_batch": sub_batch, "precision": options.precision}
        command = [sys.executable, "-m", "benchmarks.memory", "--one", json.dumps(asked)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            print(f"| {encoder} | {batch} | {sub_batch} | ended with exit code {done.returncode} |||", flush=True)
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        cells = [f"{found[name]:,.0f}" for name in ("at rest", "step", "expected")]
        print(f"| {encoder} | {batch:,} | {sub_batch or '–'} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
