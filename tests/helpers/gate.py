"""Models of the gate's tests: predictions that are right about so often, without any folder."""

from __future__ import annotations

import numpy as np

from components.shared.artifacts import Result
from components.shared.digests import value_digest
from components.shared.evaluation.evidence import Rival, Rivals, Slice
from components.shared.evaluation.gate import Blessing, decide
from components.shared.evaluation.looks import MemoryLedger
from components.shared.evaluation.predictions import Candidate, Truth
from components.shared.params.composing import compose_params
from tests.helpers.trained import search_details, simulate

GATE = compose_params(["gate=default"])[0].gate
CLASSES = 4
NO_RIVALS = Rivals()
# details of a training that are as the search and the gate want them
SOUND = {
    **{"optimisation_steps": 100, "exported_seed": 0, "replicates": [0, 1, 2]},
    **{"learning_rate": 0.001, "weight_decay": 1e-4, "epochs": 10},
}
NAMES = ["ant", "bee", "cat", "dog"]


def make_truth(n: int = 800, seed: int = 0) -> Truth:
    rng = np.random.default_rng(seed)
    labels = {split: rng.permutation(np.arange(n) % CLASSES) for split in ("train", "validation", "test")}
    return Truth("d" * 64, "t" * 64, NAMES, labels, rng.integers(0, 2**64, n, dtype=np.uint64))


def make_result(step: str, truth: Truth, **values) -> Result:
    common = {"params": {}, "params_digest": value_digest({}), "inputs": {}, "seconds": 1.0}
    fields = {"mlflow_run_id": "0" * 32, "dataset_digest": truth.dataset_digest, "metrics": {}, "details": {}}
    return Result(step=step, **common, **{**fields, **values})


def make_search(truth: Truth, **details) -> Result:
    return make_result("search", truth, details={**search_details(), **details})


def make_candidate(name, truth, level, *, replicates=3, rng_seed=1, validation_level=None, **details) -> Candidate:
    rng = np.random.default_rng([rng_seed, len(name)])
    levels = {"validation": level if validation_level is None else validation_level, "test": level}
    probabilities = {
        split: simulate(truth.labels[split], CLASSES, levels[split], replicates, rng) for split in levels
    }
    result = make_result(
        name,
        truth,
        details={**SOUND, "replicates": list(range(replicates)), **details},
    )
    return Candidate(name, result, probabilities, {split: truth.labels[split] for split in levels})


def make_three(truth, baseline=0.7, probe=0.75, finetune=0.85, **more):
    levels = {"baseline": baseline, "probe": probe, "finetune": finetune}
    return {name: make_candidate(name, truth, level, **more) for name, level in levels.items()}


def classes_of(truth: Truth) -> list[Slice]:
    labels = truth.labels["test"]
    return [Slice("class", name, np.flatnonzero(labels == label)) for label, name in enumerate(NAMES)]


def rival(truth: Truth, right: np.ndarray, version="1", trained_on=()) -> Rival:
    fresh = np.ones(len(right), bool)
    fresh[list(trained_on)] = False
    return Rival(version, right, fresh)


def decided(
    candidates, truth, rivals=NO_RIVALS, unreadable=(), ledger=None, search=None, slices=None, **gate
) -> Blessing:
    return decide(
        candidates,
        list(unreadable),
        search or make_search(truth),
        truth,
        GATE.model_copy(update=gate),
        ledger if ledger is not None else MemoryLedger(),
        lambda: rivals,
        classes_of(truth) if slices is None else slices,
    )


def the(blessing: Blessing, name: str):
    return next(check for check in blessing.checks if check.name == name)
