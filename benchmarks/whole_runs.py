"""Whole runs of the pipeline's steps in one process, for the benchmarks that judge them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from components.shared.artifacts import Dataset
from components.shared.params.composing import compose_params
from components.shared.params.schema import step_params
from components.shared.replicates import train_replicates
from components.shared.steps import STEPS

# those whose result counts; nothing is registered
JUDGED = ("ingest", "validate", "pretrain", "search", "probe", "baseline", "finetune", "champion", "evaluate")


def run(
    overrides: Sequence[str], folder: Path, given: Mapping[str, Path] | None = None, until: str = JUDGED[-1]
) -> dict[str, Any]:
    """Run the steps, by default up to the verdict, with tracking and a ledger of looks of the folder's own.

    What was trained in the folder before with the same options is not trained again.

    Args:
        overrides: options of the run.
        folder: to work in.
        given: step's folder → one that lies elsewhere and is taken instead.
        until: the last step to run.

    Returns:
        `seconds` of each step; and where the verdict was reached, it, the held-out and the test numbers.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    params, values = compose_params(overrides)
    places = {step.out: folder / step.out for step in STEPS.values()} | dict(given or {})
    seconds: dict[str, float] = {}
    with contextlib.chdir(folder):
        for name in JUDGED[: JUDGED.index(until) + 1]:
            step = STEPS[name]
            if given and step.out in given:
                continue
            function = getattr(import_module(f"components.{name}"), name)
            inputs = {each: places[each] for each in step.inputs}
            own = partial(step_params, name, values)
            if step.replicates:
                runtime = params.runtime
                train_replicates(name, function, inputs, places[step.out], own, runtime.replicates, runtime.threads)
            else:
                function(*inputs.values(), places[step.out], own())
            seconds[name] = _seconds(places[step.out])
    return {**(outcome(places["evaluation"]) if until == "evaluate" else {}), "seconds": seconds}


def adopt(encoders: Path, dataset: Path, out: Path) -> Path:
    """A copy of pretrained encoders, over an earlier one, that names another selection of labels as its dataset."""
    digest = Dataset(dataset).manifest.digest
    shutil.copytree(encoders, out, dirs_exist_ok=True)
    for record in out.rglob("result.json"):
        values = json.loads(record.read_text())
        record.write_text(json.dumps({**values, "dataset_digest": digest}))
    return out


def outcome(evaluation: Path) -> dict[str, Any]:
    """Verdict, held-out numbers and, where the test set was opened, test numbers of an evaluation."""
    blessing = json.loads((evaluation / "blessing.json").read_text())
    names = ("blessed", "judged", "closed", "winner", "gain", "interval", "standard_error", "df", "look")
    found = {name: blessing[name] for name in names}
    found["refused_by"] = [check["name"] for check in blessing["checks"] if not check["passed"]]
    for name in ("metrics", "test"):
        path = evaluation / f"{name}.json"
        found[name] = json.loads(path.read_text()) if path.exists() else {}
    return found


def _seconds(folder: Path) -> float:
    """Of a step, from its record; of replicates, of all of them."""
    record = next((path for name in ("manifest", "result") if (path := folder / f"{name}.json").exists()), None)
    if record is None:
        return 0.0
    values = json.loads(record.read_text())
    return float(sum(values.get("details", {}).get("replicate_seconds", [values["seconds"]])))
