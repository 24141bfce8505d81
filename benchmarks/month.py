"""A month of nights: which steps run, what the gate says, which versions appear, who is told, what it costs.

    python -m benchmarks.month --out month.json
    python -m benchmarks.month --short

Options, cache keys, the look for changes, gate, ledger of looks, registry, review, waiting for a lost server and
resending are the real ones, on a SQLite file, and in nights of outages on a server before it. Made up are the
trainings (their folders are written as the steps leave them, and each counts the GPU seconds of a table), the trial
of the model in a fresh process, and the cluster: its cache is a dictionary with the keys that KFP's would have.
Exits with 1 where a night was not as it should be.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
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
from components.shared.tracking.client import PATIENCE_VARIABLE, connect
from components.shared.tracking.journal import FILE
from pipelines.__main__ import main as contrastive
from pipelines.kubeflow import RUN, runtime
from pipelines.kubeflow.names import replicate_name
from tests.helpers.datasets import make_arrays, write_dataset
from tests.helpers.servers import free_port, mlflow_server
from tests.helpers.trained import write_all

SEEDS = tuple(compose_params([])[0].runtime.replicates)
# of each training, as on one card
GPU_SECONDS = {"pretrain": 3600, "search": 1800, "baseline": 600, "finetune": 900}
FULL = sum(seconds * (1 if step == "search" else len(SEEDS)) for step, seconds in GPU_SECONDS.items())
OPTIONS = ("data.name=colours",)
MODEL = "contrastive-colours"
STRICTER = (*OPTIONS, "gate.min_gain=0.05")
TRIED = {"load_seconds": 8.0, "served_images": 32.0, "refused_requests": 7.0, "latency_ms_batch_1": 40.0}
# seconds: that a server is lost for a while, and that steps wait for it then and in the other outages, as
# cluster.tracking_patience says (2,400 by default)
OUTAGE, PATIENCE, SHORT_PATIENCE = 15.0, 120.0, 2.0

Outage = Literal["", "twice", "until morning", "all night"]


@dataclass(frozen=True)
class Data:
    """A state of the data: whose test images, and how often the fine-tuned models that come of it are right."""

    test: int
    finetuned: float = 1.0


DATA = {
    1: Data(test=1),
    2: Data(test=1),
    3: Data(test=1, finetuned=0.55),
    4: Data(test=2),
    5: Data(test=2),
    6: Data(test=3),
}


@dataclass(frozen=True)
class Night:
    """What happens before a night and in it, and what must come of it.

    Attributes:
        what: in words.
        data: a key of `DATA`.
        options: of the run.
        review: a decision of the day before.
        away: when the tracking server does not answer: for a while before and within `evaluate`, from within
            `evaluate` on, or all night.
        runs: that begin at once.
        changes: what `--on-change` would have said.
        ran: tasks that did not come from the cache, without those that always run.
        gpu: seconds.
        look: number of the look at the test images, None where nothing was judged.
        verdict: of the gate, or that the run failed.
        versions: new ones.
        announced: how often a version became challenger.
        resent: folders that `contrastive resend` had something to send of.
    """

    what: str = "unchanged"
    data: int = 1
    options: tuple[str, ...] = OPTIONS
    review: tuple[str, ...] = ()
    away: Outage = ""
    runs: int = 1
    changes: str = "unchanged"
    ran: str = "register"
    gpu: int = 0
    look: int | None = 1
    verdict: str = "blessed"
    versions: int = 0
    announced: int = 0
    resent: int = 0

    def differs(self, found: dict[str, Any]) -> str:
        """Where a night was not as it should be, in words."""
        wrong = {name: value for name, value in found.items() if value != getattr(self, name)}
        return ", ".join(f"{name} = {value}, expected {getattr(self, name)}" for name, value in wrong.items())


NEW: dict[str, Any] = dict(changes="changed", ran="all", gpu=FULL, versions=1, announced=1)
JUDGED = "evaluate, register"
LOST: dict[str, Any] = dict(
    away="until morning",
    changes="changed",
    ran="all",
    gpu=FULL,
    verdict="run failed",
    resent=1,
)
AFTER: dict[str, Any] = dict(changes="changed", versions=1, announced=1)


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

    def forget(self, made: int) -> None:
        """A task failed: the cache has nothing of it."""
        self.cache = {key: value for key, value in self.cache.items() if value != made}


class Server:
    """A tracking server before the month's database, that can be lost and found again."""

    def __init__(self, place: Path):
        self.place, self.port = place, free_port()
        self.running, self.back = contextlib.ExitStack(), threading.Thread()

    def find(self) -> str:
        """Start it; returns its address."""
        store = f"sqlite:///{self.place}/mlflow.db"
        return self.running.enter_context(mlflow_server(self.place / "server", port=self.port, store=store)).url

    def lose(self, seconds: float | None = None) -> None:
        """End it, for so many seconds or for good."""
        self.running.close()
        if seconds is not None:
            self.back = threading.Timer(seconds, self.find)
            self.back.start()


