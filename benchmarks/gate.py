"""Does the gate keep its promise? Simulated trainings whose true accuracy is known, judged by the real gate.

    python -m benchmarks.gate --out benchmarks/results/gate.json
    python -m benchmarks.gate --pairs 200

Images are easy or hard for everybody: a training answers an image right with probability Φ(level − a·difficulty),
which makes right answers of two trainings correlate by 0.47 at 70 % accuracy. A training's true accuracy varies
with its seed; probe and fine-tuning of one replicate share what their pretraining adds. Everything from the right
and wrong answers on is the product's own: the choice of the winner, the ledger of looks, the rules. Prints the
tables last, and writes the numbers as JSON. A rate r of m cases wanders by sqrt(r (1 − r) / m): 0.3 points at 5 %
of 5,000.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import bdtrc, ndtr, ndtri, stdtrit

from components.shared.evaluation.evidence import Evidence, Rival, Rivals, Slice
from components.shared.evaluation.gate import Blessing, choose_winner, judge
from components.shared.evaluation.looks import MemoryLedger
from components.shared.evaluation.predictions import Truth
from components.shared.evaluation.rules import rules
from components.shared.evaluation.statistics import gain_bound, look_alpha
from components.shared.params.composing import compose_params
from components.shared.params.schema import GateParams

LEVEL = 0.7
ALPHA = 0.05
# images come in so many difficulties, of a normal distribution with this standard deviation
_LEVELS, _DIFFICULTY = 1024, 1.5
_STEP = 0.0005
_IMAGES = ndtri((np.arange(_LEVELS) + 0.5) / _LEVELS)
# standard deviations of true accuracy, in points: (of a training's seed, of its pretraining)
SPREADS = ((0.5, 0.0), (0.5, 1.0), (1.0, 1.0), (2.0, 0.0), (2.0, 2.5))
TEST_IMAGES = (200, 2_000, 10_000)
REPLICATES = (3, 5, 8)


MODELS = ("baseline", "probe", "finetune")


@dataclass(frozen=True)
class World:
    """Trainings on one kind of data.

    Attributes:
        images: of the test set; there are as many held-out ones, at most 2,000.
        replicates: of each side.
        seed_points: standard deviation of true accuracy between seeds, points.
        pretraining_points: likewise between pretrainings.
        standard_errors: true gain of fine-tuning, in standard errors of the measured gain.
        classes: whose slices are tested.
        both: whether the probe gains as much; else nothing.
    """

    images: int
    replicates: int
    seed_points: float
    pretraining_points: float
    standard_errors: float = 0.0
    classes: int = 10
    both: bool = False

    @cached_property
    def gain(self) -> float:
        """True gain of fine-tuning over the baseline, a fraction."""
        seed, pretraining = self.seed_points / 100, self.pretraining_points / 100
        trainings = (2 * seed**2 + pretraining**2) / self.replicates
        chances = _chances(np.array([LEVEL]))[0]
        answers = 2 * float((chances * (1 - chances)).mean()) / (self.replicates * self.images)
        return self.standard_errors * math.sqrt(trainings + answers)

    def random(self, *numbers: int) -> np.random.Generator:
        """Random numbers of this world's own."""
        spreads = (round(10 * self.seed_points), round(10 * self.pretraining_points))
        return np.random.default_rng([*numbers, self.images, self.replicates, *spreads, self.classes])


def _chances(accuracies: np.ndarray) -> np.ndarray:
    """Probability of a right answer for each difficulty: true accuracies (R,) → (R, `_LEVELS`)."""
    thresholds = ndtri(accuracies) * math.sqrt(1 + _DIFFICULTY**2)
    return ndtr(thresholds[:, None] - _DIFFICULTY * _IMAGES)


@cache
def _table() -> np.ndarray:
    """`_chances` of every accuracy in steps of `_STEP`, in 65,536ths: far finer than anything that is measured."""
    return (_chances(np.arange(1, round(1 / _STEP)) * _STEP) * 65_536).astype(np.uint16)


def draw_images(random: np.random.Generator, images: int) -> np.ndarray:
    """Difficulties of a test set, shape (images,)."""
    return random.integers(0, _LEVELS, images)


