"""Pretraining on one graphics card with JAX: speed, memory, share of the peak, accuracy, and PyTorch beside it.

What is to be trained is composed here, where the project is installed, together with the images (a folder of
train*.parquet and test*.parquet in the Hugging Face layout; without it they are random):

    python -m benchmarks.gpu --prepare gpu-run --cifar10 DATA/cifar10 --set method.temperature=0.2

The measurements ask for little: JAX with CUDA, NumPy, Pillow and Keras, which needs absl-py, h5py, ml_dtypes,
namex, optree, packaging, rich and typing_extensions. A machine without a network is given the repository, that
folder, and the wheels that it lacks. For one with Python 3.12 that has JAX and PyTorch, but not Keras:

    python -m pip download --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux_2_28_x86_64 \\
        --platform manylinux2014_x86_64 -d gpu-run/wheels keras==3.15.1 optree==0.20.0 namex==0.1.0

and there, in the repository:

    python3 -m pip install -q --no-index --no-deps --target site gpu-run/wheels/*.whl
    PYTHONPATH=site python3 -m benchmarks.gpu --prepared gpu-run --minutes 8

The parts run one after the other, each a process of its own with a share of the time, and are ended with it:

- overhead: milliseconds of a step of a network that costs nothing, by whole epochs and step by step;
- accuracy: a linear probe on the test images after a fixed time of SimCLR, with SGD whose rate follows the clock;
- each method's images a second by batch size, memory, and share of the peak: the products of the networks alone, a
  backward pass counted as two forward ones, over the card's dense bfloat16 peak; and whether an epoch done again
  gives the same weights, bit by bit;
- torch: SimCLR as a user of lightly writes it, with plain equivalents where lightly is not installed.

`--only accuracy --minutes 6` trains for some five of them. `gpu.json` is written after each measurement, into the
folder `--out` (default: that named by OUT, or this one), and the table is printed last. `--quick` tries all of it
on a processor, at sizes that tell nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import math
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.turns import MARK

METHODS = ("simclr", "moco", "byol", "nnclr", "supcon")
BATCHES, QUICK_BATCHES = (512, 256, 1024, 2048, 4096), (16, 32)
BATCH, QUICK_BATCH = 512, 16
SIZE, CLASSES = 32, 10
# dense bfloat16, 10¹² operations a second, by the vendor's datasheet
PEAKS = {"H100": 989.0, "H200": 989.0, "A100": 312.0}
OPTIONS, IMAGES = "options.pickle", "images.npz"
OVERRIDES = ("encoder=resnet18", "augmentation=photographs")
SIMCLR = (
    *("method=simclr", "method.temperature=0.2"),
    *("method.projection.hidden=512", "method.projection.width=128", "method.projection.batch_norm=true"),
)
# share of the time, and the least of it (seconds) that a part is begun with; what one leaves, those after it have
PARTS = {
    "overhead": (0.10, 20),
    "simclr": (0.22, 60),
    "accuracy": (0.42, 60),
    "torch": (0.10, 30),
    **{name: (0.04, 45) for name in METHODS[1:]},
}


def prepare(folder: Path, source: Path | None, overrides: Sequence[str]) -> None:
    """Write what is to be trained, and the images as the files they are: decoded they are ten times as large."""
    from components.shared.params.composing import compose_params

    def composed(*more: str) -> Any:
        return compose_params([*OVERRIDES, *more])[0]

    folder.mkdir(parents=True, exist_ok=True)
    options = {
        "encoder": composed().encoder,
        "tiny": composed("encoder=conv", "encoder.width=4").encoder,
        "methods": {name: composed(f"method={name}").method for name in METHODS},
    }
    options["methods"]["simclr"] = composed(*SIMCLR, *overrides).method
    (folder / OPTIONS).write_bytes(pickle.dumps(options))
    if source is None:
        return
    import pyarrow.parquet as pq

    arrays = {}
    for split in ("train", "test"):
        table = pq.read_table(sorted(source.glob(f"{split}*.parquet"))[0])
        files = [row["bytes"] for row in table["image"].to_pylist()]
        arrays[f"{split}_files"] = np.frombuffer(b"".join(files), "uint8")
        arrays[f"{split}_ends"] = np.cumsum([len(file) for file in files])
        arrays[f"{split}_labels"] = np.array(table["label"].to_pylist(), "int64")
    # the files' headers are all alike
    np.savez_compressed(folder / IMAGES, **arrays)


def images_of(folder: Path, quick: bool) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Split → images uint8 (N, 32, 32, 3) and labels int64 (N,); random ones where none were prepared."""
    if quick or not (folder / IMAGES).exists():
        rng, sizes = np.random.default_rng(0), {"train": 50_000, "test": 10_000}
        return {
            split: (rng.integers(0, 256, (rows, SIZE, SIZE, 3), "uint8"), rng.integers(0, CLASSES, rows))
            for split, rows in ({"train": 96, "test": 32} if quick else sizes).items()
        }
    from PIL import Image

    def decoded(file: bytes) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))

    found = {}
    with np.load(folder / IMAGES) as kept, ThreadPoolExecutor() as pool:
        for split in ("train", "test"):
            files, ends = kept[f"{split}_files"].tobytes(), kept[f"{split}_ends"].tolist()
            each = [files[start:end] for start, end in zip([0, *ends], ends, strict=False)]
            found[split] = np.stack(list(pool.map(decoded, each, chunksize=500))), kept[f"{split}_labels"]
    return found