def short() -> list[Night]:
    """The nights in which most happens."""
    return [
        Night("first data", **NEW),
        Night("unchanged, after `approve 1`", review=("approve", "1"), ran=JUDGED),
        Night("new data, tracking server lost in the middle", data=2, look=2, **LOST),
        Night("unchanged", data=2, look=2, **AFTER),
        Night("no gain", data=3, changes="changed", ran="all", gpu=FULL, look=None, verdict="not judged"),
    ]


def month() -> list[Night]:
    """Thirty nights."""
    nights = [
        Night("first data", **NEW),
        Night("unchanged, after `approve 1`", review=("approve", "1"), ran=JUDGED),
        *[Night()] * 5,
        Night("new data", data=2, look=2, **NEW),
        Night("unchanged, after `reject 2`", data=2, look=2, review=("reject", "2")),
        *[Night(data=2, look=2)] * 3,
    ]
    closed: dict[str, Any] = dict(look=None, verdict="not judged")
    down: dict[str, Any] = dict(away="all night", changes="no answer", look=None, verdict="run failed")
    twice = "new data, tracking server away for a while, twice"
    stricter = [
        Night("a changed gate", data=2, look=2, changes="changed", ran=JUDGED),
        *[Night(data=2, look=2)] * 2,
        Night("tracking server away all night", data=2, ran="evaluate", **down),
        Night(data=2, look=2),
        Night("new data, no gain", data=3, changes="changed", ran="all", gpu=FULL, **closed),
        Night(data=3, ran="", **closed),
        Night("new data and test images, tracking server lost in the middle", data=4, **LOST),
        Night(data=4, **AFTER),
        Night("unchanged, after `approve 3`", data=4, review=("approve", "3"), ran=JUDGED),
        Night(data=4),
        Night(twice, data=5, look=2, away="twice", **NEW),
        *[Night(data=5, look=2)] * 2,
        Night("new data and test images, two runs at once", data=6, runs=2, **{**NEW, "gpu": 2 * FULL}),
    ]
    stricter += [Night(data=6)] * (30 - len(nights) - len(stricter))
    return [*nights, *(replace(night, options=STRICTER) for night in stricter)]


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
    arrays = make_arrays({"unlabelled": 9, "train": 12, "validation": 60}, seed=data)
    arrays |= make_arrays({"test": 600}, seed=100 + DATA[data].test)
    for split in ("train", "validation", "test"):
        images, _ = arrays[split]
        arrays[split] = images, model.predict(images, verbose=0).argmax(axis=1)
    dataset = write_dataset(root / "dataset", arrays, ["red", "green", "blue"], name="colours", seed=data)
    own, right = len(SEEDS), DATA[data].finetuned
    write_all(root, dataset, baseline=0.6, probe=0.5, finetune=right, seeds=own, rng_seed=data)
    model.save(root / "finetune" / "classifier.keras")
    if right < 1:
        return root
    splits = {}
    for split in ("validation", "test"):
        labels = Dataset(dataset).labels(split)
        answers = model.predict(np.asarray(Dataset(dataset).images(split)), verbose=0)
        # the second one is exported
        others = [0.9 * answers + 0.1 / 3] * (own - 2)
        splits[split] = np.stack([0.9 * answers + 0.1 / 3, answers, *others]), labels
    save_predictions(root / "finetune" / "predictions.npz", splits)
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


