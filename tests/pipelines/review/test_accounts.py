"""Two accounts on a real server with MLflow's basic auth: the pipeline can't crown its own model."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from components.shared.errors import UserError
from components.shared.registry.versions import find_champion
from components.shared.tracking.client import connect
from pipelines.__main__ import main
from tests.helpers import reviewed
from tests.helpers.repository import ROOT
from tests.helpers.servers import mlflow_server

MODEL, PRODUCTION = "contrastive-sample", "contrastive-sample-production"
BOTH = ("--model", MODEL, "--production-model", PRODUCTION)
PASSWORDS = {name: f"{name}-password-1" for name in ("admin", "pipeline", "reviewer")}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("basic-auth")
    page = (ROOT / "docs" / "review-accounts.md").read_text()
    settings = re.search(r"```ini\n(.*?)```", page, re.DOTALL)[1]
    (folder / "auth.ini").write_text(settings)
    env = {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "for tests only",
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORDS["admin"],
    }
    with mlflow_server(folder, "--app-name", "basic-auth", env=env) as running:
        with pytest.MonkeyPatch.context() as patch:
            log_in(patch, running.url, "admin")
            for name in ("pipeline", "reviewer"):
                patch.setenv(f"{name.upper()}_PASSWORD", PASSWORDS[name])
            exec(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1], {})
        yield running


def log_in(patch, url, account):
    patch.setenv("MLFLOW_TRACKING_URI", url)
    patch.setenv("MLFLOW_TRACKING_USERNAME", account)
    patch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORDS[account])
    connect()


@pytest.fixture
def account(server, monkeypatch):
    """Log in as somebody; the pipeline puts a version up first, once for the module."""
    return lambda name: log_in(monkeypatch, server.url, name)


@pytest.fixture(scope="module")
def put_up(server):
    """Two versions that the pipeline's account logged and put up for review."""
    with pytest.MonkeyPatch.context() as patch:
        log_in(patch, server.url, "pipeline")
        uri = reviewed.log_model("contrastive-accounts")
        return [reviewed.put_up(MODEL, uri, digest) for digest in "12"]


def aliases(name):
    import mlflow

    return {alias: str(at) for alias, at in mlflow.MlflowClient().get_registered_model(name).aliases.items()}


@pytest.mark.slow
def test_the_pipeline_puts_up_and_can_not_approve_by_any_way(put_up, account, server, tmp_path):
    import mlflow
    from mlflow.exceptions import MlflowException

    account("pipeline")
    assert put_up == ["1", "2"]
    assert aliases(MODEL) == {"challenger": "2"}
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", "review", "approve", "1", *BOTH, "--reason", "trust me"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: registry {server.url}: model {PRODUCTION}: the account pipeline may not")
    assert done.stderr.count("\n") == 1
    client = mlflow.MlflowClient()
    refused = [
        lambda: client.copy_model_version(f"models:/{MODEL}/1", PRODUCTION),
        lambda: client.create_model_version(PRODUCTION, f"models:/{MODEL}/1"),
        lambda: client.set_registered_model_tag(PRODUCTION, "review.log.x", "{}"),
        lambda: client.rename_registered_model(PRODUCTION, "mine"),
        lambda: client.delete_registered_model(PRODUCTION),
    ]
    for attempt in refused:
        with pytest.raises(MlflowException, match="403"):
            attempt()
    assert aliases(PRODUCTION) == {}
    assert client.search_model_versions(f"name = '{PRODUCTION}'") == []


@pytest.mark.slow
def test_the_reviewer_approves_and_the_pipeline_reads_that_champion(put_up, account, capsys):
    import mlflow
    from mlflow.exceptions import MlflowException

    account("reviewer")
    main(["review", "approve", "1", *BOTH, "--reason", "good"])
    out = capsys.readouterr().out
    assert out.startswith("approved version 1 (production 1)\non record   reviewer, ")
    assert "note" not in out
    main(["review", "approve", "2", *BOTH, "--reason", "better"])
    capsys.readouterr()
    account("pipeline")
    found = find_champion(PRODUCTION)
    assert found.version == "2"
    client = mlflow.MlflowClient()
    for attempt in (
        lambda: client.set_registered_model_alias(PRODUCTION, "champion", "1"),
        lambda: client.delete_registered_model_alias(PRODUCTION, "champion"),
        lambda: client.set_model_version_tag(PRODUCTION, "1", "verdict", "blessed"),
    ):
        with pytest.raises(MlflowException, match="403"):
            attempt()
    for arguments in (
        ["approve", "1", "--reason", "x"],
        ["reject", "1", "--reason", "x"],
        ["withdraw", "2", "--reason", "x"],
        ["rollback"],
    ):
        with pytest.raises(UserError, match=r"account pipeline may not do this \(403\)") as caught:
            main(["review", *arguments, *BOTH])
        assert "\n" not in str(caught.value)
    # its own model it may change; that does not count
    client.set_registered_model_alias(MODEL, "champion", "1")
    main(["review", "list", *BOTH])
    assert "it does not count" in capsys.readouterr().out
    assert aliases(PRODUCTION) == {"champion": "2", "previous-champion": "1"}


@pytest.mark.slow
def test_a_wrong_password_is_told_in_one_line(server, monkeypatch):
    monkeypatch.setitem(PASSWORDS, "nobody", "wrong")
    with pytest.raises(UserError, match="401") as caught:
        log_in(monkeypatch, server.url, "nobody")
    assert "\n" not in str(caught.value)
