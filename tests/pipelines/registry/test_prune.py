"""`registry prune` against a real registry: what goes, what stays, and that what stays is whole."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from components.shared.errors import UserError
from components.shared.registry.ledger import EXPERIMENT, RegistryLedger
from components.shared.registry.versions import find_champion, find_version
from components.shared.tracking.client import connect, experiment_id
from pipelines.__main__ import main
from pipelines.registry.prune import prune
from pipelines.review.commands import ModelOptions
from tests.helpers import reviewed
from tests.helpers.repository import make_root
from tests.helpers.servers import mlflow_server

NAME = "contrastive-sample"
IMAGES = np.arange(100, dtype=np.uint64)


def step(name, status="FINISHED", **tags):
    """A run of a step with a file; returns its id."""
    import mlflow

    client = mlflow.MlflowClient()
    run = client.create_run(experiment_id("contrastive-sample"), tags=tags, run_name=name).info.run_id
    client.log_text(run, name, "said.txt")
    if status != "RUNNING":
        client.set_terminated(run, status)
    return run


def version(digest, **tags):
    """A version with a logged model and the runs behind it, as `register` makes it; returns its number and runs."""
    import mlflow

    client = mlflow.MlflowClient()
    runs = {name: step(name) for name in ("pretrain", "evaluate", "register")}
    made = client.create_logged_model(experiment_id("contrastive-sample"), "classifier", runs["register"])
    Path("MLmodel").write_text(f"metadata: {digest}\n")
    client.log_model_artifact(made.model_id, "MLmodel")
    client.finalize_logged_model(made.model_id, "READY")
    every = {"evaluation_run": runs["evaluate"], "run.pretrain": runs["pretrain"]}
    # as `register` writes them now, and as it did before
    every = {**({"details": json.dumps(every)} if int(digest[0]) % 2 else every), **tags}
    return reviewed.put_up(NAME, made.model_uri, digest, **every), {*runs.values()}


def review(*words):
    assert not main(["review", *words, "--model", NAME, "--reason", "seen"])


def later():
    """A moment after all that there is."""
    time.sleep(0.01)
    return datetime.now(UTC)


def fill():
    """A registry after some nights; returns the runs that go and those that stay, as of now."""
    connect()
    RegistryLedger().claim("a" * 64, IMAGES, {})
    runs = {}
    for number in ("1", "2", "3", "4", "5"):
        made, runs[number] = version(number * 64)
        assert made == number
        if number in "12":
            review("approve", number)
        if number == "3":
            review("reject", number)
    nested = step("pipeline")
    stays = runs["1"] | runs["2"] | runs["5"]
    stays |= {nested, step("validate", "RUNNING"), step("probe", **{"mlflow.parentRunId": nested}, now="1")}
    goes = runs["3"] | runs["4"] | {step("search", "KILLED")}
    return goes, stays - {nested}, nested


def active():
    import mlflow

    return {run.info.run_id for run in mlflow.MlflowClient().search_runs([experiment_id("contrastive-sample")])}


def check_all_of_it(capsys, files_of):
    """Fill the registry, prune it and look; `files_of` lists what the store of artifacts holds."""
    import mlflow

    connect()
    client = mlflow.MlflowClient()
    goes, stays, nested = fill()
    child = next(run for run in stays if client.get_run(run).data.tags.get("mlflow.parentRunId"))
    client.update_run(nested, "FINISHED")
    now, options = later(), ModelOptions(NAME)
    # the nested run ended later than the age allows, and keeps its parent
    client.set_terminated(child, end_time=int((now + timedelta(hours=1)).timestamp() * 1000))
    everything, files = active(), files_of()
    capsys.readouterr()
    prune(options, now, None, delete=False, as_json=True)
    told = json.loads(capsys.readouterr().out)
    kinds = {kind: {item["name"] for item in told["items"] if item["kind"] == kind} for kind in ("version", "run")}
    assert kinds == {"version": {f"{NAME}/3", f"{NAME}/4"}, "run": goes}
    assert sum(item["kind"] == "model" for item in told["items"]) == 2
    assert active() == everything and files_of() == files

    prune(options, now, None, delete=True, as_json=False)
    assert "removed" in capsys.readouterr().out
    assert active() == everything - goes == stays | {nested}
    assert not any(run in path for run in goes for path in files_of())
    assert all(any(run in path for path in files_of()) for run in stays)
    assert sorted(str(found.version) for found in client.search_model_versions(f"name = '{NAME}'")) == list("1235")
    champion = find_champion(NAME)
    assert (champion.version, [found.version for found in champion.accepted]) == ("2", ["2", "1"])
    assert all(found.stored for found in champion.accepted)
    # the ledger has counted the look that there was
    assert RegistryLedger().expected("b" * 64, IMAGES) == 2
    assert len(client.search_runs([experiment_id(EXPERIMENT)])) == 1

    # what was rejected stays rejected, and can't be brought into service without its files
    assert find_version(NAME, "3" * 64).status == "rejected"
    assert reviewed.put_up(NAME, "models:/m-gone", "3" * 64) == "3"
    assert client.get_registered_model(NAME).aliases["challenger"] in (5, "5")
    with pytest.raises(UserError, match=r"version 3: its files were removed on .* approve another version"):
        review("approve", "3", "--override")
    review("approve", "5")
    capsys.readouterr()
    prune(options, now, None, delete=True, as_json=False)
    assert "can go" in capsys.readouterr().out


@pytest.fixture
def own_registry(in_tmp, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{in_tmp}/mlflow.db")
    connect()
    return in_tmp


@pytest.mark.slow
def test_what_is_old_and_not_needed_goes_and_nothing_else(own_registry, capsys):
    def files():
        return {str(path) for path in (own_registry / "mlartifacts").rglob("*") if path.is_file()}

    check_all_of_it(capsys, files)


@pytest.mark.slow
def test_a_servers_artifacts_go_too(in_tmp, monkeypatch, capsys):
    with mlflow_server(in_tmp / "server") as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)

        def files():
            return {str(path) for path in (in_tmp / "server/artifacts").rglob("*") if path.is_file()}

        check_all_of_it(capsys, files)


@pytest.mark.slow
def test_what_is_young_stays(own_registry, capsys):
    fill()
    before = active()
    capsys.readouterr()
    assert not main(["registry", "prune", "--model", NAME, "--older-than", "1d", "--delete"])
    assert "nothing from before" in capsys.readouterr().out
    assert active() == before


@pytest.mark.slow
def test_a_removal_that_broke_off_goes_on(own_registry, monkeypatch):
    import mlflow

    goes, _, _ = fill()
    before, now, delete, left = active(), later(), mlflow.MlflowClient.delete_run, [2]

    def breaks(client, run):
        left[0] -= 1
        if left[0] < 0:
            raise mlflow.MlflowException("the server went away")
        delete(client, run)

    monkeypatch.setattr(mlflow.MlflowClient, "delete_run", breaks)
    with pytest.raises(UserError, match="the server went away"):
        prune(ModelOptions(NAME), now, None, delete=True, as_json=False)
    assert len(active()) == len(before) - 2
    monkeypatch.setattr(mlflow.MlflowClient, "delete_run", delete)
    prune(ModelOptions(NAME), now, None, delete=True, as_json=False)
    assert not goes & active()


def test_versions_of_other_models_and_what_was_copied_stay(own_registry):
    import mlflow

    client = mlflow.MlflowClient()
    production = f"{NAME}-production"
    first, runs = version("1" * 64)
    review("approve", first, "--production-model", production)
    _, mine = version("2" * 64)
    client.copy_model_version(f"models:/{NAME}/2", "somebodys-own")
    _, old = version("3" * 64)
    version("4" * 64)
    prune(ModelOptions(NAME, production), later(), None, delete=True, as_json=False)
    assert {str(found.version) for found in client.search_model_versions(f"name = '{NAME}'")} == {"1", "2", "4"}
    assert runs | mine <= active() and not old & active()


def test_a_version_that_is_decided_on_meanwhile_stays(own_registry, monkeypatch):
    import mlflow

    version("1" * 64)
    version("2" * 64)
    asked = mlflow.MlflowClient.get_model_version

    def approved_first(client, name, number):
        client.set_registered_model_alias(name, "champion", number)
        return asked(client, name, number)

    monkeypatch.setattr(mlflow.MlflowClient, "get_model_version", approved_first)
    with pytest.raises(UserError, match="version 1: was decided on just now"):
        prune(ModelOptions(NAME), later(), None, delete=True, as_json=False)
    assert find_champion(NAME).version == "1" and len(active()) == 6


def test_checkpoints_that_no_run_used_go(own_registry):
    make_root(own_registry)
    version("1" * 64)
    old, now = own_registry / ".cache/pretrain/old.npz", own_registry / ".cache/pretrain/new.npz"
    unused, used = (own_registry / ".cache/replicates/probe" / name for name in ("old", "new"))
    search = own_registry / ".cache/search/old"
    for path in (old, now, unused / "result.json", used / "result.json", search / "trial.npz"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    year = time.time() - 365 * 86400
    for path in (old, unused, search):
        os.utime(path, (year, year))
    assert not main(["registry", "prune", "--model", NAME, "--delete"])
    assert [path.exists() for path in (now, used)] == [True, True]
    assert not any(path.exists() for path in (old, unused, search))


@pytest.mark.slow
def test_runs_of_a_cluster_go_only_where_asked(own_registry, kubeflow, capsys):
    for _ in range(4):
        assert kubeflow("submit", "--detach").status == 0
    old, champions, young, running = kubeflow.api.things["runs"].values()
    for run in (old, champions, running):
        run.update(created_at="2025-01-01T00:00:00Z", state="FAILED", finished_at="2025-01-02T00:00:00Z")
    running["state"], young["state"] = "RUNNING", "SUCCEEDED"
    made, _ = version("1" * 64, pipeline_run=champions["run_id"])
    review("approve", made)
    assert not main(["registry", "prune", "--model", NAME, "--delete"])
    assert len(kubeflow.api.all("runs")) == 4
    assert not main(["registry", "prune", "--model", NAME, "--kubeflow", "--delete"])
    assert set(kubeflow.api.things["runs"]) == {run["run_id"] for run in (champions, young, running)}


@pytest.mark.parametrize("age", ["0d", "90", "3 months", "-1d", "d"])
def test_an_age_is_days_or_weeks(own_registry, age):
    with pytest.raises(UserError, match=f"--older-than = {age}: must be days or weeks"):
        main(["registry", "prune", f"--older-than={age}"])
