"""Two reviewers at once: two processes against a real server, watched by a third party."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import mlflow
import pytest
import requests

from components.shared.tracking.client import connect
from pipelines.review import decide
from pipelines.review.history import notes
from pipelines.review.state import ReviewedModels, read
from tests.helpers import reviewed
from tests.helpers.repository import ROOT
from tests.helpers.servers import mlflow_server

ROUNDS = 8


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with mlflow_server(tmp_path_factory.mktemp("races")) as running, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", running.url)
        connect()
        yield running


@pytest.fixture(scope="module")
def logged(server):
    return reviewed.log_model("contrastive-races")


class Decider:
    """One reviewer's process."""

    def __init__(self, name):
        self.process = subprocess.Popen(
            [sys.executable, ROOT / "tests" / "helpers" / "decider.py", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def ask(self, models, what):
        self.process.stdin.write(json.dumps([[models.model, models.production], what]) + "\n")
        self.process.stdin.flush()

    def answer(self):
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="module")
def two(server):
    """Two reviewers."""
    started = [Decider(name) for name in ("anna", "ben")]
    assert [decider.answer() for decider in started] == ["ready", "ready"]
    yield started
    for decider in started:
        decider.process.stdin.close()
        decider.process.wait(timeout=30)


def at_once(two, models, asked):
    for decider, what in zip(two, asked, strict=True):
        decider.ask(models, what)
    return [decider.answer() for decider in two]


class Watcher:
    """Asks for the champion again and again, as a program that uses it does."""

    def __init__(self, url, name):
        self.url, self.name = f"{url}/api/2.0/mlflow/registered-models", name
        self.seen, self.ended = [], threading.Event()
        self.thread = threading.Thread(target=self._watch)

    def _watch(self):
        with requests.Session() as session:
            while not self.ended.is_set():
                answer = session.get(f"{self.url}/get", params={"name": self.name}, timeout=60).json()
                aliases = answer["registered_model"].get("aliases", [])
                # often enough to see every state, and not so often that the server does nothing else
                self.ended.wait(0.01)
                self.seen.append([entry["version"] for entry in aliases if entry["alias"] == "champion"])

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()


def in_order(models, asked, said):
    """All that must hold after each round; returns whether the two decided at once."""
    state = read(models)
    # one champion, which one of the two made; and the one before is not the same
    made = {answer["champion"] for answer in said}
    assert state.champion in made
    assert state.champion_aliases.get("previous-champion") == state.previous != state.champion
    # nobody's decision is lost, and its maker was told the truth
    known = {decision.id: decision for decision in state.record.decisions}
    for what, answer in zip(asked, said, strict=True):
        assert "error" not in answer
        assert known[answer["id"]].action == ("rollback" if what == "rollback" else "approve")
        if answer["overtaken"]:
            assert f"; {state.name_of(state.champion)} is champion" in answer["done"]
            assert "but at the same moment" in answer["done"]
        elif answer["champion"] != state.champion:
            # was through before the other one moved the alias, who was told
            assert any(answer["id"] in other["rivals"] for other in said)
    assert not all(answer["overtaken"] for answer in said)
    # tags and aliases agree with the record
    assert notes(state) == []
    return any(answer["overtaken"] or answer["rivals"] for answer in said)


def race(server, models, two, rounds):
    raced, before = 0, len(read(models).record.decisions)
    with Watcher(server.url, models.champion_model) as watcher:
        for asked in rounds:
            raced += in_order(models, asked, at_once(two, models, asked))
    assert len(read(models).record.decisions) == before + 2 * len(rounds)
    assert len(watcher.seen) > 2 * len(rounds)
    assert {len(champions) for champions in watcher.seen} == {1}
    return raced


def approve(models, number):
    return decide.approve(models, number, "to begin with", decide.Reviewer("carl"))


@pytest.mark.slow
def test_two_who_decide_at_once_leave_one_champion_and_all_records(server, logged, two):
    models = ReviewedModels("races")
    for digest in "12345":
        reviewed.put_up(models.model, logged, digest)
    approve(models, "5")
    pairs = [("1", "2"), ("3", "4")] * (ROUNDS // 2)
    pairs[ROUNDS // 2] = ("rollback", "5")
    raced = race(server, models, two, pairs)
    assert raced >= ROUNDS // 3
    state = read(models)
    going_back = []
    while state.previous is not None and len(going_back) < 3:
        going_back.append(state.previous)
        decide.rollback(models, "back", decide.Reviewer("carl"))
        state = read(models)
        assert state.champion == going_back[-1]
        assert notes(state) == []


@pytest.mark.slow
def test_the_first_two_approvals_of_all_can_be_made_at_once(logged, two):
    for number in range(3):
        models = ReviewedModels(f"first-{number}")
        for digest in "12":
            reviewed.put_up(models.model, logged, digest)
        # also of one version: both write the same tags
        asked = ["1", "2"] if number % 2 else ["1", "1"]
        answers = at_once(two, models, asked)
        if any(said.get("id", "") is None for said in answers):
            # one was through before the other looked
            assert asked == ["1", "1"]
            assert read(models).champion == "1"
        else:
            in_order(models, asked, answers)


@pytest.mark.slow
def test_two_who_copy_the_same_version_into_production_copy_it_once(server, logged, two):
    models = ReviewedModels("copied", "copied-production")
    for digest in "123":
        reviewed.put_up(models.model, logged, digest)
    approve(models, "3")
    answers = at_once(two, models, ["1", "1"])
    assert all("version 1 (production 2)" in said["done"] for said in answers)
    state = read(models)
    assert sorted(entry.source for entry in state.champion_versions.values()) == [
        "models:/copied/1",
        "models:/copied/3",
    ]
    assert (state.champion, state.previous) == ("2", "1")
    assert notes(state) == []
    assert champion_uri() == "models:/copied/1"


def champion_uri():
    return mlflow.MlflowClient().get_model_version_by_alias("copied-production", "champion").source
