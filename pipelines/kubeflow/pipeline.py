"""The pipeline: which step runs when, and what it hands on.

Without `from __future__ import annotations`, which KFP can't read.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kfp import compiler, dsl

from components.shared.steps import STEPS, TASKS, Step
from pipelines.kubeflow import NAME, components
from pipelines.kubeflow.cluster import Cluster
from pipelines.kubeflow.placement import apply_cluster_settings, pipeline_config

# of an image that no task is ever run in
LOCAL_IMAGE = "python"

Component = Callable[..., dsl.PipelineTask]


def build_pipeline(
    cluster: Cluster | None = None, overrides: Sequence[str] = (), data_version: str = "", commit: str | None = None
) -> Any:
    """Make the pipeline for a cluster, or for running it here.

    Args:
        cluster: its settings; None is for a local run: no resources, no retries.
        overrides: default of the pipeline's parameter of the same name.
        data_version: default of the pipeline's parameter of the same name.
        commit: tag of an image that `cluster` names without one.

    Returns:
        A KFP pipeline with the parameters `overrides` (a list of text, the grammar of `conf/`) and `data_version`
        (text that names the state of the data; empty: found by looking at it). Call it under `kfp.local`, or hand
        it to `kfp.compiler.Compiler().compile`.

    Raises:
        UserError: an image has no tag and there is no commit.
    """
    tasks = _Tasks(cluster, commit)
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
            settings = tasks.add("compose", overrides=overrides, data_version=data_version).outputs
            made: dict[str, dsl.PipelineTask] = {}
            for step in STEPS.values():
                if step.name != "register":
                    made[step.out] = tasks.add_step(step, settings, made)
            evaluated = made[STEPS["evaluate"].out]
            with dsl.If(evaluated.outputs["Output"] == "blessed", name="Blessed"):
                tasks.add_step(STEPS["register"], settings, made)
            with dsl.Else(name="Refused"):
                tasks.add("refuse", evaluation=evaluated.outputs["evaluation"])

    return pipeline


def compile_pipeline(
    cluster: Cluster, path: Path, overrides: Sequence[str] = (), data_version: str = "", commit: str | None = None
) -> None:
    """Write the pipeline and its platform settings as one YAML file; arguments as of `build_pipeline`."""
    pipeline = build_pipeline(cluster, overrides, data_version, commit)
    compiler.Compiler().compile(pipeline, str(path))


class _Tasks:
    """Makes tasks of the components, each in its image and with the cluster's settings."""

    def __init__(self, cluster: Cluster | None, commit: str | None):
        self.cluster = cluster
        self.made: dict[str, Component] = {}
        for name in TASKS:
            image = cluster.image_for(name, commit) if cluster is not None else LOCAL_IMAGE
            function = getattr(components, name)
            self.made[name] = dsl.component(function, base_image=image, install_kfp_package=False)

    def add(self, name: str, **inputs: Any) -> dsl.PipelineTask:
        task, row = self.made[name](**inputs), TASKS[name]
        task.set_display_name(row.title)
        task.set_caching_options(row.cached)
        if self.cluster is not None:
            about = (inspect.getdoc(getattr(components, name)) or "").splitlines()[0]
            apply_cluster_settings(task, row, about, self.cluster)
        return task

    def add_step(self, step: Step, settings: Mapping[str, Any], made: Mapping[str, dsl.PipelineTask]) -> Any:
        """Add a step; `made` maps the folders that it reads or waits for to their tasks."""
        # the champion is handed on as text: KFP would take an artifact of a task that always runs for a new one
        inputs = {
            folder: made[folder].output if folder == "champion" else made[folder].outputs[folder]
            for folder in step.inputs
        }
        task = self.add(step.name, settings=settings[step.name], **inputs)
        return task.after(*(made[folder] for folder in step.after))