def answer(random: np.random.Generator, difficulties: np.ndarray, accuracies: np.ndarray) -> np.ndarray:
    """Right answers of trainings of these true accuracies, bool, shape (R, images)."""
    table = _table()
    rows = table[np.clip(np.rint(accuracies / _STEP).astype(int) - 1, 0, len(table) - 1)]
    drawn = random.integers(0, 65_536, (len(accuracies), len(difficulties)), dtype=np.uint16)
    return drawn < np.take(rows, difficulties, axis=1)


@cache
def gate_options(*overrides: str) -> GateParams:
    """The gate as it is by default, but for a floor that has nothing to do with luck."""
    return compose_params(["gate=default", "gate.min_accuracy=0", *overrides])[0].gate


class Images:
    """Test and held-out images of a world, and the ledger of looks at them."""

    def __init__(self, world: World, random: np.random.Generator) -> None:
        self.world, self.random = world, random
        self.test = draw_images(random, world.images)
        self.held_out = draw_images(random, min(world.images, 2_000))
        labels, self.slices = _classes(world.images, world.classes)
        digests = random.integers(0, 2**64, world.images, dtype=np.uint64)
        names = [part.name for part in self.slices]
        self.truth = Truth("d" * 64, "t" * 64, names, {"test": labels}, digests)
        self.ledger = MemoryLedger()


class Night:
    """Both sides trained once more, with new seeds; answers on test are drawn when they are asked for."""

    def __init__(self, images: Images) -> None:
        world, random = images.world, images.random
        seeds = {name: random.normal(0, world.seed_points / 100, world.replicates) for name in MODELS}
        shared = random.normal(0, world.pretraining_points / 100, world.replicates)
        self.images, self._tested = images, dict[str, np.ndarray]()
        self._true = {
            "baseline": LEVEL + seeds["baseline"],
            "probe": LEVEL + world.gain * world.both + seeds["probe"] + shared,
            "finetune": LEVEL + world.gain + seeds["finetune"] + shared,
        }
        self.held_out = {name: answer(random, images.held_out, true) for name, true in self._true.items()}

    def test(self, name: str) -> np.ndarray:
        """Right answers of a model to the test images, bool, shape (R, images)."""
        if name not in self._tested:
            self._tested[name] = answer(self.images.random, self.images.test, self._true[name])
        return self._tested[name]

    def judge(self, gate: GateParams) -> Blessing:
        """What the gate says; the replicate that answers held-out images best would ship."""
        exported = {name: int(self.held_out[name].mean(axis=1).argmax()) for name in ("probe", "finetune")}
        images = self.images
        return judge(self.held_out, self.test, exported, images.truth, gate, images.ledger, slices=images.slices)


@cache
def _classes(images: int, classes: int) -> tuple[np.ndarray, list[Slice]]:
    labels = np.arange(images) % classes
    return labels, [Slice("class", str(k), np.flatnonzero(labels == k)) for k in range(classes)]


def one_look(world: World, pairs: int, seed: int, look: int = 1) -> dict[str, float]:
    """Rates over pairs of one night each, on test images of their own that have been looked at look − 1 times.

    Returns:
        `bound`: the lower bound of fine-tuning's gain at one-sided 5 %, nobody having chosen, lies above 0;
        `chosen`: that of the winner does; `gate`: the gate promotes where a first look may spend 5 % and any gain
        will do; `night_any_gain`: as it is by default, but any gain will do; `night`: as it is by default;
        `covered`: fine-tuning's true gain is in the 95 % interval, `covered_shown`: in that of this look.
    """
    # undoes what later looks will spend
    whole = gate_options("gate.min_gain=0").model_copy(update={"alpha": ALPHA / look_alpha(1, 1.0)})
    default, any_gain = gate_options(), gate_options("gate.min_gain=0")
    spent = look_alpha(look, ALPHA)
    counts: dict[str, int] = dict.fromkeys(("bound", "chosen", "gate", "night_any_gain", "night"), 0)
    counts |= dict.fromkeys(("covered", "covered_shown"), 0)
    for number in range(pairs):
        night = Night(Images(world, world.random(seed, number)))
        bound = gain_bound(night.test("finetune"), night.test("baseline"), ALPHA)
        counts["bound"] += bound.low > 0
        winner = choose_winner(night.held_out)
        own = bound if winner == "finetune" else gain_bound(night.test(winner), night.test("baseline"), ALPHA)
        counts["chosen"] += own.low > 0
        for name, alpha in (("covered", 0.025), ("covered_shown", spent)):
            reach = float(stdtrit(bound.df, 1 - alpha)) * bound.standard_error
            counts[name] += abs(bound.gain - world.gain) <= reach
        for name, gate in (("gate", whole), ("night_any_gain", any_gain), ("night", default)):
            # each asks more than the one before
            night.images.ledger = MemoryLedger({str(place): (place, {}) for place in range(1, look)})
            if not night.judge(gate).blessed:
                break
            counts[name] += 1
    return {name: count / pairs for name, count in counts.items()}


