"""The tracking server as deployed, on PostgreSQL and S3: upgrade, accounts, host names, steps, backup."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import boto3
import mlflow
import pytest
import sqlalchemy
from alembic import command
from matplotlib.figure import Figure
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.dbmodels.initial_models import Base

from components.ingest import ingest
from components.shared.errors import UserError, exit_cleanly
from components.shared.params.composing import compose_params
from components.shared.params.schema import select
from components.shared.tracking.client import connect
from components.shared.tracking.run import tracked
from tests.helpers.deployment import (
    BACKUP,
    SECRETS,
    SERVE,
    deployed,
    environment,
    manifests,
    postgres,
    script,
    settings,
    store,
)
from tests.helpers.image_trees import write_tree
from tests.helpers.repository import ROOT

# the schema of MLflow 2.20, from before there were logged models
OLD_SCHEMA = "0584bdc529eb"
OLD_RUN = "0123456789abcdef0123456789abcdef"
OLD_ROWS = f"""
INSERT INTO experiments (name, artifact_location, lifecycle_stage) VALUES ('old', 's3://gone', 'active');
INSERT INTO runs
  (run_uuid, name, status, lifecycle_stage, user_id, artifact_uri, start_time, end_time, experiment_id)
  SELECT '{OLD_RUN}', 'old', 'FINISHED', 'active', 'me', 's3://gone', 1, 2, max(experiment_id) FROM experiments;
INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid)
  VALUES ('m', 0.5, 1, 1, false, '{OLD_RUN}')
