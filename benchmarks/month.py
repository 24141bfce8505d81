"""A month of nights: which steps run, which versions appear, who is told, and what it would cost in GPU time.

    python -m benchmarks.month

Options, cache keys, the look for changes, gate, ledger of looks, registry, review and MLflow are the real ones, the
latter on a SQLite file. Made up are the trainings (their folders are written as the steps leave them, and each
counts the GPU seconds of a table), the trial of the model in a fresh process, and the cluster: its cache is a
dictionary with the keys that KFP's would have. Exits with 1 where a night was not as it should be.
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from components.champion import champion
from components.evaluate import evaluate
from components.register import register
from components.shared.artifacts import CHAMPION_RECORD, Dataset, save_predictions
from components.shared.errors import UserError
from components.shared.evaluation.gate import read_blessing
from components.shared.params.composing import compose_params
from components.shared.params.schema import select
from components.shared.registry.versions import CHALLENGER
from components.shared.steps import STEPS
from components.shared.tracking.client import connect
from pipelines.__main__ import main as contrastive
from pipelines.kubeflow import RUN, runtime
from pipelines.kubeflow.names import replicate_name
from tests.helpers.datasets import make_arrays, write_dataset
from tests.helpers.trained import write_all

SEEDS = (0, 1, 2)
# of each training, as on one card
GPU_SECONDS = {"pretrain": 3600, "search": 1800, "baseline": 600, "finetune": 900}
FULL = sum(seconds * (1 if step == "search" else len(SEEDS)) for step, seconds in GPU_SECONDS.items())
OPTIONS = ("data.name=colours", "runtime.replicates=[0,1,2]")
MODEL = "contrastive-colours"
STRICTER = (*OPTIONS, "gate.min_gain=0.05")
TRIED = {"load_seconds": 8.0, "served_images": 32.0, "refused_requests": 7.0, "latency_ms_batch_1": 40.0}


@dataclass(frozen=True)
class Night:
    """What happens before a night and in it, and what must come of it."""

    what: str = "unchanged"
    data: int = 1
    options: tuple[str, ...] = OPTIONS
    review: tuple[str, ...] = ()
    away: bool = False
    runs: int = 1
    ran: str = "register"
    gpu: int = 0
    versions: int = 0
    announced: int = 0


@dataclass
class Cluster:
    """Its cache, and how often what ran."""

    place: Path
    cache: dict[str, int] = field(default_factory=dict)
    tasks: list[str] = field(default_factory=list)
    gpu: int = 0
    made: int = 0

    def answer(self, name: str, step: str, *key: Any) -> tuple[int, bool]:
        """Identity of a task's output, and whether it ran; an equal question is answered from the cache."""
        text = json.dumps([name, *key])
        if STEPS[step].cached and text in self.cache:
            return self.cache[text], False
        self.tasks.append(name)
        self.gpu += GPU_SECONDS.get(step, 0)
        self.made += 1
        self.cache[text] = self.made
        return self.cache[text], True


def month() -> list[Night]:
    """Thirty nights."""
    new = dict(ran="all", gpu=FULL, versions=1, announced=1)
    judged = "evaluate, register"
    nights = [
        Night("first data", **new),
        Night("unchanged, after `approve 1`", review=("approve", "1"), ran=judged),
    ]
    nights += [Night()] * 5
    nights += [
        Night("new data", data=2, **new),
        Night("unchanged, after `reject 2`", data=2, review=("reject", "2")),
    ]
    nights += [Night(data=2)] * 4
    nights += [Night("a changed gate", data=2, options=STRICTER, ran=judged)] + [
        Night(data=2, options=STRICTER)
    ] * 3
    nights += [Night("tracking server away", data=2, options=STRICTER, away=True, ran="evaluate")]
    nights += [Night(data=2, options=STRICTER)]
    nights += [Night("new data", data=3, options=STRICTER, **new)]
    nights += [Night("unchanged, after `approve 3`", data=3, options=STRICTER, review=("approve", "3"), ran=judged)]
    nights += [Night(data=3, options=STRICTER)] * 2
    overlap = dict(ran="all", gpu=2 * FULL, versions=1, announced=1)
    nights += [Night("new data, two runs at once", data=4, options=STRICTER, runs=2, **overlap)]
    return nights + [Night(data=4, options=STRICTER)] * (30 - len(nights))


