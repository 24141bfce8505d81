"""Models of the gate's tests: predictions that are right about so often, without any folder."""

from __future__ import annotations

import numpy as np

from components.shared.artifacts import Result
from components.shared.digests import value_digest
from components.shared.evaluation.champion import Champion
from components.shared.evaluation.gate import Blessing, decide
from components.shared.evaluation.predictions import Candidate, Truth
from components.shared.params.composing import compose
from tests.helpers.trained import simulate

GATE = compose(["gate=default"])[0].gate
CLASSES = 4
NO_CHAMPION = Champion(model="pets")
NAMES = ["ant", "bee", "cat", "dog"]


def make_truth(n: int = 800, seed: int = 0) -> Truth:
    rng = np.random.default_rng(seed)
    labels = {split: rng.permutation(np.arange(n) % CLASSES) for split in ("validation", "test")}
    return Truth("d" * 64, "t" * 64, NAMES, labels)


def make_candidate(name, truth, level, *, seeds=3, rng_seed=1, validation_level=None, **details) -> Candidate:
    rng = np.random.default_rng([rng_seed, len(name)])
    levels = {"validation": level if validation_level is None else validation_level, "test": level}
    probabilities = {
        split: simulate(labels, CLASSES, levels[split], seeds, rng) for split, labels in truth.labels.items()
    }
    result = Result(
        step=name,
        params={},
        params_digest=value_digest({}),
        inputs={},
        seconds=1.0,
        mlflow_run_id="0" * 32,
        dataset_digest=truth.dataset_digest,
        metrics={},
        details={"optimisation_steps": 100, "exported_seed": 0, **details},
    )
    return Candidate(name, result, probabilities, dict(truth.labels))


def make_three(truth, baseline=0.7, probe=0.75, finetune=0.85, **more):
    levels = {"baseline": baseline, "probe": probe, "finetune": finetune}
    return {name: make_candidate(name, truth, level, **more) for name, level in levels.items()}


def champion(**values) -> Champion:
    return Champion(model="pets", **values)


def decided(candidates, truth, best=NO_CHAMPION, unreadable=(), **gate) -> Blessing:
    return decide(candidates, list(unreadable), truth, GATE.model_copy(update=gate), best)


def the(blessing: Blessing, name: str):
    return next(check for check in blessing.checks if check.name == name)