@dataclass(frozen=True)
class Outcome:
    """What came of a run from `evaluate` on; `evaluated` is False where that failed."""

    verdict: str
    look: int | None = None
    told: int = 0
    registers: bool = False
    evaluated: bool = True


def finish(root: Path, run: Path, options: Sequence[str], judge: bool) -> Outcome:
    """The real `evaluate`, unless the cache has it, and `register`."""
    params = compose_params([*options, f"registry.model_name={MODEL}"])[0]
    inputs = [root / name for name in ("dataset", "validation", "search", "probe", "baseline", "finetune")]
    with (
        announcements() as told,
        patch("components.register.validate_infrastructure", lambda *_: dict(TRIED)),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        try:
            connect()
            if judge:
                evaluate(*inputs, run / "champion", run / "evaluation", select(params, "evaluate"))
        except UserError:
            return Outcome("run failed", evaluated=False)
        blessing = read_blessing(run / "evaluation")
        if not blessing.blessed:
            return Outcome(blessing.verdict, blessing.look)
        folders = [root / "dataset", run / "evaluation", root / "probe", root / "finetune"]
        try:
            register(*folders, run / "registration", select(params, "register"))
        except UserError:
            return Outcome("run failed", blessing.look, registers=True)
    return Outcome(blessing.verdict, blessing.look, len(told), registers=True)


def one_run(cluster: Cluster, number: int, settings: dict[str, str]) -> tuple[Path, int | None]:
    """Ask the cache for each task; returns the run's folder, and what `evaluate` is in the cache if it must run."""
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
    return run, judged[0] if judged[1] else None


@contextlib.contextmanager
def disturbed(server: Server, away: Outage) -> Iterator[None]:
    """Let the tracking server be away at some time within the block."""
    import components.evaluate as module

    if not away:
        yield
        return
    write, address = module._write, os.environ["MLFLOW_TRACKING_URI"]

    def lose_and_write(*what: Any) -> None:
        server.lose(OUTAGE if away == "twice" else None)
        write(*what)

    patience = PATIENCE if away == "twice" else SHORT_PATIENCE
    os.environ |= {"MLFLOW_TRACKING_URI": server.find(), PATIENCE_VARIABLE: str(patience)}
    if away == "all night":
        server.lose()
    try:
        with patch.object(module, "_write", lose_and_write):
            yield
    finally:
        if away == "twice":
            server.back.join()
        server.lose()
        del os.environ[PATIENCE_VARIABLE]
        os.environ["MLFLOW_TRACKING_URI"] = address
        connect()


def resend(server: Server, folder: Path) -> int:
    """In the morning: `contrastive resend` where something waits; returns how many folders that were."""
    if not (folder / FILE).exists():
        return 0
    address = os.environ["MLFLOW_TRACKING_URI"]
    os.environ["MLFLOW_TRACKING_URI"] = server.find()
    with contextlib.redirect_stdout(io.StringIO()) as said:
        contrastive(["resend", str(folder)])
    server.lose()
    os.environ["MLFLOW_TRACKING_URI"] = address
    connect()
    return said.getvalue().count("is whole now")


def spend(cluster: Cluster, server: Server, night: Night, number: int) -> dict[str, Any]:
    """One night; returns what came of it."""
    import mlflow

    client = mlflow.MlflowClient()
    if night.review:
        with contextlib.redirect_stdout(io.StringIO()):
            contrastive(["review", *night.review, "--model", MODEL, "--reason", "seen", "--reviewer", "ann"])
    before = versions(client)
    settings = runtime.settings_of_steps(night.options, f"state {night.data}", json.dumps(SEEDS))
    root = trained(cluster.place, night.data)
    cluster.tasks.clear()
    cluster.gpu, changes = 0, "no answer"
    os.environ[RUN] = f"night-{number}"
    with disturbed(server, night.away):
        with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
            seen = runtime.state_of(settings), settings["ingest"]
            changed = runtime.has_changed(night.options, *seen)
            changes = "changed" if changed else "unchanged"
        kept, started = dict(cluster.cache), []
        for run in range(night.runs):
            # two runs at once find the same cache: what the other has not finished is not there yet
            cluster.cache = dict(kept)
            started.append(one_run(cluster, 100 * run + number, settings))
        if night.away == "twice":
            server.lose(OUTAGE)
        work = [(root, run, night.options, made is not None) for run, made in started]
        if len(work) == 1:
            outcomes = [finish(*work[0])]
        else:
            with ProcessPoolExecutor(len(work), multiprocessing.get_context("spawn")) as pool:
                outcomes = [future.result() for future in [pool.submit(finish, *each) for each in work]]
    for (_, made), each in zip(started, outcomes, strict=True):
        if made is not None and not each.evaluated:
            cluster.forget(made)
    cluster.tasks += ["register"] * sum(each.registers for each in outcomes)
    first = outcomes[0]
    runtime.record(Ended("FAILED" if first.verdict == "run failed" else "SUCCEEDED"), night.options)
    resent = sum(resend(server, run / "evaluation") for run, made in started if made is not None)
    ran = sorted(set(cluster.tasks) - {"champion"}, key=cluster.tasks.index)
    return {
        "changes": changes,
        "ran": "all" if "pretrain-0" in ran else ", ".join(ran),
        "gpu": cluster.gpu,
        "look": first.look,
        "verdict": first.verdict,
        "versions": len(versions(client) - before),
        "announced": sum(each.told for each in outcomes),
        "resent": resent,
    }


@dataclass(frozen=True)
class Ended:
    """How a run ended, as KFP tells `record`."""

    state: str
    error_message: str = ""


def versions(client: Any) -> set[str]:
    """Numbers of all versions."""
    return {str(found.version) for found in client.search_model_versions(f"name = '{MODEL}'")}


def lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A Markdown table; nights in a row that were alike are one line."""
    heads = ["night", "what", "changes", "tasks begun", "GPU seconds", "look", "verdict"]
    heads += ["new versions", "announced", "resent"]
    found = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    told: list[tuple[list[int], list[str]]] = []
    for row in rows:
        cells = [row["what"], row["changes"], row["ran"] or "–", f"{row['gpu']:,}", str(row["look"] or "–")]
        cells += [row["verdict"], *(str(row[name]) for name in ("versions", "announced", "resent"))]
        if told and told[-1][1] == cells:
            told[-1][0].append(row["night"])
        else:
            told.append(([row["night"]], cells))
    for nights, cells in told:
        numbers = str(nights[0]) if len(nights) == 1 else f"{nights[0]}–{nights[-1]}"
        found.append(f"| {numbers} | {' | '.join(cells)} |")
    return found


def main() -> int:
    """Spend the nights, print them as a table, and say where one was not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="five nights in which most happens, not thirty")
    parser.add_argument("--out", type=Path, help="write the rows here as JSON")
    options = parser.parse_args()
    out = options.out.resolve() if options.out else None
    os.environ |= {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "TF_CPP_MIN_LOG_LEVEL": "3"}
    rows, wrong = [], []
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{place}/mlflow.db"
        connect()
        cluster, server = Cluster(Path(place)), Server(Path(place))
        for number, night in enumerate(short() if options.short else month(), 1):
            since = time.monotonic()
            with contextlib.redirect_stdout(io.StringIO()):
                found = spend(cluster, server, night, number)
            rows.append(
                {"night": number, "what": night.what, **found, "seconds": round(time.monotonic() - since, 1)}
            )
            print(f"night {number}: {night.what}: {found}", file=sys.stderr, flush=True)
            if differs := night.differs(found):
                wrong.append(f"night {number}, {night.what}: {differs}")
    print("\n".join(lines(rows)))
    if out is not None:
        out.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    print("\n".join(wrong), file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