def trained(place: Path, data: int) -> Path:
    """The folders that the steps before `evaluate` leave; made once for each state of the data."""
    root = place / f"data-{data}"
    if root.exists():
        return root
    import keras

    model = keras.Sequential([keras.Input((32, 32, 3), dtype="uint8"), keras.layers.Rescaling(1 / 255)])
    model.add(keras.layers.GlobalAveragePooling2D())
    model.add(keras.layers.Dense(3, activation="softmax"))
    # which of red, green and blue prevails; other data make it other weights
    model.layers[-1].set_weights([(8 + data) * np.eye(3, dtype="float32"), np.zeros(3, "float32")])
    arrays = make_arrays({"unlabelled": 9, "train": 12, "validation": 60, "test": 600}, seed=data)
    for split in ("train", "validation", "test"):
        images, _ = arrays[split]
        arrays[split] = images, model.predict(images, verbose=0).argmax(axis=1)
    dataset = write_dataset(root / "dataset", arrays, ["red", "green", "blue"], name="colours", seed=data)
    write_all(root, dataset, baseline=0.6, probe=0.65, finetune=0.7)
    splits = {}
    for split in ("validation", "test"):
        labels = Dataset(dataset).labels(split)
        answers = model.predict(np.asarray(Dataset(dataset).images(split)), verbose=0)
        splits[split] = np.stack([0.9 * answers + 0.1 / 3, answers, 0.9 * answers + 0.1 / 3]), labels
    save_predictions(root / "finetune" / "predictions.npz", splits)
    model.save(root / "finetune" / "classifier.keras")
    return root


@contextlib.contextmanager
def announcements() -> Iterator[list[str]]:
    """Versions that are given the alias `challenger`: the webhook tells of each."""
    import mlflow

    found: list[str] = []
    given = mlflow.MlflowClient.set_registered_model_alias

    def set_alias(client: Any, name: str, alias: str, version: str) -> None:
        given(client, name, alias, version)
        if alias == CHALLENGER:
            found.append(str(version))

    with patch.object(mlflow.MlflowClient, "set_registered_model_alias", set_alias):
        yield found


