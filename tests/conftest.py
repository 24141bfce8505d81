"""Fixtures that several tests share: a tracking server in a temporary folder, and checked parameters."""

from __future__ import annotations

import os
import random
import sys

import numpy as np
import pytest
from hypothesis import settings

from components.shared.params import composing, overrides
from components.shared.training import checkpoints, side_by_side
from components.shared.training.side_by_side import cores
from tests.helpers.remembering import remembered

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("GX_ANALYTICS_ENABLED", "False")
# what a step logs must not depend on how busy the machine is
os.environ.setdefault("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
# the same examples in each run: a test that fails once must fail again
settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")


@pytest.fixture(autouse=True)
def seeded():
    """The same random numbers in each run: a test that fails once must fail again."""
    random.seed(0)
    np.random.seed(0)
    keras = sys.modules.get("keras")
    if keras is not None:
        keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def same_cores(monkeypatch):
    """A step that keeps to a few cores does so for its process, which here goes on with other tests."""
    before = cores()
    monkeypatch.setattr(side_by_side, "_all", before)
    yield
    if cores() != before:
        os.sched_setaffinity(0, before)


@pytest.fixture(autouse=True, scope="session")
def composed_once():
    """Hydra takes a quarter of a second for each composition, and most tests ask for the same few."""
    compose, remembering = composing.compose_values, remembered(composing.compose_values)

    def composed(name, overrides, conf=composing.CONF, resolve=True):
        # other folders may change
        return (remembering if conf == composing.CONF else compose)(name, tuple(overrides), conf, resolve)

    with pytest.MonkeyPatch.context() as patch:
        for module in (composing, overrides):
            patch.setattr(module, "compose_values", composed)
        yield


@pytest.fixture(autouse=True, scope="session")
def kept_apart(tmp_path_factory):
    """What a test that breaks a step off leaves behind is nothing to go on from in the next session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "CACHE", tmp_path_factory.mktemp("kept"))
        yield


@pytest.fixture(scope="session")
def tracking_uri(tmp_path_factory):
    """A SQLite tracking server for the session (creating one takes seconds), also put into the environment."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = uri
    yield uri
    if before is None:
        del os.environ["MLFLOW_TRACKING_URI"]
    else:
        os.environ["MLFLOW_TRACKING_URI"] = before


@pytest.fixture
def in_tmp(tmp_path, monkeypatch):
    """Run a test in an empty folder, so that nothing is written into the repository."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def compose_params():
    """A function that composes checked parameters from `conf/` with overrides."""
    from components.shared.params.composing import compose_params

    def _compose(*overrides):
        return compose_params(overrides)[0]

    return _compose


@pytest.fixture
def kubeflow(tmp_path, monkeypatch):
    """A server that speaks the API of Kubeflow Pipelines; called with the words of a command line, it runs them.

    `contrastive` is run in this process: `done = kubeflow("status")` has `status`, `out` and `err`.
    """
    from tests.helpers.kfp_commands import Kubeflow

    with Kubeflow.serving(tmp_path, monkeypatch) as running:
        yield running
