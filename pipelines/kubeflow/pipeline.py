"""The pipeline: which step runs when, and what it hands on.

Without `from __future__ import annotations`, which KFP can't read.
"""

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kfp import compiler, dsl

from components.shared.steps import STEPS, TASKS, Step
from pipelines.kubeflow import NAME, components
from pipelines.kubeflow.cluster import Cluster
from pipelines.kubeflow.gathering import ABOUT, gather_component, input_of
from pipelines.kubeflow.names import gather_name, replicate_name
from pipelines.kubeflow.placement import apply_cluster_settings, pipeline_config

# of an image that no task is ever run in
LOCAL_IMAGE = "python"


def build_pipeline(
    replicates: Sequence[int],
    cluster: Cluster | None = None,
    overrides: Sequence[str] = (),
    data_version: str = "",
    commit: str | None = None,
    on_change: bool = False,
) -> Any:
    """Make the pipeline for a cluster, or for running it here.

    Args:
        replicates: seeds; the pipeline has tasks for each, and runs with no others.
        cluster: its settings; None is for a local run: no resources, no retries.
        overrides: default of the pipeline's parameter of the same name.
        data_version: default of the pipeline's parameter of the same name.
        commit: tag of an image that `cluster` names without one.
        on_change: after composing, go on only if data, options or code differ from those of the last run that
            looked and ended well, or the images from those of a champion since.

    Returns:
        A KFP pipeline with the parameters `overrides` (a list of text, the grammar of `conf/`) and `data_version`
        (text that names the state of the data; empty: found by looking at it). Call it under `kfp.local`, or hand
        it to `kfp.compiler.Compiler().compile`.

    Raises:
        UserError: an image has no tag and there is no commit.
    """
    tasks = _Tasks(cluster, commit, replicates)
    config = pipeline_config(cluster) if cluster is not None else None

    @dsl.pipeline(
        name=NAME,
        display_name="Contrastive pretraining",
        description=(
            "Pretrains an encoder by contrast on unlabelled images, and puts a classifier made of it up for review "
            "if it provably beats supervised training on the same labels."
        ),
        pipeline_config=config,
    )
    def pipeline(overrides: list[str] = list(overrides), data_version: str = data_version) -> None:  # noqa: B006
        """Run all steps.

        Args:
            overrides: Options such as data=cifar10 or runtime.epochs=200, as conf/ names them.
            data_version: Names the state of the data; empty = found by looking at the source.
        """
        end = tasks.add("record", overrides=overrides)
        with dsl.ExitHandler(end, name="Steps"):
            compiled = json.dumps(list(replicates))
            composing = tasks.add("compose", overrides=overrides, data_version=data_version, replicates=compiled)
            if on_change:
                seen = {name: composing.outputs[name] for name in ("state", "ingest")}
                looked = tasks.add("look", overrides=overrides, **seen)
                with dsl.If(looked.output == "changed", name="Changed"):
                    _add_steps(tasks, composing.outputs)
            else:
                _add_steps(tasks, composing.outputs)

    return pipeline


def _add_steps(tasks: "_Tasks", settings: Mapping[str, Any]) -> None:
    tasks.add_pull()
    for step in STEPS.values():
        if step.name not in ("evaluate", "register"):
            tasks.add_step(step, settings)
    evaluated = tasks.add_step(STEPS["evaluate"], settings)
    with dsl.If(evaluated.outputs["Output"] == "blessed", name="Blessed"):
        tasks.add_step(STEPS["register"], settings)
    with dsl.Else(name="Refused"):
        tasks.add("refuse", evaluation=evaluated.outputs["evaluation"])


def compile_pipeline(
    replicates: Sequence[int],
    cluster: Cluster,
    path: Path,
    overrides: Sequence[str] = (),
    data_version: str = "",
    commit: str | None = None,
    on_change: bool = False,
) -> None:
    """Write the pipeline and its platform settings as one YAML file; arguments as of `build_pipeline`."""
    pipeline = build_pipeline(replicates, cluster, overrides, data_version, commit, on_change)
    compiler.Compiler().compile(pipeline, str(path))