def nights(world: World, simulations: int, seed: int, number: int = 365) -> dict[str, float]:
    """Rates over years of `number` nights, with new trainings each night and the same test images.

    Returns:
        `month` and `year`: any of the first 30 nights, or of all, promotes, whatever its gain; `first`: the first
        look does, `first_default`: also with the default min_gain; `looks`: mean number of looks until more of them
        are not worth their price.
    """
    counts: dict[str, float] = dict.fromkeys(("month", "year", "first", "first_default", "looks"), 0)
    gate, least = gate_options("gate.min_gain=0"), gate_options().min_gain
    for simulation in range(simulations):
        images, promoted = Images(world, world.random(seed, simulation)), list[int]()
        for night in range(number):
            blessing = Night(images).judge(gate)
            if blessing.blessed:
                promoted.append(night)
                if blessing.look == 1:
                    counts["first"] += 1
                    counts["first_default"] += (blessing.gain or 0.0) >= least
            if (blessing.closed or "").startswith("look "):
                # the ledger only grows: no later night is let in
                break
        counts["month"] += any(night < 30 for night in promoted)
        counts["year"] += bool(promoted)
        counts["looks"] += len(images.ledger.seen)
    return {name: count / simulations for name, count in counts.items()}


def _evidence(right: np.ndarray, baseline: np.ndarray, alpha: float, **more: Any) -> Evidence:
    known = {"slices": (), "rivals": Rivals(), **more}
    bound = gain_bound(right, baseline, alpha)
    return Evidence("finetune", right, baseline, exported=0, alpha=alpha, bound=bound, **known)


def slices(
    replicates: int, classes: int, images: int, simulations: int, seed: int, max_drop: float
) -> dict[str, float]:
    """Rates at which slices refuse, with trainings that spread by 1 point.

    Returns:
        `equal`: any of equal models' slices is refused; `falls`: a slice that truly falls by three times the limit
        is found, beside others that do not.
    """
    rule, options = rules()["slices"], gate_options().model_copy(update={"max_slice_drop": max_drop})
    random, counts = np.random.default_rng(seed), {"equal": 0, "falls": 0}
    parts = [Slice("class", str(k), np.arange(k * images, (k + 1) * images)) for k in range(classes)]
    for _ in range(simulations):
        difficulties = draw_images(random, classes * images)
        right, baseline = (
            answer(random, difficulties, LEVEL + random.normal(0, 0.01, replicates)) for _ in range(2)
        )
        found = rule.check(_evidence(right, baseline, ALPHA, slices=parts), options).found["slices"]
        counts["equal"] += any(part.refused for part in found)
        fallen = LEVEL - 3 * max_drop + random.normal(0, 0.01, replicates)
        right[:, :images] = answer(random, difficulties[:images], fallen)
        found = rule.check(_evidence(right, baseline, ALPHA, slices=parts), options).found["slices"]
        counts["falls"] += found[0].refused
    return {name: count / simulations for name, count in counts.items()}


def artefact(world: World, pairs: int, seed: int) -> dict[str, float]:
    """Rates at which the check of the shipped file passes at what a first look may spend.

    Returns:
        `null`: it truly equals the baseline's mean; `gains`: it is better by the world's gain.
    """
    rule, alpha, random = rules()["artefact"], look_alpha(1, ALPHA), np.random.default_rng(seed)
    counts = {"null": 0, "gains": 0}
    for _ in range(pairs):
        difficulties = draw_images(random, world.images)
        baseline = answer(random, difficulties, LEVEL + random.normal(0, world.seed_points / 100, world.replicates))
        for name, gain in (("null", 0.0), ("gains", world.gain)):
            shipped = answer(random, difficulties, np.array([LEVEL + gain]))
            counts[name] += rule.check(_evidence(shipped, baseline, alpha), gate_options()).check.passed
    return {name: count / pairs for name, count in counts.items()}