def finish(root: Path, run: Path, options: Sequence[str], judge: bool) -> tuple[str, int]:
    """The real `evaluate`, unless the cache has it, and `register`; returns the verdict and how many were told."""
    params = compose_params([*options, f"registry.model_name={MODEL}"])[0]
    inputs = [root / name for name in ("dataset", "search", "probe", "baseline", "finetune")]
    connect()
    with (
        announcements() as told,
        patch("components.register.validate_infrastructure", lambda *_: dict(TRIED)),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        if judge:
            evaluate(*inputs, run / "champion", run / "evaluation", select(params, "evaluate"))
        verdict = read_blessing(run / "evaluation").verdict
        if verdict == "blessed":
            folders = [root / "dataset", run / "evaluation", root / "probe", root / "finetune"]
            register(*folders, run / "registration", select(params, "register"))
    return verdict, len(told)


def one_run(cluster: Cluster, night: Night, number: int, settings: dict[str, str]) -> tuple[Path, bool]:
    """Ask the cache for each task; returns the folder of the evaluation, and whether that must run."""
    made: dict[tuple[str, int | None], int] = {}

    def found(folder: str, seed: int | None) -> Any:
        everyone = [made[folder, each] for each in SEEDS if (folder, each) in made]
        return made.get((folder, seed), made.get((folder, None), everyone))

    judged = (0, False)
    run = cluster.place / "runs" / str(number)
    for step in STEPS.values():
        if step.name == "register":
            continue
        about: Any = None
        if step.name == "champion":
            with contextlib.redirect_stdout(io.StringIO()):
                params = compose_params([f"registry.model_name={MODEL}"])[0]
                champion(run / "champion", select(params, "champion"))
        if step.name == "evaluate":
            about = (run / "champion" / CHAMPION_RECORD).read_text()
        for seed in SEEDS if step.replicates == "each" else (SEEDS[0],) if step.replicates else (None,):
            name = step.name if step.replicates != "each" else replicate_name(step.name, seed or 0)
            inputs = [found(folder, seed) for folder in step.inputs if folder != "champion"]
            judged = cluster.answer(name, step.name, settings[step.name], inputs, seed, about)
            made[step.out, seed if step.replicates == "each" else None] = judged[0]
    evaluations = cluster.place / "evaluations" / str(judged[0])
    if judged[1]:
        evaluations.parent.mkdir(exist_ok=True)
        evaluations.symlink_to(run)
    else:
        # what KFP's cache answers with
        (run / "evaluation").symlink_to(evaluations.resolve() / "evaluation")
    return run, judged[1]


def spend(cluster: Cluster, night: Night, number: int) -> dict[str, Any]:
    """One night; returns what came of it."""
    import mlflow

    client = mlflow.MlflowClient()
    if night.review:
        with contextlib.redirect_stdout(io.StringIO()):
            contrastive(["review", *night.review, "--model", MODEL, "--reason", "seen", "--reviewer", "ann"])
    before = versions(client)
    settings = runtime.settings_of_steps(night.options, f"state {night.data}", json.dumps(SEEDS))
    root, address = trained(cluster.place, night.data), os.environ["MLFLOW_TRACKING_URI"]
    cluster.tasks.clear()
    cluster.gpu, told, look, verdict = 0, 0, "no answer", "run failed"
    os.environ[RUN] = f"night-{number}"
    if night.away:
        os.environ["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"
    kept = dict(cluster.cache)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            seen = runtime.state_of(settings), settings["ingest"]
            look = "changed" if runtime.has_changed(night.options, *seen) else "unchanged"
    except SystemExit:
        pass
    try:
        started = []
        for run in range(night.runs):
            # two runs at once find the same cache: what the other has not finished is not there yet
            cluster.cache = dict(kept)
            started.append(one_run(cluster, night, 100 * run + number, settings))
        work = [(root, run, night.options, judge) for run, judge in started]
        if len(work) == 1:
            outcomes = [finish(*work[0])]
        else:
            with ProcessPoolExecutor(len(work), multiprocessing.get_context("spawn")) as pool:
                outcomes = [future.result() for future in [pool.submit(finish, *each) for each in work]]
        verdict, told = outcomes[0][0], sum(count for _, count in outcomes)
        cluster.tasks += ["register"] * sum(each[0] == "blessed" for each in outcomes)
    except UserError:
        cluster.cache = kept
    os.environ["MLFLOW_TRACKING_URI"] = address
    connect()
    runtime.record(Ended("FAILED" if verdict == "run failed" else "SUCCEEDED"), night.options)
    made = versions(client) - before
    ran = sorted(set(cluster.tasks) - {"champion"}, key=cluster.tasks.index)
    return {
        "look": look,
        "ran": "all" if "pretrain-0" in ran else ", ".join(ran),
        "gpu": cluster.gpu,
        "verdict": verdict,
        "versions": len(made),
        "announced": told,
    }


@dataclass(frozen=True)
class Ended:
    """How a run ended, as KFP tells `record`."""

    state: str
    error_message: str = ""


def versions(client: Any) -> set[str]:
    """Numbers of all versions."""
    return {str(found.version) for found in client.search_model_versions(f"name = '{MODEL}'")}


def main() -> int:
    """Spend the month, and print it as a table; nights in a row that were alike are one line."""
    os.environ |= {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "TF_CPP_MIN_LOG_LEVEL": "3"}
    rows: list[tuple[int, int, str, dict[str, Any]]] = []
    wrong = []
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{place}/mlflow.db"
        connect()
        cluster = Cluster(Path(place))
        for number, night in enumerate(month(), 1):
            with contextlib.redirect_stdout(io.StringIO()):
                found = spend(cluster, night, number)
            print(f"night {number}: {night.what}: {found}", file=sys.stderr, flush=True)
            if any(found[name] != getattr(night, name) for name in ("ran", "gpu", "versions", "announced")):
                wrong.append(f"night {number}, {night.what}: {found}, where {night} was expected")
            if rows and rows[-1][2:] == (night.what, found):
                rows[-1] = (rows[-1][0], number, *rows[-1][2:])
            else:
                rows.append((number, number, night.what, found))
    print("| night | what | look | tasks begun | GPU seconds | verdict | new versions | announced |")
    print("|---|---|---|---|---|---|---|---|")
    for first, last, what, found in rows:
        nights = str(first) if first == last else f"{first}–{last}"
        told = [value if isinstance(value, str) else f"{value:,}" for value in found.values()]
        print(f"| {nights} | {what} | {' | '.join(told)} |")
    print("\n".join(wrong), file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
