"""A project's folder that is moved or copied: runs, artifacts, versions and predictions from where it is now."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import keras
import mlflow
import pytest

from components.shared.artifacts import Dataset
from components.shared.registry.logged_model import log_classifier
from components.shared.registry.versions import put_up_for_review
from components.shared.tracking.client import connect
from components.shared.tracking.run import tracked
from tests.helpers.datasets import make_dataset
from tests.helpers.image_trees import encode, picture
from tests.helpers.repository import ROOT, make_root

MODEL = "models:/moved/1"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder as a run leaves it, with a registered model and a run of another experiment and place."""
    # MLflow itself changes it: what was there is put back at the end
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / "first place"
    root.mkdir()
    data = Dataset(make_dataset(make_root(root) / "dataset", train=6, test=3, validation=3))
    (root / "photo.png").write_bytes(encode(picture("photo", 16)))
    images = keras.Input(data.manifest.image_shape, dtype="uint8")
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(images))
    answers = keras.layers.Dense(data.classes, activation="softmax")(pooled)
    keras.Model(images, answers).save(root / "classifier.keras")
    with monkeypatch.context() as patch:
        patch.chdir(root)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
        connect()
        with tracked("register", {}, "p", {}, "moved") as run:
            (root / "note.txt").write_text("kept")
            run.file(root / "note.txt")
            uri = log_classifier(root / "classifier.keras", data, run.id)
        put_up_for_review("moved", uri, "0" * 64, {}, "a network of random weights")
        elsewhere = mlflow.create_experiment("own", (tmp_path / "elsewhere").as_uri())
        with mlflow.start_run(experiment_id=elsewhere):
            mlflow.log_text("mine", "own.txt")
    yield root, run.id
    mlflow.set_tracking_uri(None)


def predicted(root: Path) -> str:
    """What the command says in the folder, of whose database nothing else tells."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    words = [sys.executable, "-m", "pipelines", "predict", "photo.png", "--model", MODEL]
    done = subprocess.run(
        words, cwd=root, env={**env, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def addresses(root: Path) -> set[str]:
    with closing(sqlite3.connect(root / "mlflow.db")) as connection:
        return {
            address
            for table, column in (
                ("experiments", "artifact_location"),
                ("runs", "artifact_uri"),
                ("logged_models", "artifact_location"),
                ("model_versions", "storage_location"),
            )
            for (address,) in connection.execute(f"SELECT {column} FROM {table}")
        }


def look(root: Path, run: str, folder: Path) -> None:
    """Open the run, its file and the version, by what the database says."""
    client = mlflow.MlflowClient(f"sqlite:///{root}/mlflow.db")
    assert client.get_run(run).info.artifact_uri.startswith(root.as_uri() + "/mlartifacts/")
    assert Path(client.download_artifacts(run, "note.txt", str(folder))).read_text() == "kept"
    place = client.get_model_version_download_uri("moved", "1")
    if place.startswith("models:/"):
        place = client.get_logged_model(place.removeprefix("models:/")).artifact_location
    assert place.startswith(root.as_uri() + "/mlartifacts/")


def test_a_copy_has_artifacts_of_its_own_and_a_moved_folder_keeps_its(project, tmp_path):
    root, run = project
    before = addresses(root)
    copy, moved = tmp_path / "copy", tmp_path / "second place"
    shutil.copytree(root, copy, symlinks=True)
    answer = predicted(copy)
    look(copy, run, tmp_path)
    assert addresses(root) == before
    root.rename(moved)
    # two at once, as steps of DVC's queue are
    with ThreadPoolExecutor(2) as both:
        assert list(both.map(predicted, [moved, moved])) == [answer, answer]
    look(moved, run, tmp_path)
    # nothing is taken for moved that is not in the folder
    own = {address for address in before if address.endswith("elsewhere") or "elsewhere/" in address}
    assert len(own) == 2 and own == addresses(moved) & addresses(copy)
    assert not any(root.as_uri() in address for address in addresses(moved) | addresses(copy))


def test_a_database_that_is_copied_alone_still_knows_where_the_artifacts_are(project, tmp_path, monkeypatch):
    root, _ = project
    before = addresses(root)
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(root / "mlflow.db", other)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{other}/mlflow.db")
    connect()
    assert addresses(other) == before
