"""dvc.yaml says what the code says: parameters, outputs, code and inputs of each stage."""

from __future__ import annotations

import configparser
import hashlib
import json
import re

import pytest
import yaml

from components.shared.params.composing import options
from components.shared.params.schema import READS
from tests.helpers.pipeline_graph import FOLDERS, closure, covers, downstream, imports, load, outs
from tests.helpers.repository import ROOT

STAGES = load()["stages"]
# they check, explain, track, watch, resume, draw and choose where to compute: what a step learns or decides is not
# theirs
SURROUNDINGS = {
    f"components/shared/{name}.py"
    for name in (
        *("environment", "errors", "git", "progress", "step"),
        *("plots/grids", "plots/evaluation", "plots/probe", "registry/uris"),
        *(f"params/{name}" for name in ("composing", "explain", "methods", "schema", "types")),
        *(f"tracking/{name}" for name in ("client", "journal", "lineage", "run")),
        *(f"training/{name}" for name in ("checkpoints", "devices", "monitor", "distributed")),
    )
}
# it imports every method, and a stage depends on the chosen one alone, and on what methods share
METHODS = "models/methods/__init__.py"
METHOD_NAMES = {
    yaml.safe_load((ROOT / "conf" / "method" / f"{option}.yaml").read_text())["name"]
    for option in options()["method"]
}


def code(stage):
    """Code that a stage depends on, with the default method filled in."""
    filled = [dependency.replace("${method.name}", "simclr") for dependency in STAGES[stage]["deps"]]
    return [dependency for dependency in filled if dependency.startswith(("components/", "models/"))]


def used(stage, leave_out=frozenset()):
    """A stage's module and what that imports, packages with nothing in them aside."""
    files = closure(f"components/{stage}.py", leave_out)
    if METHODS in files:
        chosen = {f"models/methods/{name}.py" for name in METHOD_NAMES}
        shared = set().union(*(closure(module) for module in chosen)) - chosen
        files = closure(f"components/{stage}.py", leave_out | {METHODS}) | shared | {"models/methods/simclr.py"}
    return {file for file in files if not file.endswith("/__init__.py") or list(imports(file))}


def test_there_is_one_stage_a_step():
    assert list(STAGES) == list(FOLDERS) == list(READS)


@pytest.mark.parametrize("stage", FOLDERS)
def test_a_stage_runs_its_step_and_writes_its_folder(stage):
    assert STAGES[stage]["cmd"] == f"python -m components.{stage}"
    assert outs(STAGES[stage]) == [FOLDERS[stage]]


@pytest.mark.parametrize("stage", FOLDERS)
def test_parameters_are_those_that_the_step_can_read(stage):
    assert STAGES[stage]["params"] == list(READS[stage])


@pytest.mark.parametrize("stage", FOLDERS)
def test_the_code_that_shapes_the_output_is_a_dependency(stage):
    listed = code(stage)
    assert [
        file for file in sorted(used(stage, SURROUNDINGS)) if not any(covers(entry, file) for entry in listed)
    ] == []


@pytest.mark.parametrize("stage", FOLDERS)
def test_no_code_is_a_dependency_that_the_step_does_not_use(stage):
    files = used(stage)
    assert [entry for entry in code(stage) if not any(covers(entry, file) for file in files)] == []


@pytest.mark.parametrize("stage", FOLDERS)
def test_the_inputs_of_the_command_line_are_dependencies(stage):
    text = (ROOT / "components" / f"{stage}.py").read_text()
    call = re.search(r"command_line\(\s*\"(\w+)\", \w+, \(([^)]*)\), \"(\w+)\"", text)
    assert call, "the module must end with command_line(step, function, (inputs), out)"
    name, listed, out = call.groups()
    assert (name, out) == (stage, FOLDERS[stage])
    for folder in re.findall(r"\"(\w+)\"", listed):
        assert any(covers(folder, dependency) for dependency in STAGES[stage]["deps"]), folder


@pytest.mark.parametrize("option", options()["method"])
def test_each_method_has_the_module_that_its_stage_depends_on(option):
    name = yaml.safe_load((ROOT / "conf" / "method" / f"{option}.yaml").read_text())["name"]
    assert (ROOT / "models" / "methods" / f"{name}.py").exists()


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


def test_a_changed_temperature_spares_data_check_and_baseline():
    assert changed_by("method.temperature") == {"pretrain", "probe", "finetune", "evaluate", "register"}


def test_a_refused_dataset_stops_everything_that_learns():
    assert downstream(STAGES, "validate") == set(FOLDERS) - {"ingest"}


def test_metrics_and_plots_lie_in_the_outputs():
    described = load()
    plots = []
    for plot in described["plots"]:
        if isinstance(plot, str):
            plots.append(plot)
            continue
        ((_, settings),) = plot.items()
        assert {"x", "y", "title", "x_label", "y_label"} <= set(settings)
        plots.extend(settings["y"])
    assert len(plots) > 5
    for path in (*described["metrics"], *plots):
        assert path.split("/")[0] in FOLDERS.values(), path


def test_git_ignores_what_dvc_keeps():
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert [folder for folder in ("data", *FOLDERS.values()) if f"/{folder}" not in ignored] == []


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