class _Made(NamedTuple):
    """A task, and what it hands to those that read its folder."""

    task: dsl.PipelineTask
    output: Any


class _Tasks:
    """Makes tasks of the components, each in its image and with the cluster's settings.

    Attributes:
        made: folder and seed → what makes it; the seed is None where the folder is not about one replicate.
        pulled: what must have run before a GPU is asked for, if there is such a task.
    """

    def __init__(self, cluster: Cluster | None, commit: str | None, replicates: Sequence[int]):
        self.cluster, self.commit, self.replicates = cluster, commit, replicates
        self.made: dict[tuple[str, int | None], _Made] = {}
        self.pulled: dsl.PipelineTask | None = None

    def add(self, task_of: str, at: str = "", of: str = "", **inputs: Any) -> dsl.PipelineTask:
        """Add a task.

        Args:
            task_of: its row in the table of steps.
            at: its name, if that is not the row's.
            of: what it is about, for its title.
            **inputs: of its component.
        """
        row = TASKS[task_of]
        image = self.cluster.image_for(task_of, self.commit) if self.cluster is not None else LOCAL_IMAGE
        if task_of == "gather":
            component, about = gather_component(self.replicates, image), ABOUT
        else:
            function = getattr(components, task_of)
            component = dsl.component(function, base_image=image, install_kfp_package=False)
            about = (inspect.getdoc(function) or "").splitlines()[0]
        # KFP names a task after its component, and would number those of replicates by their place in the list
        component.component_spec.name = at or task_of
        task: dsl.PipelineTask = component(**inputs)
        task.set_display_name(f"{row.title}, {of}" if of else row.title)
        task.set_caching_options(row.cached)
        if self.cluster is not None:
            apply_cluster_settings(task, row, about, self.cluster)
        return task

    def add_pull(self) -> None:
        """Add the task that needs the image for GPUs, where that is not the one that all others need as well."""
        cluster, commit = self.cluster, self.commit
        if cluster is not None and cluster.image_for("pull", commit) != cluster.image_for("compose", commit):
            self.pulled = self.add("pull")

    def add_step(self, step: Step, settings: Mapping[str, Any]) -> Any:
        """Add a step: a task for each replicate it has, and one that gathers them if a later step reads all."""
        if step.replicates != "each":
            return self._add_one(step, settings, self.replicates[0] if step.replicates else None, step.name)
        made = {
            seed: self._add_one(step, settings, seed, replicate_name(step.name, seed), f"seed {seed}")
            for seed in self.replicates
        }
        if any(step.out in reader.inputs and not reader.replicates for reader in STEPS.values()):
            task = self.add(
                "gather",
                gather_name(step.name),
                step.name,
                step=step.name,
                settings=settings["gather"],
                dataset=self.made["dataset", None].output,
                **{input_of(seed): task.outputs[step.out] for seed, task in made.items()},
            )
            self.made[step.out, None] = _Made(task, task.outputs["gathered"])
        return made

    def _add_one(
        self, step: Step, settings: Mapping[str, Any], seed: int | None, at: str, of: str = ""
    ) -> dsl.PipelineTask:
        read = {folder: self._found(folder, seed).output for folder in step.inputs}
        about = {} if seed is None else {"seed": seed}
        task = self.add(step.name, at, of, settings=settings[step.name], **about, **read)
        # the champion is handed on as text: KFP would take an artifact of a task that always runs for a new one
        output = task.output if step.name == "champion" else task.outputs[step.out]
        self.made[step.out, seed if step.replicates == "each" else None] = _Made(task, output)
        pulled = [self.pulled] if step.gpu and self.pulled is not None else []
        return task.after(*(self._found(folder, seed).task for folder in step.after), *pulled)

    def _found(self, folder: str, seed: int | None) -> _Made:
        """A folder of the same replicate, if there is one for each; else the one that there is."""
        return self.made.get((folder, seed)) or self.made[folder, None]
