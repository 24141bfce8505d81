"""Whole runs of the pipeline's steps in one process, for the benchmarks that judge them."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from components.shared.params.composing import compose_params
from components.shared.params.schema import select
from components.shared.steps import STEPS

# those whose result counts; validate has passed on this data, and nothing is registered
JUDGED = ("ingest", "pretrain", "search", "probe", "baseline", "finetune", "champion", "evaluate")


def run(overrides: Sequence[str], folder: Path, kept: dict[str, Path] | None = None) -> dict[str, Any]:
    """Run the steps up to the verdict, with a tracking server and a ledger of looks of their own.

    Args:
        overrides: options of the run.
        folder: to work in, made here; trainings that were finished there before are not repeated.
        kept: folders that earlier runs wrote and that this one takes instead: step's folder → where it lies.

    Returns:
        What the blessing, the validation numbers and the test numbers say, and seconds per step.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    params, _ = compose_params(overrides)
    made = {name: Path(place) for name, place in (kept or {}).items()}
    seconds = {}
    with contextlib.chdir(folder):
        for name in JUDGED:
            step = STEPS[name]
            if step.out in made:
                continue
            module = import_module(f"components.{name}")
            made[step.out] = folder / step.out
            inputs = [made[folder_name] for folder_name in step.inputs]
            module.main_for(inputs, made[step.out], select(params, name))
            record = made[step.out] / ("manifest.json" if name == "ingest" else "result.json")
            if record.exists():
                seconds[name] = json.loads(record.read_text())["seconds"]
    return outcome(made["evaluation"]) | {"seconds": seconds}


def outcome(evaluation: Path) -> dict[str, Any]:
    """Verdict, validation numbers and, where the test images were asked, test numbers of an evaluation."""
    blessing = json.loads((evaluation / "blessing.json").read_text())
    found = {
        "blessed": blessing["blessed"],
        "judged": blessing["judged"],
        "winner": blessing["winner"],
        "gain": blessing["gain"],
        "interval": blessing["interval"],
        "standard_error": blessing["standard_error"],
        "df": blessing["df"],
        "refused_by": [check["name"] for check in blessing["checks"] if not check["passed"]],
    }
    for name in ("metrics.json", "test.json"):
        if (evaluation / name).exists():
            found[name.partition(".")[0]] = json.loads((evaluation / name).read_text())
    return found
