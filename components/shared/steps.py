"""The one table of steps: what each reads and writes, and what it needs where it runs.

Command lines, parameters, Kubeflow's tasks and the cluster's settings are made from it. What can't be (dvc.yaml,
conf/cluster/, .gitignore, `make clean`, the components' signatures) is compared with it by
tests/components/shared/test_steps.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Task:
    """What Kubeflow runs as one container.

    Attributes:
        name: of the task.
        title: what Kubeflow's page calls it.
        network: it asks a source, a registry or a tracking server for what it can't do without.
        trains: its failures are mostly final, and it takes long.
        gpu: it is given GPUs; the others would leave them idle.
        keeps: what it has trained so far it keeps in a cache, and goes on from there when it is tried again.
        cached: an earlier answer to the same question may stand for it.
    """

    name: str
    title: str
    network: bool = False
    trains: bool = False
    gpu: bool = False
    keeps: bool = False
    cached: bool = True


@dataclass(frozen=True, kw_only=True)
class Step(Task):
    """A task with a module `components/<name>.py`, a stage in dvc.yaml and a folder that it writes.

    Attributes:
        out: the folder it writes.
        inputs: folders of earlier steps, in the order of the step function's arguments.
        after: folders of earlier steps that it does not read but that must be there first.
        reads: the parameters that its result depends on: sections, or single ones such as `runtime.epochs`.
        replicates: how many trainings it is made of: `each` seed of `runtime.replicates` one, the `first` one only,
            or none. Such a step is a function of a seed, and knows nothing of the others.
        overrides: it is told those of the whole run, and writes down how the run is made again.
    """

    out: str
    inputs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    replicates: Literal["", "each", "first"] = ""
    overrides: bool = False

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that it is handed: what it reads, and where it computes."""
        return (*self.reads, *((DEVICES,) if self.gpu else ()), *((THREADS,) if self.trains else ()))


# Where a training computes changes its result by float32's rounding alone, as another graphics card does, so
# neither DVC nor a kept state of a training takes notice of it.
WHERE = DEVICES, THREADS = "runtime.devices", "runtime.threads"
# the seeds, each of them a whole training: pretraining, probe and fine-tuning, and a baseline beside it
REPLICATES = "runtime.replicates"
_REGISTERED_MODELS = ("registry.model_name", "registry.production_model")
_SUPERVISED = ("encoder", "supervised", "runtime.precision")

STEPS: dict[str, Step] = {
    step.name: step
    for step in (
        Step(name="ingest", title="Ingest the images", network=True, out="dataset", reads=("data",)),
        Step(
            name="validate",
            title="Validate the data",
            inputs=("dataset",),
            out="validation",
            # the registry, where it answers: how many looks there were, and what the champion was trained on
            reads=("validation", "gate.alpha", REPLICATES, *_REGISTERED_MODELS),
        ),
        Step(
            name="pretrain",
            title="Pretrain by contrast",
            inputs=("dataset",),
            after=("validation",),
            out="encoder",
            reads=(
                *("method", "monitor", "encoder"),
                *("runtime.epochs", "runtime.batch_size", "runtime.sub_batch", "runtime.precision"),
            ),
            replicates="each",
            trains=True,
            gpu=True,
            keeps=True,
        ),
        Step(
            name="search",
            title="Search the training",
            inputs=("dataset", "encoder"),
            out="search",
            reads=("method", "probe", *_SUPERVISED),
            replicates="first",
            trains=True,
            gpu=True,
            keeps=True,
        ),
        Step(
            name="probe",
            title="Probe the encoder",
            inputs=("dataset", "encoder", "search"),
            out="probe",
            reads=("probe",),
            replicates="each",
            trains=True,
        ),
        Step(
            name="baseline",
            title="Train the baseline",
            inputs=("dataset", "search"),
            out="baseline",
            reads=_SUPERVISED,
            replicates="each",
            trains=True,
            gpu=True,
            keeps=True,
        ),
        Step(
            name="finetune",
            title="Fine-tune",
            inputs=("dataset", "encoder", "search"),
            out="finetune",
            reads=_SUPERVISED,
            replicates="each",
            trains=True,
            gpu=True,
            keeps=True,
        ),
        # it asks a registry that changes by itself; as late as can be, since trainings take days
        Step(
            name="champion",
            title="Look up the champion",
            after=("probe", "baseline", "finetune"),
            out="champion",
            reads=_REGISTERED_MODELS,
            network=True,
            cached=False,
        ),
        Step(
            name="evaluate",
            title="Evaluate against the baseline",
            inputs=("dataset", "validation", "search", "probe", "baseline", "finetune", "champion"),
            out="evaluation",
            reads=("gate", "registry.require_signature"),
            # the ledger of looks, and the champion's model
            network=True,
            overrides=True,
        ),
        # it acts on a registry, and must run, never be replayed
        Step(
            name="register",
            title="Register for review",
            inputs=("dataset", "evaluation", "probe", "finetune"),
            out="registration",
            reads=("registry",),
            network=True,
            cached=False,
            overrides=True,
        ),
    )
}

# what Kubeflow runs besides: compose looks at the data, look at what earlier runs saw of it, pull needs nothing but
# the image for GPUs, gather puts the replicates of a step together, record is about one run alone
TASKS: dict[str, Task] = {
    "compose": Task(name="compose", title="Compose the options", cached=False),
    "look": Task(name="look", title="Look for changes", network=True, cached=False),
    "pull": Task(name="pull", title="Pull the image for GPUs"),
    **STEPS,
    "gather": Task(name="gather", title="Gather the replicates"),
    "refuse": Task(name="refuse", title="Do not register"),
    "record": Task(name="record", title="Record how it ended", network=True, cached=False),
}
