"""Images per second of SimCLR pretraining: ours, the recipe written plainly in Keras, and lightly, in turn.

    python -m benchmarks.speed --out speed.json
    python -m benchmarks.speed --works conv-32 resnet18-32 --rounds 5 --seconds 10
    python -m benchmarks.speed --what augmentation
    python -m benchmarks.speed --what overhead

Each contender is a process that waits for its turn: a round asks all of them for as many steps as take some
seconds. Printed are the medians over the rounds, and the ratio to the first contender round by round. Images are
random and in memory, two views each. `augmentation` makes the views and trains nothing; `overhead` trains a network
that costs nothing: milliseconds a step, the start of `fit` shared out among them. lightly gets an environment of
its own (some 5 GB, made once, with pip); `--without lightly` does without.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.speed.turns import MARK
from components.shared.errors import UserError

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "contrastive-benchmarks" / "lightly"
PACKAGES = ("lightly==1.6.0", "torch", "torchvision")
TINY = (
    *("encoder=conv", "encoder.width=4", "augmentation=photographs", "method.augmentation.crop_area=[1,1]"),
    *("method.augmentation.jitter_probability=0", "method.augmentation.grey_probability=0"),
)


@dataclass(frozen=True)
class Work:
    """A network, a size and a batch, and our options for it beside `simclr`."""

    encoder: str
    size: int
    batch: int
    overrides: tuple[str, ...]
    width: int = 128


WORKS = {
    "conv-32": Work("conv", 32, 525, ("preset=simclr-keras", "data.image_size=32")),
    "conv-96": Work("conv", 96, 200, ("preset=simclr-keras",)),
    "resnet18-32": Work("resnet18", 32, 128, ("encoder=resnet18", "augmentation=photographs")),
    "fast-32": Work("fast", 32, 256, ("encoder=fast", "encoder.width=48", "augmentation=photographs")),
    "fast-96": Work("fast", 96, 64, ("encoder=fast", "encoder.width=48", "augmentation=photographs")),
}
TINY_WORK = Work("conv", 32, 32, TINY, 4)


@dataclass(frozen=True)
class Contender:
    """A program and what it is told; `backend` is Keras's."""

    name: str
    program: str
    encoders: tuple[str, ...]
    precision: str = "float32"
    backend: str = "tensorflow"
    views: bool = True


CONV, ANY = ("conv",), ("conv", "fast", "resnet18")
CONTENDERS = (
    Contender("recipe", "recipe", CONV),
    Contender("lightly f32", "lightly_contender", ("conv", "resnet18")),
    Contender("lightly bf16", "lightly_contender", ("conv", "resnet18"), "bfloat16"),
    Contender("lightly bf16, no views", "lightly_contender", ("conv", "resnet18"), "bfloat16", views=False),
    Contender("ours f32", "ours", ANY),
    Contender("ours bf16", "ours", ANY, "bfloat16"),
    Contender("ours f32, JAX", "ours", ANY, backend="jax"),
    Contender("ours bf16, JAX", "ours", ANY, "bfloat16", backend="jax"),
)


