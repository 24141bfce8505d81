"""Whether the rival had the same chances: the same network, the same search, no fewer steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from components.shared.artifacts import Result
from components.shared.evaluation.predictions import Candidate, Truth

RIVALS = ("baseline", "finetune")
# what a trial of the search is, apart from how it ended
_POINT = ("augmentation", "learning_rate", "weight_decay", "epochs")
# what a trained model's record repeats of the point that was chosen for it
_CHOSEN = ("learning_rate", "weight_decay", "epochs")


def fairness_faults(candidates: Mapping[str, Candidate], search: Result | None, truth: Truth) -> list[str]:
    """What makes the comparison of the fine-tuned model with the baseline unfair; empty when there is nothing.

    Args:
        candidates: the models that could be read.
        search: record of `search`; None where it could not be read.
        truth: what the dataset says.
    """
    found = [] if search is None else _search_faults(search, truth)
    results = [candidates[name].result for name in RIVALS if name in candidates]
    if search is not None:
        found += [fault for result in results for fault in _choice_faults(result, search)]
    if len(results) == len(RIVALS):
        found += _training_faults(*results)
    return found


def _choice_faults(trained: Result, search: Result) -> list[str]:
    chosen = search.details.get("chosen")
    recipe = chosen.get(trained.step) if isinstance(chosen, dict) else None
    if not isinstance(recipe, dict):
        return [f"search/: result.json: chosen.{trained.step}: says nothing"]
    return [
        f"{trained.step}/: trained with {name} = {trained.details.get(name)!r} where the search chose "
        f"{recipe.get(name)!r}; run `dvc repro`"
        for name in _CHOSEN
        if name not in recipe or trained.details.get(name) != recipe[name]
    ]


def _training_faults(baseline: Result, finetune: Result) -> list[str]:
    found = []
    steps = {}
    for result in (baseline, finetune):
        number = result.details.get("optimisation_steps")
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            found.append(
                f"{result.step}/: result.json: optimisation_steps = {number!r}; expected a positive number"
            )
        else:
            steps[result.step] = number
    if len(steps) == 2 and steps["baseline"] < steps["finetune"]:
        found.append(f"the baseline had {steps['baseline']} optimisation steps, fewer than {steps['finetune']}")
    for section in ("encoder", "supervised"):
        if baseline.params.get(section) != finetune.params.get(section):
            found.append(f"baseline/ and finetune/ were trained with different parameters of `{section}`")
    return found


def _search_faults(search: Result, truth: Truth) -> list[str]:
    found = []
    if search.dataset_digest != truth.dataset_digest:
        known = f"digest {search.dataset_digest[:12]}, not {truth.dataset_digest[:12]}"
        found.append(f"search/: made from another dataset ({known})")
    trials = search.details.get("trials")
    tried = {side: _points(trials.get(side)) if isinstance(trials, dict) else None for side in RIVALS}
    for side, points in tried.items():
        if not points:
            found.append(f"search/: result.json: trials.{side}: no list of trials, each with {', '.join(_POINT)}")
    if all(tried.values()) and tried["baseline"] != tried["finetune"]:
        counts = {side: sum((points or Counter()).values()) for side, points in tried.items()}
        found.append(
            f"search/: the baseline was not tried at the same points as fine-tuning ({counts['baseline']} and "
            f"{counts['finetune']} trials)"
        )
    return found


def _points(trials: Any) -> Counter[tuple[str, ...]] | None:
    """How often each point was tried; None where that can't be told."""
    if not isinstance(trials, list):
        return None
    if not all(isinstance(trial, dict) and set(_POINT) <= set(trial) for trial in trials):
        return None
    return Counter(tuple(str(trial[name]) for name in _POINT) for trial in trials)
