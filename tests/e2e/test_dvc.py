"""dvc.yaml says what the code says: parameters, outputs, code and inputs of each stage."""

from __future__ import annotations

import configparser
import hashlib
import json
import re

import pytest

from components.shared.code import shaping
from components.shared.params.composing import compose_params
from components.shared.steps import STEPS
from tests.helpers.pipeline_graph import FOLDERS, covers, downstream, load
from tests.helpers.repository import ROOT

STAGES = load()["stages"]
METHODS = sorted(path.stem for path in (ROOT / "conf" / "method").glob("[!_]*.yaml"))


def code(stage, values):
    """Code that a stage depends on, with what the parameters choose filled in."""
    return [
        re.sub(r"\$\{(\w+)\.(\w+)\}", lambda found: values[found[1]][found[2]], dependency)
        for dependency in STAGES[stage].get("deps", [])
        if dependency.startswith(("components/", "models/"))
    ]


def is_empty(file):
    return file.endswith("/__init__.py") and "import " not in (ROOT / file).read_text()


@pytest.mark.parametrize("stage", [name for name, stage in STAGES.items() if not stage.get("always_changed")])
def test_the_code_that_counts_is_a_dependency_and_none_that_is_not_used(stage):
    """Of methods, encoders and sources the chosen one; what several methods share is listed for all."""
    unused = None
    others = ["encoder=conv", "encoder=resnet50", "data=parquet", "data=stl10"]
    for choice in (f"method={name}" for name in METHODS) if stage == "pretrain" else others:
        params, values = compose_params([choice])
        listed, counts = code(stage, values), shaping(stage, params)
        if STEPS[stage].replicates:
            # it makes the folder of them all, and plays no part in what one of them is
            counts = [*counts, "components/shared/replicates.py"]
        lacking = [file for file in counts if not any(covers(entry, file) for entry in listed)]
        assert [file for file in lacking if not is_empty(file)] == [], choice
        idle = {entry for entry in listed if not any(covers(entry, file) for file in counts)}
        unused = idle if unused is None else unused & idle
    assert unused == set()


def changed_by(parameter):
    """Stages that a changed parameter makes DVC run again, and those that follow them."""
    direct = [
        name
        for name, stage in STAGES.items()
        if any(parameter == listed or parameter.startswith(f"{listed}.") for listed in stage["params"])
    ]
    return set().union(*(downstream(STAGES, name) for name in direct))


def test_a_changed_threshold_of_the_gate_runs_the_gate_and_the_registration_only():
    assert changed_by("gate.min_gain") == {"evaluate", "register"}


def test_a_changed_temperature_spares_the_data_check_and_unless_the_search_ends_otherwise_the_baseline():
    assert changed_by("method.temperature") == set(FOLDERS) - {"ingest", "validate"}
    inputs = [entry for entry in STAGES["baseline"]["deps"] if entry.split("/")[0] in ("encoder", "search")]
    # without times and run ids, so that the same choice is the same file
    assert inputs == ["search/baseline.json"]


def test_a_refused_dataset_stops_everything_that_learns():
    assert downstream(STAGES, "validate") == set(FOLDERS) - {"ingest"}


def test_the_sample_in_the_repository_is_whole():
    store = ROOT / ".dvc" / "sample" / "files" / "md5"
    held = {
        f"{path.parent.name}{path.name}": hashlib.md5(path.read_bytes()).hexdigest() for path in store.glob("*/*")
    }
    assert all(name.removesuffix(".dir") == digest for name, digest in held.items())
    root = load("data.dvc")["outs"][0]["md5"]
    listed = json.loads((store / root[:2] / root[2:]).read_text())
    assert {entry["md5"] for entry in listed} | {root} == set(held)
    assert "sample/textures10.zip" in [entry["relpath"] for entry in listed]


def test_nothing_is_pushed_into_the_repository_by_accident():
    settings = configparser.ConfigParser()
    settings.read(ROOT / ".dvc" / "config")
    assert settings["'remote \"sample\"'"]["url"] == "sample"
    assert "remote" not in settings["core"]
    assert settings["core"]["analytics"] == "false"
    assert settings["hydra"]["enabled"] == "true"