def champion(images: int, pairs: int, seed: int) -> dict[str, float]:
    """Rates at which the check against the champion passes.

    Returns:
        `equal`: true accuracy as the champion's; `a_point_worse`; `tolerance_worse`: worse by the tolerance of
        these images, whose mean is `tolerance`.
    """
    rule, random, options = rules()["champion"], np.random.default_rng(seed), gate_options()
    counts, tolerances = {"equal": 0.0, "a_point_worse": 0.0, "tolerance_worse": 0.0}, []
    fresh, typical = np.ones(images, bool), options.champion_tolerance
    for _ in range(pairs):
        difficulties = draw_images(random, images)
        known = answer(random, difficulties, np.array([LEVEL]))
        rivals = Rivals([Rival("1", known[0], fresh)])
        for name, worse in (("equal", 0.0), ("a_point_worse", 0.01), ("tolerance_worse", typical)):
            new = answer(random, difficulties, np.array([LEVEL - worse]))
            found = rule.check(_evidence(new, known, ALPHA, rivals=rivals), options)
            counts[name] += found.check.passed
            if name == "equal":
                typical = found.found["champion"].tolerance
                tolerances.append(typical)
    return {**{name: count / pairs for name, count in counts.items()}, "tolerance": float(np.mean(tolerances))}


@dataclass(frozen=True)
class Job:
    """One cell: a function's keyword arguments, and how many cases it simulates."""

    table: str
    run: Callable[..., dict[str, float]]
    arguments: dict[str, Any]
    cases: int

    def __call__(self) -> tuple[dict[str, Any], float]:
        """Simulate it: the row, and its seconds."""
        start = time.perf_counter()
        arguments = dict(self.arguments)
        world = arguments.get("world")
        count = "simulations" if self.run in (nights, slices) else "pairs"
        rates = self.run(**arguments, **{count: self.cases})
        shown = {**arguments, **({} if world is None else {**asdict(world), "gain": world.gain})}
        shown.pop("world", None)
        return {"table": self.table, "cases": self.cases, **shown, **rates}, time.perf_counter() - start


