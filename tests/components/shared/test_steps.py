"""What can't be made from the table of steps says what the table says."""

from __future__ import annotations

import inspect
import re
from importlib import import_module

import pytest

from components.shared.steps import REPLICATES, STEPS, TASKS
from components.shared.tracking.live import LIVE
from pipelines.kubeflow import components
from pipelines.kubeflow.cluster import compose_cluster
from tests.helpers.pipeline_graph import covers, load, outs
from tests.helpers.repository import ROOT

STAGES = load()["stages"]
EACH = pytest.mark.parametrize("step", STEPS.values(), ids=list(STEPS))


def test_each_step_has_a_stage_and_a_module_and_no_other_has():
    assert list(STAGES) == list(STEPS)
    assert {path.stem for path in (ROOT / "components").glob("*.py")} == {*STEPS, "__init__"}


@EACH
def test_a_stage_runs_its_step_on_its_inputs_and_parameters(step):
    stage = STAGES[step.name]
    first, *others = [stage["cmd"]] if isinstance(stage["cmd"], str) else stage["cmd"]
    assert first == f"python -m components.{step.name}"
    assert others == (["cp evaluation/metrics.json metrics.json"] if step.name == "evaluate" else [])
    assert outs(stage) == [step.out]
    assert tuple(stage["params"]) == (*step.reads, *([REPLICATES] if step.replicates else []))
    for folder in (*step.inputs, *step.after):
        assert any(covers(folder, dependency) for dependency in stage["deps"]), folder


@EACH
def test_inputs_are_written_by_earlier_steps(step):
    names = list(STEPS)
    earlier = {STEPS[name].out for name in names[: names.index(step.name)]}
    assert {*step.inputs, *step.after} <= earlier


@EACH
def test_a_step_is_a_function_of_its_folders_and_parameters(step):
    module = import_module(f"components.{step.name}")
    arguments = inspect.signature(getattr(module, step.name)).parameters.values()
    required = [argument.name for argument in arguments if argument.default is inspect.Parameter.empty]
    assert required == [*step.inputs, "out", "params", *(["seed"] if step.replicates else [])]
    assert f'command_line("{step.name}", {step.name})' in inspect.getsource(module)


@EACH
def test_a_component_has_the_steps_inputs_and_output(step):
    arguments = inspect.signature(getattr(components, step.name)).parameters
    kinds = {name: str(argument.annotation) for name, argument in arguments.items()}
    # the champion travels as text, which KFP compares by its content
    assert [name for name, kind in kinds.items() if "Input" in kind] == [n for n in step.inputs if n != "champion"]
    assert {"settings", *step.inputs} <= set(kinds)
    assert ("seed" in kinds) == bool(step.replicates)
    assert step.out in kinds or step.name == "champion"


def test_compose_has_an_output_for_each_step():
    assert inspect.signature(components.compose).return_annotation._fields == (*STEPS, "gather", "state")


def test_a_cluster_has_settings_for_each_task():
    cluster = compose_cluster(["cluster.image=a:1"])
    assert list(cluster.resources) == list(TASKS)
    assert list(cluster.timeouts) == ["run", *TASKS]
    comments = dict(
        re.findall(r"^  (network|training): \d+ # (.*)$", (ROOT / "conf/cluster/default.yaml").read_text(), re.M)
    )
    assert comments["network"].split(", ") == [name for name, task in TASKS.items() if task.network]
    assert comments["training"].split(", ") == [name for name, task in TASKS.items() if task.trains]


def test_git_ignores_and_make_clean_removes_each_folder():
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    cleaned = re.search(r"^clean:.*\n\t@rm -rf (.*)", (ROOT / "Makefile").read_text(), re.M)[1].split()
    for step in STEPS.values():
        assert f"/{step.out}" in ignored and step.out in cleaned


def test_plots_lie_in_the_folders_of_steps_but_for_those_of_a_step_that_runs():
    paths = []
    for plot in load()["plots"]:
        path, options = (plot, {}) if isinstance(plot, str) else next(iter(plot.items()))
        paths += options["y"] if isinstance(options.get("y"), dict) else [path]
    assert {path.split("/")[0] for path in paths} <= {str(LIVE), *(step.out for step in STEPS.values())}
