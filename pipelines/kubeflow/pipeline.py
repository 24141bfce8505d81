"""The pipeline: which step runs when, and what it hands on.

Without `from __future__ import annotations`, which KFP can't read.
"""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kfp import compiler, dsl

from pipelines.kubeflow import NAME, components
from pipelines.kubeflow.cluster import Cluster, Step
from pipelines.kubeflow.placement import pipeline_config, place

# what the Kubeflow page calls each task
TITLES: dict[Step, str] = {
    "compose": "Compose the options",
    "ingest": "Ingest the images",
    "validate": "Validate the data",
    "pretrain": "Pretrain by contrast",
    "probe": "Probe the encoder",
    "baseline": "Train the baseline",
    "finetune": "Fine-tune",
    "champion": "Look up the champion",
    "evaluate": "Evaluate against the baseline",
    "register": "Register for review",
    "refuse": "Do not register",
    "record": "Record how it ended",
}
# compose looks at the data and champion at the registry; register acts on a registry, and must run, never be
# replayed; record is about this run alone
NEVER_CACHED = ("compose", "champion", "register", "record")
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
            dataset = tasks.add("ingest", settings=settings["ingest"]).outputs["dataset"]
            checked = tasks.add("validate", settings=settings["validate"], dataset=dataset)
            data = {"dataset": dataset}
            pretrained = tasks.add("pretrain", settings=settings["pretrain"], **data).after(checked)
            rival = tasks.add("baseline", settings=settings["baseline"], **data).after(checked)
            learned = {**data, "encoder": pretrained.outputs["encoder"]}
            probed = tasks.add("probe", settings=settings["probe"], **learned)
            tuned = tasks.add("finetune", settings=settings["finetune"], **learned)
            models = {"probe": probed.outputs["probe"], "finetune": tuned.outputs["finetune"]}
            # as late as can be: trainings take days. Its answer is handed on as text, because KFP would take an
            # artifact of a task that always runs for a new one
            asked = tasks.add("champion", settings=settings["champion"]).after(probed, tuned, rival)
            judged = tasks.add(
                "evaluate",
                settings=settings["evaluate"],
                champion=asked.output,
                **data,
                **models,
                baseline=rival.outputs["baseline"],
            )
            evaluation = {"evaluation": judged.outputs["evaluation"]}
            with dsl.If(judged.outputs["Output"] == "blessed", name="Blessed"):
                tasks.add("register", settings=settings["register"], **data, **evaluation, **models)
            with dsl.Else(name="Refused"):
                tasks.add("refuse", **evaluation)

    return pipeline


def compile_pipeline(
    cluster: Cluster, path: Path, overrides: Sequence[str] = (), data_version: str = "", commit: str | None = None
) -> None:
    """Write the pipeline and its platform settings as one YAML file; arguments as of `build_pipeline`."""
    pipeline = build_pipeline(cluster, overrides, data_version, commit)
    compiler.Compiler().compile(pipeline, str(path))


class _Tasks:
    """Makes tasks of the components, each in its image and place."""

    def __init__(self, cluster: Cluster | None, commit: str | None):
        self.cluster = cluster
        self.made: dict[str, Component] = {}
        for name in TITLES:
            image = cluster.image_for(name, commit) if cluster is not None else LOCAL_IMAGE
            function = getattr(components, name)
            self.made[name] = dsl.component(function, base_image=image, install_kfp_package=False)

    def add(self, name: Step, **inputs: Any) -> dsl.PipelineTask:
        task = self.made[name](**inputs)
        task.set_display_name(TITLES[name])
        task.set_caching_options(name not in NEVER_CACHED)
        if self.cluster is not None:
            about = (inspect.getdoc(getattr(components, name)) or "").splitlines()[0]
            place(task, name, about, self.cluster)
        return task