class Process:
    """A contender that waits for its turn."""

    def __init__(self, contender: Contender, work: Work, what: str, rows: int, threads: int, python: str):
        self.contender, self.rows, self.batch = contender, rows, work.batch
        asked = {
            **asdict(work),
            "what": what,
            "rows": rows,
            "precision": contender.precision,
            "views": contender.views,
            "workers": threads,
            "overrides": [*work.overrides, f"runtime.precision={contender.precision}"],
        }
        environment = {**os.environ, "KERAS_BACKEND": contender.backend, "PYTHONPATH": str(Path.cwd())}
        environment |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "1"}
        command = [python, "-m", f"benchmarks.speed.{contender.program}", json.dumps(asked)]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()

    def turn(self, steps: int) -> dict[str, Any]:
        """Train so many steps; what it took."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return {"steps": steps, **self._answer()}

    def _answer(self) -> dict[str, Any]:
        for line in self.process.stdout or ():
            if line.startswith(MARK):
                found: dict[str, Any] = json.loads(line.removeprefix(MARK))
                return found
        raise UserError(f"{self.contender.name}: ended with exit code {self.process.wait()}; see above")

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


def lightly_python(folder: Path) -> str:
    """The interpreter of lightly's environment, which is made where it is not there yet."""
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        print(f"making lightly's environment in {folder}: {' '.join(PACKAGES)}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        (folder / "complete").touch()
    return str(python)


def measure(
    work: Work, what: str, contenders: Sequence[Contender], rounds: int, seconds: float, threads: int, env: Path
) -> list[dict[str, Any]]:
    """All contenders in turn, round by round: a row for each."""
    rows = 40 * work.batch
    with ExitStack() as stack:
        ready, steps = [], {}
        for contender in contenders:
            python = lightly_python(env) if contender.program == "lightly_contender" else sys.executable
            process = stack.enter_context(Process(contender, work, what, rows, threads, python))
            # a turn that warms up, and tells how many steps fill one
            first = process.turn(4)
            steps[contender.name] = max(2, min(40, round(seconds * 4 / first["seconds"])))
            ready.append(process)
        turns: dict[str, list[dict[str, Any]]] = {process.contender.name: [] for process in ready}
        for _ in range(rounds):
            for process in ready:
                name = process.contender.name
                turns[name].append(process.turn(steps[name]))
    reference = [_rate(turn, work) for turn in turns[contenders[0].name]]
    found = []
    for contender in contenders:
        rates = [_rate(turn, work) for turn in turns[contender.name]]
        ratios = [rate / against for rate, against in zip(rates, reference, strict=True)]
        found.append(
            {
                "contender": contender.name,
                "images_per_second": statistics.median(rates),
                "range": [min(rates), max(rates)],
                "ratio": statistics.median(ratios),
                "ratio_range": [min(ratios), max(ratios)],
                "milliseconds_a_step": 1000 * work.batch / statistics.median(rates),
                "cores": statistics.median(t["cpu_seconds"] / t["seconds"] for t in turns[contender.name]),
                "peak_mib": max(turn["peak_mib"] for turn in turns[contender.name]),
                "rates": rates,
            }
        )
    return found


def _rate(turn: dict[str, Any], work: Work) -> float:
    return float(turn["steps"] * work.batch / turn["seconds"])


def table(name: str, rows: list[dict[str, Any]]) -> list[str]:
    """A line for each contender."""
    against = rows[0]["contender"]
    found = [f"| {name} | images/s | range | × {against} | range | ms a step | cores | MiB |", "|" + "---|" * 8]
    for row in rows:
        (low, high), (least, most) = row["range"], row["ratio_range"]
        cells = [
            *(row["contender"], f"{row['images_per_second']:,.0f}", f"{low:,.0f}–{high:,.0f}"),
            *(f"{row['ratio']:.2f}", f"{least:.2f}–{most:.2f}", f"{row['milliseconds_a_step']:.1f}"),
            *(f"{row['cores']:.1f}", f"{row['peak_mib']:,.0f}"),
        ]
        found.append(f"| {' | '.join(cells)} |")
    return found


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    values = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in lines}
    flags = values.get("flags", "").split()
    return {
        "processor": values.get("model name", platform.processor()),
        "cores": os.cpu_count(),
        "half_precision": [flag for flag in ("amx_bf16", "avx512_bf16") if flag in flags],
        "python": platform.python_version(),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=["pretraining", "augmentation", "overhead"], default="pretraining")
    parser.add_argument("--works", nargs="+", default=["conv-32", "conv-96", "resnet18-32"], choices=list(WORKS))
    parser.add_argument("--contenders", nargs="+", choices=[c.name for c in CONTENDERS], help="default: all")
    parser.add_argument("--without", nargs="*", default=[], choices=["recipe", "lightly", "JAX"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of a turn, about; default: 5")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of lightly's loader")
    parser.add_argument("--lightly", type=Path, default=CACHE, help="folder of lightly's environment")
    parser.add_argument("--out", type=Path, help="write the numbers here as JSON")
    options = parser.parse_args()
    found: dict[str, Any] = {"command": " ".join(["python -m benchmarks.speed", *sys.argv[1:]]), **machine()}
    works = {"tiny": TINY_WORK} if options.what == "overhead" else {name: WORKS[name] for name in options.works}
    for name, work in works.items():
        chosen = [
            contender
            for contender in CONTENDERS
            if work.encoder in contender.encoders
            and (options.contenders is None or contender.name in options.contenders)
            and not any(word in contender.name for word in options.without)
        ]
        if options.what == "augmentation":
            chosen = [c for c in chosen if c.backend == "tensorflow" and c.precision == "float32"]
        rows = measure(
            work, options.what, chosen, options.rounds, options.seconds, options.threads, options.lightly
        )
        found[name] = rows
        print("\n".join(["", *table(name, rows)]), flush=True)
        if options.out:
            options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
