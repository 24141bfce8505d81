"""Several whole trainings of a step: each finished one is kept, and together they make the step's folder.

A replicate is one seed for pretraining, its probe and its fine-tuning; the baseline has as many. On a laptop a step
trains its replicates one after another, or side by side where `runtime.threads` leaves cores for several, and keeps
what is finished under `.cache/replicates/`, so that a killed run goes on after it, and another list of seeds trains
only those that are new. Kubeflow runs each as a task of its own, and gathers them likewise.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from components.shared import progress
from components.shared.artifacts import (
    FEATURES,
    LABEL_SUSPECTS,
    Dataset,
    Result,
    output_folder,
    read_record,
    require_writable,
)
from components.shared.cost import read_cost, total
from components.shared.digests import value_digest
from components.shared.errors import UserError, first_line
from components.shared.evaluation.statistics import spread
from components.shared.params.schema import Params
from components.shared.repository import state_folder
from components.shared.step import working
from components.shared.steps import STEPS
from components.shared.training.checkpoints import training_key
from components.shared.training.distributed import is_chief, rank_and_count, require_single
from components.shared.training.side_by_side import keep_to, side_by_side

KEPT = Path(".cache/replicates")
# the step that several processes may do together
TOGETHER = "pretrain"
# sets of trainings that are kept for each step: a few, so that going back to earlier options trains nothing
_SETS = 4
# answers of all replicates on the same images: the array's name → the axis along which replicates lie
_ANSWERS = {
    "predictions.npz": {"test_probabilities": 0, "validation_probabilities": 0},
    "published.npz": {"test_probabilities": 0},
    "budgets.npz": {"predicted": 1, "knn_predicted": 0},
}
# of encoders, pictures, and what these draw, the first replicate's
_FIRST = ("encoder.keras", "views.png", "neighbours.png", "suspects.png", LABEL_SUSPECTS, FEATURES)
EXPORTED = "classifier.keras"
# details that each replicate has its own of
_OWN = ("seed", "pretraining_run", "pretraining_cost", "pretraining_seconds")

Train = Callable[..., Result]


def train_replicates(
    step: str,
    function: Train,
    inputs: Mapping[str, Path],
    out: Path,
    checked: Callable[[], Params],
    seeds: Sequence[int],
    threads: int | None = None,
) -> None:
    """Train what is not kept, and gather.

    Args:
        step: a step that has replicates.
        function: of the step, called as `function(*inputs, out, params, seed)`.
        inputs: folders of the step's inputs; those of a step with replicates of its own hold one for each seed.
        out: the step's folder.
        checked: gives what a replicate is handed. Where trainings run side by side only their processes call it,
            for it needs Keras, which takes seconds to import; it must then be picklable.
        seeds: of `runtime.replicates`; of a step that is about the first one alone, that one counts.
        threads: `runtime.threads`.

    Raises:
        UserError: as the step raises.
    """
    if step != TOGETHER:
        require_single(step)
    require_writable(state_folder() / KEPT, "finished trainings")
    about_first = STEPS[step].replicates == "first"
    seeds = seeds[:1] if about_first else seeds
    own = {seed: {name: _of_seed(name, folder, seed) for name, folder in inputs.items()} for seed in seeds}
    number = {seed: f"replicate {index} of {len(seeds)}" for index, seed in enumerate(seeds, 1)}
    keep_to(threads)
    # processes of one training share its cores as they like
    alone = rank_and_count()[1] == 1
    with side_by_side(threads if alone else None, len(seeds)) as pool:
        if pool is None:
            params = checked()
            folders = {seed: _train(step, function, own[seed], params, seed, number[seed]) for seed in seeds}
        else:
            jobs = {
                pool.submit(_train_there, step, function, own[seed], checked, seed, number[seed]): seed
                for seed in seeds
            }
            done = {jobs[job]: job.result() for job in as_completed(jobs)}
            folders = {seed: done[seed] for seed in seeds}
    if not is_chief():
        return
    _prune(step, list(folders.values()))
    if about_first:
        _copy(folders[seeds[0]], out)
    else:
        gather(step, folders, out, inputs["dataset"])


def _train(step: str, function: Train, inputs: Mapping[str, Path], params: Params, seed: int, number: str) -> Path:
    """Train one that is not kept; returns where it is."""
    folder = _kept(step, inputs, params, seed)
    # of several processes all must go the same way: whether it is there is asked before anybody writes
    if not (folder / "result.json").exists():
        if not number.endswith(" of 1") and is_chief():
            print(f"{step}: {number}, seed {seed}", flush=True)
        function(*inputs.values(), folder, params, seed)
    return folder


def _train_there(
    step: str, function: Train, inputs: Mapping[str, Path], checked: Callable[[], Params], seed: int, number: str
) -> Path:
    """The same in a process beside others."""
    progress.about = f" (seed {seed})"
    return _train(step, function, inputs, checked(), seed, number)


def gather(step: str, folders: Mapping[int, Path], out: Path, dataset: Path) -> Result:
    """Make a step's folder of its replicates' folders: a copy of each, and what they are together.

    `predictions.npz` and its like hold the answers of all; `classifier.keras` is the replicate's that is best
    on held-out images of its own, the first one's where none has any; `encoder.keras` is the first one's;
    `curves.csv` has a column `seed`; metrics are means, with their sample standard deviation as `…_std`.

    Args:
        step: the step's name.
        folders: seed → its finished folder.
        out: folder to write.
        dataset: folder of `ingest`.

    Returns:
        The record of the folder.

    Raises:
        UserError: a replicate is not finished, or they are not of one kind.
    """
    folders = {seed: Path(folder) for seed, folder in folders.items()}
    records = {seed: read_record(folder, Result) for seed, folder in folders.items()}
    first = next(iter(records.values()))
    _require_alike(step, folders, records)
    manifest = Dataset(dataset).manifest
    # checked before they were recorded: to check them again would take Keras
    params = Params(first.params)
    with working(step, out, params, {"dataset": dataset}, manifest.name, together=True) as work:
        for seed, folder in folders.items():
            shutil.copytree(folder, work.out / str(seed))
        index = _exported(records)
        exported = list(folders.values())[index]
        for name in (EXPORTED, *_FIRST):
            source = (exported if name == EXPORTED else next(iter(folders.values()))) / name
            if source.exists():
                shutil.copyfile(source, work.out / name)
        for name, axes in _ANSWERS.items():
            _stack([folder / name for folder in folders.values()], work.out / name, axes)
        _join_curves(folders, work.out / "curves.csv")
        work.inputs = {name: _together(record.inputs[name] for record in records.values()) for name in first.inputs}
        work.run.tags({"replicates": ", ".join(map(str, folders))})
        pretrained = [record.details.get("pretraining_run") for record in records.values()]
        own: dict[str, Any] = {"pretraining_runs": pretrained} if all(pretrained) else {}
        spent = total(read_cost(record.details.get("pretraining_cost")) for record in records.values())
        own |= {"pretraining_cost": spent.model_dump()} if spent else {}
        own |= {"exported_seed": index} if (work.out / EXPORTED).exists() else {}
        seconds = [record.details.get("pretraining_seconds") for record in records.values()]
        own |= {"pretraining_seconds": seconds} if all(seconds) else {}
        work.before = total(record.cost for record in records.values())
        return work.finish(
            first.dataset_digest,
            _means(records),
            **_common_details(records),
            replicates=list(folders),
            replicate_runs=[record.mlflow_run_id for record in records.values()],
            **own,
            replicate_seconds=[record.seconds for record in records.values()],
        )


def _of_seed(name: str, folder: Path, seed: int) -> Path:
    """The folder of one seed where an input has one for each."""
    made_by = next(step for step in STEPS.values() if step.out == name)
    if made_by.replicates != "each":
        return Path(folder)
    own = Path(folder) / str(seed)
    if not own.is_dir():
        raise UserError(
            f"{own}: missing: {made_by.name} was not run with seed {seed} of runtime.replicates; run it again"
        )
    return own


def _kept(step: str, inputs: Mapping[str, Path], params: Params, seed: int) -> Path:
    """Where a replicate is kept: named by everything that decides its result, and not by the other seeds."""
    read = {name: _read_by(step, name, folder) for name, folder in inputs.items()}
    return state_folder() / KEPT / step / training_key(step, params, seed, read)[:32]


def _read_by(step: str, name: str, folder: Path) -> Path:
    """What a step reads of an input: of the search its own part."""
    return folder / f"{step}.json" if name == "search" else folder


def _prune(step: str, used: Sequence[Path]) -> None:
    """Remove all but those used last: a few times as many as are in use."""
    for folder in used:
        if folder.exists():
            os.utime(folder)
    known = sorted((state_folder() / KEPT / step).iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for folder in known[_SETS * len(used) :]:
        shutil.rmtree(folder, ignore_errors=True)


def _copy(folder: Path, out: Path) -> Result:
    with output_folder(out) as partial:
        shutil.copytree(folder, partial, dirs_exist_ok=True)
    return read_record(out, Result)


def _require_alike(step: str, folders: Mapping[int, Path], records: Mapping[int, Result]) -> None:
    """Refuse replicates that differ in more than their seed."""
    first = next(iter(records.values()))
    for seed, record in records.items():
        place = folders[seed] / "result.json"
        if record.step != step or record.details.get("seed") != seed:
            raise UserError(
                f"{place}: written by {record.step} with seed {record.details.get('seed')}, not by {step} with "
                f"seed {seed}; run {step} again"
            )
        for name in ("params_digest", "dataset_digest"):
            if getattr(record, name) != getattr(first, name):
                raise UserError(f"{place}: {name} differs from that of the other replicates; run {step} again")
        own, other = (each.details.get("precision") for each in (record, first))
        if own != other:
            raise UserError(
                f"{place}: trained in {own}, on another machine than others in {other}; set runtime.precision to "
                f"one of them and run {step} again"
            )


def _exported(records: Mapping[int, Result]) -> int:
    """The replicate that is best on held-out images of its own; the first of equals, and where it has none."""
    accuracies = [record.metrics.get("validation_accuracy", 0.0) for record in records.values()]
    own = all(not record.details.get("answers_of_search") for record in records.values())
    return int(np.argmax(accuracies)) if own else 0


def _stack(files: Sequence[Path], out: Path, axes: Mapping[str, int]) -> None:
    """Put the answers of all replicates into one file; arrays that are no answers are the same in each."""
    if not files[0].exists():
        return
    found = []
    for file in files:
        try:
            with np.load(file, allow_pickle=False) as opened:
                found.append({name: opened[name] for name in opened.files})
        except (OSError, ValueError, EOFError) as error:
            raise UserError(
                f"{file}: can't be read ({first_line(error, 100)}); remove its folder and run again"
            ) from None
    arrays = dict(found[0])
    # the baseline has no neighbours
    for name, axis in ((name, axis) for name, axis in axes.items() if name in arrays):
        rows = [each[name] for each in found]
        same = all(np.array_equal(row, rows[0]) for row in rows[1:])
        # the search's answers stand for those of all replicates, and are there once
        arrays[name] = rows[0] if name.startswith("validation") and same else np.concatenate(rows, axis=axis)
    if "test_probabilities" in arrays and "probabilities" in arrays:
        arrays["probabilities"] = arrays["test_probabilities"]
    np.savez_compressed(out, **arrays)


def _join_curves(folders: Mapping[int, Path], out: Path) -> None:
    """One table with a column `seed`; as text, so that every number stays as it was written."""
    tables = []
    for seed, folder in folders.items():
        table = pd.read_csv(folder / "curves.csv", dtype=str, keep_default_na=False)
        table.insert(1, "seed", str(seed))
        tables.append(table)
    pd.concat(tables).to_csv(out, index=False)


def _together(digests: Iterable[str]) -> str:
    """The digest of one input of all replicates: of what they share its own."""
    known = list(digests)
    return known[0] if len(set(known)) == 1 else value_digest(known)


def _means(records: Mapping[int, Result]) -> dict[str, float]:
    """Mean of each metric over replicates, and its sample standard deviation where there are several."""
    names = next(iter(records.values())).metrics
    found: dict[str, float] = {}
    for name in names:
        values = np.array([record.metrics.get(name, np.nan) for record in records.values()])
        found[name] = float(values.mean())
        if len(values) > 1:
            found[f"{name}_std"] = spread(values)
    return found


def _common_details(records: Mapping[int, Result]) -> dict[str, Any]:
    """What all replicates say alike; a list of what each says where they differ."""
    first = next(iter(records.values()))
    details: dict[str, Any] = {}
    for name in first.details:
        if name in _OWN:
            continue
        values = [record.details.get(name) for record in records.values()]
        details[name] = values[0] if all(value == values[0] for value in values) else values
    return details