"""
PASSWORD = "what the pipeline knows"


def old_database(address):
    """What an installation of long ago left: its schema, and one run."""
    engine = sqlalchemy.create_engine(address)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        config = _get_alembic_config(address)
        config.attributes["connection"] = connection
        command.upgrade(config, OLD_SCHEMA)
        for statement in OLD_ROWS.split(";"):
            connection.execute(sqlalchemy.text(statement))
    engine.dispose()


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """All of it, and a pipeline's account; the process's environment is left as it was."""
    folder = tmp_path_factory.mktemp("deployed")
    with pytest.MonkeyPatch.context() as patch, postgres() as address, store(folder) as s3:
        patch.setenv("PGPASSWORD", SECRETS["PGPASSWORD"])
        old_database(address)
        env = environment(MLFLOW_BACKEND_STORE_URI=address, MLFLOW_S3_ENDPOINT_URL=s3)
        # as two replicas do that start together
        both = [subprocess.Popen([SERVE, "migrate"], env=env, stdout=-1, stderr=-2, text=True) for _ in range(2)]
        migrated = [(process.communicate(timeout=300)[0], process.returncode) for process in both]
        assert [status for _, status in migrated] == [0, 0], migrated
        with deployed(folder, env) as server:
            made = SimpleNamespace(url=server.url, env=env, folder=folder, s3=s3, address=address)
            call(made, "POST", "/api/2.0/mlflow/users/create", {"username": "pipeline", "password": PASSWORD})
            yield made


def call(stack, method, path, body=None, user="admin", password=None, host=None):
    """One request; gives status and text."""
    headers = {"Content-Type": "application/json"}
    if user:
        pair = f"{user}:{password or SECRETS['MLFLOW_AUTH_ADMIN_PASSWORD']}"
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    if host:
        headers["Host"] = host
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(stack.url + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture
def pipeline(stack, monkeypatch, tracking_uri, in_tmp):
    """The environment of a pipeline that may log there."""
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", stack.url)
        patch.setenv("MLFLOW_TRACKING_USERNAME", "pipeline")
        patch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
        yield patch
        mlflow.set_tracking_uri(tracking_uri)


def objects(stack):
    keys = {key: SECRETS[key.upper()] for key in ("aws_access_key_id", "aws_secret_access_key")}
    client = boto3.client("s3", endpoint_url=stack.s3, region_name="us-east-1", **keys)
    return {item["Key"] for item in client.list_objects_v2(Bucket="mlflow").get("Contents", [])}


def run_of(stack, run_id):
    status, text = call(stack, "GET", f"/api/2.0/mlflow/runs/get?run_id={run_id}")
    assert status in (200, 400, 404), text
    return json.loads(text)["run"] if status == 200 else None


@pytest.mark.slow
def test_an_old_database_was_brought_up_to_date_with_its_runs(stack):
    old = run_of(stack, OLD_RUN)
    assert old["data"]["metrics"][0]["value"] == 0.5
    assert old["info"]["status"] == "FINISHED"


@pytest.mark.slow
def test_steps_log_parameters_numbers_pictures_files_and_a_model(stack, pipeline, in_tmp):
    tree = write_tree(in_tmp / "images", {"bus": 12, "car": 12})
    chosen = ("data=folder", f"data.path={tree}", "data.name=deployed", "data.image_size=12")
    manifest = ingest(in_tmp / "dataset", select(compose_params(chosen)[0], "ingest"))
    client = mlflow.MlflowClient()
    run = client.get_run(manifest.mlflow_run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["data.path"] == str(tree)
    assert run.data.metrics["images/train"] == manifest.counts["train"]
    assert run.inputs.dataset_inputs[0].dataset.digest == manifest.digest[:36]

    figure = Figure()
    figure.subplots().plot([1, 2])
    with tracked("finetune", {}, "p", {}, "deployed") as step:
        for epoch in (1, 2, 3):
            step.metrics({"loss": 1 / epoch}, step=epoch)
        figure.savefig(in_tmp / "curve.png")
        step.file(in_tmp / "curve.png")
        with mlflow.start_run(run_id=step.id):
            logged = mlflow.pyfunc.log_model(
                name="classifier", python_model=twice, input_example=[1.0], pip_requirements=["mlflow"]
            )
        mlflow.register_model(logged.model_uri, "contrastive-deployed")
    assert [point.value for point in client.get_metric_history(step.id, "loss")] == [1, 1 / 2, 1 / 3]
    loaded = mlflow.pyfunc.load_model("models:/contrastive-deployed/1")
    assert loaded.predict([2.0, 3.0]) == [4.0, 6.0]
    assert run_of(stack, step.id)["info"]["user_id"] is not None

    names = {key.rpartition("/")[2] for key in objects(stack)}
    assert {"manifest.json", "samples.png", "curve.png", "MLmodel", "python_model.pkl"} <= names
    assert not list(stack.folder.rglob("curve.png"))


def twice(model_input: list[float]) -> list[float]:
    return [2 * value for value in model_input]


@pytest.mark.slow
def test_health_needs_no_account_and_everything_else_does(stack):
    assert script(SERVE, "health", env={**stack.env, "PORT": stack.url.rpartition(":")[2]}).returncode == 0
    assert script(SERVE, "health", env={**stack.env, "PORT": "9"}).returncode != 0
    assert call(stack, "GET", "/health", user=None) == (200, "OK")
    search = "/api/2.0/mlflow/experiments/search?max_results=1"
    assert call(stack, "GET", search, user=None)[0] == 401
    assert call(stack, "GET", search, password="password1234")[0] == 401
    assert call(stack, "GET", search)[0] == 200


@pytest.mark.slow
def test_every_name_of_the_service_is_answered_and_others_are_not(stack):
    (service,) = (
        item for item in manifests() if item["kind"] == "Service" and item["metadata"]["name"] == "mlflow"
    )
    (ingress,) = (item for item in manifests() if item["kind"] == "Ingress")
    (port,) = (item["port"] for item in service["spec"]["ports"])
    name = service["metadata"]["name"]
    names = [f"{name}{rest}" for rest in ("", ".mlflow", ".mlflow.svc", ".mlflow.svc.cluster.local")]
    hosts = [host for name in names for host in (name, f"{name}:{port}")]
    hosts += ["localhost:8080", ingress["spec"]["rules"][0]["host"]]
    search = "/api/2.0/mlflow/experiments/search?max_results=1"
    assert [host for host in hosts if call(stack, "GET", search, host=host)[0] != 200] == []
    for host in ("mlflow.elsewhere", "10.0.0.7:5000", "evil.example.com"):
        status, text = call(stack, "GET", search, host=host)
        assert (status, "Invalid Host header" in text) == (403, True), host
    # a probe calls the pod by its address
    assert call(stack, "GET", "/health", user=None, host="10.0.0.7:5000") == (200, "OK")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("user", "password", "why"),
    [
        ("pipeline", "not the password", "the server refuses user pipeline, or its password (401)"),
        ("nobody", PASSWORD, "the server refuses user nobody, or its password (401)"),
        (None, None, "the server refuses a request without a user (401)"),
    ],
)
def test_wrong_credentials_are_told_in_one_line_without_the_secret(pipeline, in_tmp, user, password, why):
    for name, value in (("USERNAME", user), ("PASSWORD", password)):
        if value is None:
            pipeline.delenv(f"MLFLOW_TRACKING_{name}")
        else:
            pipeline.setenv(f"MLFLOW_TRACKING_{name}", value)
    with pytest.raises(UserError) as caught:
        connect()
    assert why in str(caught.value)
    assert "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in str(caught.value)
    assert password is None or password not in str(caught.value)


@pytest.mark.slow
def test_a_password_in_the_address_is_not_shown(stack, pipeline, in_tmp, capsys):
    pipeline.delenv("MLFLOW_TRACKING_USERNAME")
    pipeline.delenv("MLFLOW_TRACKING_PASSWORD")
    pipeline.setenv("MLFLOW_TRACKING_URI", stack.url.replace("//", "//pipeline:hunter2@"))
    with pytest.raises(SystemExit):
        exit_cleanly(connect)
    said = capsys.readouterr().err
    assert said.startswith("error: MLFLOW_TRACKING_URI = http://pipeline:***@127.0.0.1:")
    assert "hunter2" not in said


@pytest.mark.slow
def test_a_host_name_that_the_server_does_not_serve_is_told(stack, pipeline, in_tmp):
    # an address of loopback that is not among the allowed ones
    pipeline.setenv("MLFLOW_TRACKING_URI", stack.url.replace("127.0.0.1", "127.1"))
    with pytest.raises(UserError, match=r"does not serve this host name \(403\); add it to .*ALLOWED_HOSTS"):
        connect()


@pytest.mark.slow
def test_a_backup_brings_everything_back_and_a_step_waits_for_it(stack, pipeline, in_tmp, capsys):
    (backups := in_tmp / "backups").mkdir()
    for day in range(3):
        (backups / f"mlflow-2026010{day + 1}T000000Z.dump").write_text("older")
    with tracked("probe", {}, "p", {}, "backup") as run:
        run.metrics({"loss": 1.0}, step=1)
        saved = script(BACKUP, "save", backups, env={**stack.env, "KEEP": "2"})
        assert saved.returncode == 0, saved.stderr
        assert len(list(backups.iterdir())) == 2
        file = max(backups.iterdir())
        assert saved.stdout.startswith(f"saved: {file} (")

        assert call(stack, "POST", "/api/2.0/mlflow/experiments/create", {"name": "later"})[0] == 200
        # a broken file changes nothing
        broken = backups / "broken.dump"
        broken.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        assert script(BACKUP, "restore", broken, env=stack.env).returncode != 0
        assert experiment(stack, "later") == 200

        sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public", stack)
        run.metrics({"loss": 0.5}, step=2)
        assert run_of(stack, run.id) is None
        restored = script(BACKUP, "restore", file, env=stack.env)
        assert restored.returncode == 0, restored.stderr
    found = run_of(stack, run.id)
    assert found["data"]["metrics"][0]["value"] == 0.5
    assert found["info"]["status"] == "FINISHED"
    assert "MLflow answers again" in capsys.readouterr().err
    assert run_of(stack, OLD_RUN) is not None
    assert experiment(stack, "later") == 404
    assert call(stack, "GET", "/api/2.0/mlflow/users/get?username=pipeline")[0] == 200


def experiment(stack, name):
    return call(stack, "GET", f"/api/2.0/mlflow/experiments/get-by-name?experiment_name={name}")[0]


def sql(statement, stack):
    engine = sqlalchemy.create_engine(stack.address)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text(statement))
    engine.dispose()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"MLFLOW_AUTH_ADMIN_PASSWORD": ""}, "MLFLOW_AUTH_ADMIN_PASSWORD is not set"),
        ({"MLFLOW_AUTH_ADMIN_PASSWORD": "short"}, "MLFLOW_AUTH_ADMIN_PASSWORD has less than 12 characters"),
        ({"MLFLOW_FLASK_SERVER_SECRET_KEY": "REPLACE-ME"}, "MLFLOW_FLASK_SERVER_SECRET_KEY is not set"),
        ({"MLFLOW_SERVER_ALLOWED_HOSTS": ""}, "MLFLOW_SERVER_ALLOWED_HOSTS is not set"),
    ],
)
def test_the_server_does_not_start_without_its_secrets(change, why):
    done = script(SERVE, "serve", env={**SECRETS, **dict(os.environ), **manifest_settings(), **change})
    assert (done.returncode, done.stderr.splitlines()[0].startswith(f"error: {why}")) == (2, True), done.stderr


def manifest_settings():
    return {**settings(), "MLFLOW_AUTH_ADMIN_PASSWORD": "long enough for it"}


COMMANDS = [[SERVE], [SERVE, "start"], [BACKUP], [BACKUP, "save"], [BACKUP, "restore", "none"]]


@pytest.mark.parametrize("command", COMMANDS)
def test_scripts_told_nonsense_say_what_they_want(command):
    done = script(*command, env={**os.environ, "MLFLOW_BACKEND_STORE_URI": "postgresql://x"})
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


def test_an_environment_without_the_server_is_no_success(tmp_path):
    lock = tmp_path / "requirements.lock"
    lock.write_text(f"mlflow==3.17.2 ; python_full_version < '3.11' \\\n    --hash=sha256:{'0' * 64}\n")
    done = subprocess.run(
        ["sh", str(ROOT / "mlflow" / "install.sh"), str(lock), str(tmp_path / "server")],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    assert done.returncode == 1
    assert f"error: {lock} has nothing for Python 3." in done.stderr.splitlines()[-1]


def test_scripts_are_executable():
    assert all(os.access(ROOT / "mlflow" / name, os.X_OK) for name in ("serve.sh", "backup.sh", "install.sh"))