class Part:
    """What a process that measures a part knows; Keras and JAX are imported in it alone."""

    def __init__(self, name: str, prepared: Path, seconds: float, quick: bool):
        os.environ["KERAS_BACKEND"] = "jax"
        self.name, self.quick, self.end = name, quick, time.perf_counter() + seconds
        self.options = pickle.loads((prepared / OPTIONS).read_bytes())
        self.prepared = prepared
        self.batch = QUICK_BATCH if quick else BATCH

    @property
    def left(self) -> float:
        """Seconds of the part's time."""
        return self.end - time.perf_counter()

    def say(self, **found: Any) -> None:
        """Hand a measurement to the process that asked for it."""
        print(f"{MARK}{json.dumps({'part': self.name, **found})}", flush=True)

    def run(self) -> None:
        """Measure, and say so."""
        if self.name == "torch":
            self.torch()
            return
        # as its many steps: the epochs of another part are not compiled again
        import jax

        jax.config.update("jax_compilation_cache_dir", str(self.prepared / "compiled"))
        if self.quick:
            from models import batches

            # as on a card, on whatever is here
            batches.fits_on_card = lambda batches: True
        self.data = images_of(self.prepared, self.quick)
        known = {"device": str(jax.devices()[0].device_kind), "jax": jax.__version__}
        if self.name == "overhead":
            self.say(**known)
        {"overhead": self.overhead, "accuracy": self.accuracy}.get(self.name, self.throughput)()

    def model(self, options: Any, tiny: bool = False) -> Any:
        """A method, compiled as the pipeline does."""
        import keras

        from models import encoders, methods, optimizers
        from models.kernels import fuse
        from models.training import jit, precision

        keras.utils.set_random_seed(0)
        with precision("bfloat16"):
            encoder = encoders.build(self.options["tiny" if tiny or self.quick else "encoder"], SIZE)
            model = methods.build(encoder, options, CLASSES, 0, 10_000)
        fuse(model)
        optimizer = keras.optimizers.SGD(0.06, momentum=0.9, weight_decay=5e-3)
        optimizers.exclude_vectors(optimizer, model.trainable_variables)
        model.compile(optimizer=optimizer, jit_compile=jit())
        optimizer.build(model.trainable_variables)
        return model

    def fit(
        self,
        model: Any,
        batch: int,
        on_epoch: Callable[[int, float], bool],
        whole: bool = True,
        rate: Callable[[], float] | None = None,
    ) -> Any:
        """Train until `on_epoch`, told the epoch and its images a second, says that it is enough."""
        import keras

        from models.batches import Batches, feed
        from models.training import EpochPace, EpochSeed, StopOnNaN

        batches = Batches([self.data["train"]], batch, 0)

        def begin(epoch: int, logs: Any) -> None:
            if rate is not None:
                model.optimizer.learning_rate = rate()

        def end(epoch: int, logs: Any) -> None:
            model.stop_training = on_epoch(epoch, logs["images_per_second"])

        ours = keras.callbacks.LambdaCallback(on_epoch_begin=begin, on_epoch_end=end)
        return model.fit(
            **feed(batches, whole_epochs=whole), epochs=100_000, verbose=0,
            callbacks=[EpochSeed(0, batches), EpochPace(batches.images), StopOnNaN(), ours],
        )  # fmt: skip

    def rates(self, model: Any, batch: int, seconds: float, whole: bool = True) -> tuple[float, float, list[float]]:
        """Seconds of the first epoch, which compiles; images a second, median; of each later epoch."""
        rates: list[float] = []
        began, first = time.perf_counter(), 0.0

        def on_epoch(epoch: int, rate: float) -> bool:
            nonlocal began, first
            if not epoch:
                first, began = time.perf_counter() - began, time.perf_counter()
                return False
            rates.append(rate)
            return len(rates) >= 2 and (time.perf_counter() - began > seconds or self.left < seconds)

        self.fit(model, batch, on_epoch, whole)
        return first, float(np.median(rates)), rates

    def overhead(self) -> None:
        """With a network of a few thousand operations there is little but what surrounds a step."""
        for whole in (True, False):
            model = self.model(self.options["methods"]["simclr"], tiny=True)
            first, rate, _ = self.rates(model, self.batch, 0.2 if self.quick else 3, whole)
            way = "whole epochs" if whole else "step by step"
            self.say(what=way, batch=self.batch, first_seconds=first, milliseconds_a_step=1000 * self.batch / rate)

    def throughput(self) -> None:
        """The method this part is named by, by batch size; of one other than SimCLR the first one only."""
        import jax

        options, seconds = self.options["methods"][self.name], 0.2 if self.quick else 3
        batches = QUICK_BATCHES if self.quick else BATCHES
        slowest = 0.0
        for batch in batches if self.name == "simclr" else batches[:1]:
            # the time that the one before took to compile
            if self.left < slowest + seconds:
                break
            began = time.perf_counter()
            model = self.model(options)
            try:
                start = [np.asarray(variable) for variable in model.variables + model.optimizer.variables]
                first, rate, every = self.rates(model, batch, seconds)
            except jax.errors.JaxRuntimeError as error:
                self.say(batch=batch, error=str(error).splitlines()[0][:200])
                continue
            stats = jax.devices()[0].memory_stats() or {}
            self.say(
                batch=batch, images_per_second=rate, rates=every, first_seconds=first,
                tflops=rate * step_operations(model) / 1e12,
                peak_mib=stats.get("peak_bytes_in_use", 0) / 2**20,
            )  # fmt: skip
            if batch == batches[0]:
                self.say(what="the same epoch twice", batch=batch, same=self.repeats(model, batch, start))
            slowest = max(slowest, time.perf_counter() - began)

    def repeats(self, model: Any, batch: int, start: list[np.ndarray]) -> bool:
        """Whether an epoch from the same state ends in the same state, bit by bit."""
        ends = []
        for _ in range(2):
            for variable, value in zip(model.variables + model.optimizer.variables, start, strict=True):
                variable.assign(value)
            self.fit(model, batch, lambda epoch, rate: True)
            ends.append([np.asarray(variable) for variable in model.variables])
        return all(np.array_equal(one, other) for one, other in zip(*ends, strict=True))

    def accuracy(self) -> None:
        """SGD for a fixed time; half a cosine by the clock, after a thirtieth of it to warm up."""
        import keras

        from models.classifier import predict
        from models.probes import fit_linear_probe

        model = self.model(self.options["methods"]["simclr"])
        highest = 0.06 * self.batch / 128
        # what is left for the probe
        began, seconds, epochs = 0.0, max(1.0, self.left - (10 if self.quick else 60)), 0
        if self.quick:
            seconds = 2.0

        def done() -> float:
            return (time.perf_counter() - began) / seconds if began else 0.0

        def rate() -> float:
            return highest * min(1.0, 0.001 + 30 * done()) * 0.5 * (1 + math.cos(math.pi * min(1.0, done())))

        def on_epoch(epoch: int, _: float) -> bool:
            nonlocal began, seconds, epochs
            epochs = epoch + 1
            if not epoch:
                # the first one compiles, and is short of the time that is left
                began, seconds = time.perf_counter(), min(seconds, max(1.0, self.left - 40))
            return done() >= 1

        history = self.fit(model, self.batch, on_epoch, rate=rate).history
        trained = time.perf_counter() - began
        pixels = keras.Input((SIZE, SIZE, 3), dtype="uint8")
        features = model.encoder(keras.layers.Rescaling(1 / 255, dtype="float32")(pixels), training=False)
        network = keras.Model(pixels, features)
        (train, labels), (test, answers) = self.data["train"], self.data["test"]
        known = predict(network, train, self.batch)
        probe = fit_linear_probe(known, labels, CLASSES, 1e-4, 10 if self.quick else 200, 0)
        found = probe.probabilities(predict(network, test, self.batch)).argmax(axis=1)
        self.say(
            what="linear probe on test", batch=self.batch, seconds=trained, epochs=epochs,
            accuracy=float((found == answers).mean()), online_probe_on_train=history["probe_accuracy"][-1],
            images_per_second=(epochs - 1) * (len(train) // self.batch) * self.batch / trained,
        )  # fmt: skip

    def torch(self) -> None:
        """The contender of `benchmarks.speed`; its loader has all cores."""
        if importlib.util.find_spec("torch") is None:
            self.say(what="PyTorch is not installed")
            return
        from benchmarks.speed.__main__ import Contender, Process, Work

        lightly = "lightly" if importlib.util.find_spec("lightly") else "plain PyTorch"
        work = Work("conv" if self.quick else "resnet18", SIZE, self.batch, (), 4)
        contender = Contender(lightly, "lightly_contender", (work.encoder,), "bfloat16")
        workers = 1 if self.quick else os.cpu_count() or 1
        with Process(contender, work, "pretraining", 40 * self.batch, workers, sys.executable) as process:
            process.turn(4)
            turn = process.turn(4 if self.quick else 40)
        rate = turn["steps"] * self.batch / turn["seconds"]
        self.say(what=lightly, batch=self.batch, images_per_second=rate, workers=workers)


def step_operations(model: Any) -> float:
    """Floating-point operations of the networks for an image of a training step, a multiply-add as two."""
    trained = forward_operations(model.encoder) + forward_operations(model.projection_head)
    if getattr(model, "prediction_head", None) is not None:
        trained += forward_operations(model.prediction_head)
    # momentum networks only go forwards
    copies = [getattr(model, name) for name in ("target_encoder", "target_head") if hasattr(model, name)]
    return float(model.views * (3 * trained + sum(map(forward_operations, copies))))


def forward_operations(network: Any) -> float:
    """Those of an image through the convolutions and dense layers of a network; the rest is little beside them."""
    total = 0.0
    for layer in network.layers:
        if hasattr(layer, "layers"):
            total += forward_operations(layer)
        elif hasattr(layer, "kernel"):
            total += 2.0 * math.prod(layer.output.shape[1:-1]) * math.prod(layer.kernel.shape)
    return total


def measured(command: Sequence[str], seconds: float, log: Any) -> Iterator[dict[str, Any]]:
    """What a process says, as it says it, until it ends or has had its time."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        for line in process.stdout or ():
            if line.startswith(MARK):
                yield json.loads(line.removeprefix(MARK))
        code = process.wait()
    finally:
        timer.cancel()
        process.kill()
    if code:
        yield {"error": "out of time" if code < 0 else f"exit code {code}; see gpu.log"}


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each measurement."""
    peak = next((peak for row in rows for name, peak in PEAKS.items() if name in row.get("device", "")), None)
    found = ["| part | what | batch | images/s | ms a step | of peak | MiB | else |", "|" + "---|" * 8]
    for row in rows:
        rate = row.get("images_per_second")
        step = row.get("milliseconds_a_step", 1000 * row["batch"] / rate if rate else None)
        more = [f"{name} {row[name]}" for name in ("device", "jax", "same", "epochs", "error") if name in row]
        more += [f"{name} {row[name]:.4g}" for name in ("first_seconds", "seconds", "accuracy") if name in row]
        cells = [
            *(row["part"], row.get("what", ""), f"{row.get('batch', '')}", f"{rate:,.0f}" if rate else ""),
            f"{step:.3g}" if step else "",
            f"{row['tflops'] / peak:.1%}" if peak and "tflops" in row else "",
            f"{row['peak_mib']:,.0f}" if row.get("peak_mib") else "",
            ", ".join(more),
        ]
        found.append(f"| {' | '.join(cells)} |")
    return found


def main() -> None:
    """Prepare, measure all, or measure one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", type=Path, metavar="FOLDER", help="write options and images there, and end")
    parser.add_argument("--cifar10", type=Path, help="of --prepare: folder of the images")
    parser.add_argument(
        "--set", nargs="*", default=[], help="of --prepare: more options of the accuracy's training"
    )
    parser.add_argument("--prepared", type=Path, metavar="FOLDER", help="what --prepare wrote")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all; default: 8")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="parts; default: all")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")))
    parser.add_argument("--quick", action="store_true", help="tiny sizes, a minute or two on a processor")
    parser.add_argument("--part", nargs=2, metavar=("NAME", "SECONDS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.prepare:
        prepare(options.prepare, options.cifar10, options.set)
        return
    if options.prepared is None or not (options.prepared / OPTIONS).exists():
        raise SystemExit(f"error: --prepared {options.prepared}: no {OPTIONS} there; make it with --prepare")
    if options.part:
        Part(options.part[0], options.prepared, float(options.part[1]), options.quick).run()
        return
    options.out.mkdir(parents=True, exist_ok=True)
    total, began, rows = 60 * options.minutes, time.perf_counter(), []
    shares = sum(PARTS[name][0] for name in options.only)
    with (options.out / "gpu.log").open("w") as log:
        for name in options.only:
            share, least = PARTS[name]
            left = total - (time.perf_counter() - began)
            seconds = min(left, max(least, left * share / shares))
            shares -= share
            command = [sys.executable, "-m", "benchmarks.gpu", "--prepared", str(options.prepared)]
            command += ["--part", name, str(seconds - 5), *(["--quick"] if options.quick else [])]
            answers = measured(command, seconds, log) if left >= least else [{"error": "no time was left"}]
            for answer in answers:
                rows.append({"part": name, **answer})
                print(json.dumps(rows[-1]), flush=True)
                (options.out / "gpu.json").write_text(json.dumps(rows, indent=1) + "\n")
    print("\n".join(["", *table(rows)]))


if __name__ == "__main__":
    main()
