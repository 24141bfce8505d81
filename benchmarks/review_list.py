"""How long `contrastive review` and `contrastive registry prune` take with many versions, on a SQLite file.

The file is filled through MLflow's own tables: each version has the tags that the pipeline gives it, a run of
`evaluate` and one of `register`, and one in fifty was approved, so that the line of champions is as long. Timed is
each command after its imports, several times, in a process of its own.

    nice python -m benchmarks.review_list --versions 10000 --out benchmarks/results/<date>-cpu-review-list.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.store.model_registry.dbmodels.models import (
    SqlModelVersion,
    SqlModelVersionTag,
    SqlRegisteredModelAlias,
    SqlRegisteredModelTag,
)
from mlflow.store.tracking.dbmodels.models import SqlRun, SqlTag
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from components.shared.registry.versions import CHALLENGER, CHAMPION, DETAILS
from pipelines.review.record import Decision

MODEL, EACH = "contrastive-many", 50
DAY = 86_400_000
# a night each, from 2000 on
FIRST = 946_684_800_000
COMMANDS: dict[str, list[str]] = {
    "review list": ["review", "list", "--model", MODEL],
    "review list --json": ["review", "list", "--json", "--model", MODEL],
    "review show": ["review", "show", "7", "--model", MODEL],
    "review history": ["review", "history", "--model", MODEL],
    "registry prune, a dry run": ["registry", "prune", "--older-than", "90d", "--model", MODEL],
}
TIMED = """
import sys, time
from pipelines.__main__ import main
import pipelines.registry.prune, pipelines.review.actions
wall, processor = time.perf_counter(), time.process_time()
main(sys.argv[1:])
print(time.perf_counter() - wall, time.process_time() - processor, file=sys.stderr)
"""


def fill(place: Path, count: int) -> str:
    """Make a registry with so many versions; returns its address."""
    uri = f"sqlite:///{place}/mlflow.db"
    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient()
    client.create_registered_model(MODEL)
    experiment = int(client.create_experiment("contrastive-many", (place / "mlartifacts").as_uri()))
    with Session(create_engine(uri)) as session:
        for start in range(0, count, 1000):
            for number in range(start + 1, min(start + 1000, count) + 1):
                session.add_all(rows(number, experiment, place))
            session.commit()
        champion = max(1, EACH * (count // EACH))
        for alias, at in ((CHAMPION, champion), (CHALLENGER, count)):
            session.add(SqlRegisteredModelAlias(name=MODEL, alias=alias, version=at))
        session.commit()
    return uri


def rows(number: int, experiment: int, place: Path) -> Iterator[Any]:
    """What MLflow's tables hold of a version."""
    night = FIRST + DAY * number
    runs = {step: f"{number:016x}{index:016x}" for index, step in enumerate(("evaluate", "register"))}
    details = {
        **{"look": "1", "replicates": "5", "winner": "finetune", "gain_interval": "0.209 0.277"},
        **{"confidence": "0.95", "test_accuracy_interval": "0.671 0.713", "git_commit": "c" * 40},
        **{"test_digest": "e" * 64, "pipeline_run": f"night-{number}", "evaluation_run": runs["evaluate"]},
        **{f"run.{step}": run for step, run in runs.items()},
        **{"model_mebibytes": "1.5", "memory_mebibytes": "900", "load_seconds": "8", "latency_ms_batch_1": "40"},
    }
    tags = {
        **{"artifact_digest": f"{number:064x}", "verdict": "blessed", "test_accuracy": "0.692", "gain": "0.244"},
        **{"dataset": "many", "dataset_digest": "d" * 64, "method": "simclr", DETAILS: json.dumps(details)},
    }
    approved = number % EACH == 0 or number == 1
    if approved:
        before = {1: None, EACH: "1"}.get(number, str(number - EACH))
        decision = Decision.model_validate(
            {
                **{"sequence": 1 + number // EACH, "at": f"{np.datetime64(night, 'us')}Z", "by": "ann"},
                **{"action": "approve", "reason": "better", "version": str(number), "champion": str(number)},
                "replaced": before,
            }
        )
        yield SqlRegisteredModelTag(name=MODEL, key=decision.key, value=decision.model_dump_json(exclude_none=True))
        tags |= {
            "review.status": "approved",
            "review.by": "ann",
            "review.at": decision.at,
            "review.reason": "better",
        }
    card = "**Fine-tuned model** on many images.\n" * 60
    common = {"name": MODEL, "version": number, "creation_time": night, "last_updated_time": night}
    yield SqlModelVersion(**common, description=card, source=f"models:/m-{number:032x}", run_id=runs["register"])
    for key, value in tags.items():
        yield SqlModelVersionTag(name=MODEL, version=number, key=key, value=value)
    for step, run in runs.items():
        own = {"run_uuid": run, "name": step, "experiment_id": experiment, "status": "FINISHED", "user_id": "ann"}
        uri = (place / "mlartifacts" / run / "artifacts").as_uri()
        yield SqlRun(**own, start_time=night, end_time=night + 1000, artifact_uri=uri)
        said = {"step": step, "params.digest": "p" * 64, "pipeline.run": f"night-{number}", "git.commit": "c" * 40}
        said |= {"mlflow.runName": step, "input.dataset": "d" * 64}
        for key, value in said.items():
            yield SqlTag(run_uuid=run, key=key, value=value)


def timed(command: list[str], uri: str, place: Path) -> tuple[float, float]:
    """Seconds of a command without its imports: of the clock, and of the processor."""
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", TIMED, *command],
        env={**os.environ, "MLFLOW_TRACKING_URI": uri, "PYTHONPATH": str(root)},
        **dict(cwd=place, capture_output=True, text=True),
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    wall, processor = map(float, done.stderr.split()[-2:])
    return round(wall, 2), round(processor, 2)


def main() -> None:
    """Measure, and print as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--versions", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    found: dict[str, Any] = {"versions": options.versions, "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as folder:
        uri = fill(Path(folder), options.versions)
        print("| command | seconds, least to most | of the processor |\n|---|---|---|")
        for name, command in COMMANDS.items():
            walls, processor = zip(*(timed(command, uri, Path(folder)) for _ in range(options.rounds)), strict=True)
            found[name] = {"seconds": walls, "processor_seconds": processor}
            row = " | ".join(f"{min(each):.2f} to {max(each):.2f}" for each in (walls, processor))
            print(f"| `contrastive {name}` | {row} |", flush=True)
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