def jobs(pairs: int) -> Iterator[Job]:
    """Everything that is simulated, the longest first."""
    some = max(pairs // 5, 2)
    for images in reversed(TEST_IMAGES):
        for replicates in reversed(REPLICATES):
            for seed, pretraining in SPREADS:
                world = World(images, replicates, seed, pretraining)
                yield Job("null", one_look, {"world": world, "seed": 1}, pairs)
            if images >= 2_000:
                world = World(images, replicates, 1.0, 1.0, classes=100)
                yield Job("null", one_look, {"world": world, "seed": 2}, pairs)
    for replicates in reversed(REPLICATES):
        for images in TEST_IMAGES[1:]:
            yield Job("nights", nights, {"world": World(images, replicates, 1.0, 1.0), "seed": 3}, pairs // 2 or 1)
    for replicates in REPLICATES:
        for images in TEST_IMAGES:
            for errors in (2.0, 4.0):
                for look in (1, 2, 3, 5, 10) if images == 2_000 else (1,):
                    world = World(images, replicates, 1.0, 1.0, errors)
                    yield Job("power", one_look, {"world": world, "seed": 4, "look": look}, some)
        for errors in (2.0, 4.0):
            world = World(2_000, replicates, 1.0, 1.0, errors, both=True)
            yield Job("power", one_look, {"world": world, "seed": 4, "look": 1}, some)
        world = World(2_000, replicates, 1.0, 1.0, 4.0)
        yield Job("months of a gain", nights, {"world": world, "seed": 5, "number": 30}, some)
    for classes in (10, 100):
        for images in (20, 50, 200):
            for replicates in REPLICATES[:2]:
                arguments = {"replicates": replicates, "classes": classes, "images": images, "max_drop": 0.1}
                yield Job("slices", slices, {**arguments, "seed": 6}, max(some // (classes // 10), 2))
    for replicates in REPLICATES:
        for images in TEST_IMAGES:
            yield Job("artefact", artefact, {"world": World(images, replicates, 1.0, 1.0, 4.0), "seed": 7}, some)
    for images in TEST_IMAGES:
        yield Job("champion", champion, {"images": images, "seed": 8}, pairs)


# of each table: its title, columns that say which cell it is, columns of rates
TABLES: dict[str, tuple[str, Sequence[str], Sequence[str]]] = {
    "null": (
        "No true gain: how often (%) it is promoted, and how often intervals cover the truth",
        ("images", "classes", "replicates", "seed_points", "pretraining_points"),
        ("bound", "chosen", "gate", "night_any_gain", "night", "covered", "covered_shown"),
    ),
    "nights": (
        "No true gain, new trainings every night: how often (%) it is promoted at least once",
        ("images", "replicates", "looks"),
        ("first", "month", "year"),
    ),
    "power": (
        "A true gain: how often (%) it is promoted",
        ("images", "replicates", "both", "standard_errors", "look"),
        ("bound", "gate", "night_any_gain", "night", "covered", "covered_shown"),
    ),
    "months of a gain": (
        "A true gain, 30 nights: how often (%) it is promoted",
        ("images", "replicates", "standard_errors", "looks"),
        ("first", "first_default", "month"),
    ),
    "slices": (
        "Slices: how often (%) equal models are refused, and a fall of three times the limit is found",
        ("classes", "images", "replicates", "max_drop"),
        ("equal", "falls"),
    ),
    "artefact": (
        "The shipped file: how often (%) it passes, truly equal to the baseline and better by 4 standard errors",
        ("images", "replicates"),
        ("null", "gains"),
    ),
    "champion": (
        "Against the champion: how often (%) it passes",
        ("images", "tolerance"),
        ("equal", "a_point_worse", "tolerance_worse"),
    ),
}


def too_often(row: dict[str, Any]) -> list[str]:
    """Rates of a row that chance would give a gate that keeps its promise once in 1,000 cells, or more rarely."""
    found = []
    limits = {
        "null": {"bound": 0.05, "gate": 0.05, "night_any_gain": 0.05, "night": 0.05},
        "nights": {"month": 0.05, "year": 0.05},
        "slices": {"equal": 0.05},
        "artefact": {"null": 0.05},
        "champion": {"tolerance_worse": 0.05},
    }
    for name, limit in limits.get(row["table"], {}).items():
        if bdtrc(round(row[name] * row["cases"]) - 1, row["cases"], limit) < 0.001:
            found.append(f"{name} {row[name]:.1%} > {limit:.0%}")
    return found


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """All tables in Markdown."""
    parts = []
    for name, (title, cell, rates) in TABLES.items():
        own = sorted((row for row in rows if row["table"] == name), key=lambda row: [row[key] for key in cell])
        if not own:
            continue
        lines = [f"{title}\n", f"| {' | '.join((*cell, *rates))} |", "|---" * (len(cell) + len(rates)) + "|"]
        for row in own:
            known = [f"{row[key]:,.3g}" if isinstance(row[key], float) else f"{row[key]:,}" for key in cell]
            lines.append(f"| {' | '.join([*known, *(f'{100 * row[key]:.1f}' for key in rates)])} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate every cell, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5_000, help="simulated nights per cell")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--tables", nargs="*", choices=list(TABLES), default=list(TABLES))
    options = parser.parse_args(arguments)
    work = [job for job in jobs(options.pairs) if job.table in options.tables]
    rows, start = [], time.perf_counter()
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        for done, future in enumerate(as_completed([pool.submit(job) for job in work]), 1):
            row, seconds = future.result()
            rows.append(row)
            passed = time.perf_counter() - start
            print(f"{done} of {len(work)} cells, {passed:.0f} s: {_in_short(row)} ({seconds:.0f} s)", flush=True)
    broken = [f"{row['table']}: {', '.join(found)} at {row}" for row in rows if (found := too_often(row))]
    if options.out is not None:
        lines = ",\n".join(json.dumps(_rounded(row)) for row in rows)
        options.out.write_text(f'{{"pairs": {options.pairs}, "rows": [\n{lines}\n]}}\n', encoding="utf-8")
    print(f"\n{tables(rows)}")
    print("\n" + ("\n".join(broken) if broken else "every error rate is within Monte Carlo error of its limit"))
    if broken:
        raise SystemExit(1)


def _in_short(row: dict[str, Any]) -> str:
    _, cell, rates = TABLES[row["table"]]
    known = " ".join(f"{key}={row[key]:g}" for key in cell)
    return f"{row['table']} {known}: {' '.join(f'{key} {100 * row[key]:.1f} %' for key in rates)}"


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 5) if isinstance(value, float) else value for key, value in row.items()}


if __name__ == "__main__":
    main()
