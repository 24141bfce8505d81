"""Where and with what a pipeline runs: image, GPUs, resources, volumes, secrets (`conf/cluster/`).

Apart from `params.yaml` on purpose: no result depends on these settings, so no stage of DVC may see them.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

from kubernetes.utils.quantity import parse_quantity
from pydantic import Field, ValidationError, field_validator, model_validator

from components.shared import git
from components.shared.errors import UserError
from components.shared.params.composing import CONF, compose_settings, options
from components.shared.params.explain import did_you_mean, explain
from components.shared.params.types import Section
from components.shared.steps import TASKS

GROUP = "cluster"
_ROOT = Path(__file__).resolve().parents[2]
ON_GPU = tuple(name for name, task in TASKS.items() if task.gpu)
if TYPE_CHECKING:
    TaskName = str
    Timed = str
else:
    TaskName = Literal[tuple(TASKS)]
    Timed = Literal[*TASKS, "run"]


# `cpu: 4` and `cluster.…cpu=4` are meant as the text that Kubernetes writes quantities in
Text = Annotated[str, Field(strict=False, coerce_numbers_to_str=True)]
Cpu = Annotated[Text, Field(pattern=r"^([0-9]*[.])?[0-9]+m?$")]
Bytes = Annotated[Text, Field(pattern=r"^[0-9]+(E|Ei|P|Pi|T|Ti|G|Gi|M|Mi|K|Ki)?$")]
Label = Annotated[Text, Field(pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
Folder = Annotated[str, Field(pattern=r"^/")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Seconds = Annotated[int, Field(ge=1, le=2**31 - 1)]
# they ask no tracking server
_UNTRACKED = ("compose", "pull", "refuse")
# what the image, the container's runtime or KFP's launcher need as it is
_TAKEN = (
    *("/", "/app", "/opt", "/tmp", "/keys", "/gcs", "/s3", "/minio"),
    *("/dev", "/proc", "/sys", "/etc", "/usr", "/var"),
)
_SECRET = re.compile(
    r"(^|_)(PASSWORD|PASSWD|SECRET|TOKEN|ACCESS_KEY|API_KEY|PRIVATE_KEY|CREDENTIALS?)(_|$)", re.IGNORECASE
)


class Resources(Section):
    """What a step's container asks for and may use at most; a limit of null sets none."""

    cpu: Cpu = "1"
    cpu_limit: Cpu | None = None
    memory: Bytes = "4Gi"
    memory_limit: Bytes | None = None

    @model_validator(mode="after")
    def _limits_suffice(self) -> Resources:
        for name in ("cpu", "memory"):
            asked, most = getattr(self, name), getattr(self, f"{name}_limit")
            if most is not None and parse_quantity(most) < parse_quantity(asked):
                raise ValueError(f"{name}_limit = {most}: below {name} = {asked}, which no pod gets; raise it")
        return self


class Toleration(Section):
    """A taint of nodes that the steps put up with."""

    key: str | None = None
    operator: Literal["Equal", "Exists"] = "Equal"
    value: Label | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    seconds: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _kubernetes_takes_it(self) -> Toleration:
        if self.operator == "Exists" and self.value:
            raise ValueError(f"value = {self.value!r}: operator Exists takes none; leave it out, or take Equal")
        if self.operator == "Equal" and not self.key:
            raise ValueError("key: missing; operator Equal needs one, or take Exists for every taint")
        return self


class Gpu(Section):
    """GPUs of each of the steps that train.

    `type` is the resource's name at its device plugin; `count` = 0 trains on processors. `image` holds CUDA; null
    is the other steps' image with `-gpu` after its tag. `shared_memory` is the size of /dev/shm, taken from the
    memory limit; null leaves the runtime's 64 MiB. Node selector and tolerations add to those of every step.
    """

    type: Annotated[str, Field(min_length=1)] = "nvidia.com/gpu"
    count: Annotated[int, Field(ge=0, le=64)] = 1
    image: Annotated[str, Field(min_length=1)] | None = None
    shared_memory: Bytes | None = "8Gi"
    node_selector: dict[str, Label] = {}
    tolerations: list[Toleration] = []


class Volume(Section):
    """An existing persistent volume claim; a claim of null mounts nothing."""

    claim: Name | None = None
    path: Folder
    sub_path: str = ""

    @model_validator(mode="after")
    def _is_free(self) -> Volume:
        place = posixpath.normpath(self.path).replace("//", "/")
        if place in _TAKEN or place.startswith(("/app/", "/opt/")):
            raise ValueError(
                f"path = {self.path}: hides what the image or Kubeflow has there; mount it elsewhere, such as /data"
            )
        return self


class Cache(Volume):
    """Where interrupted trainings are kept; what none has used for `keep_days` is removed, null: never."""

    keep_days: Annotated[int, Field(ge=1, le=3650)] | None = 30


class Source(Section):
    """A secret or a config map: which of its keys become which environment variables."""

    name: Name
    keys: Annotated[dict[str, Variable], Field(min_length=1)]
    optional: bool = False


class Signing(Section):
    """Where the keys of signed models are: a secret with `private.pem`, and a config map with `public.pem`."""

    secret: Name | None = None
    config_map: Name | None = None

    @model_validator(mode="after")
    def _is_a_pair(self) -> Signing:
        if self.secret and not self.config_map:
            raise ValueError(
                f"secret = {self.secret}: who signs needs the public key too; set config_map to one with public.pem"
            )
        return self


class Retries(Section):
    """How often a step that failed is tried again.

    `network`: of the steps that read a source, the registry or the tracking server and fail without it; `training`:
    of the others, whose failures are mostly final, but for nodes that are taken away. The n-th wait takes
    `seconds` · `factor`ⁿ⁻¹; to Argo the factor is a whole number.
    """

    network: Annotated[int, Field(ge=0, le=100)] = 3
    training: Annotated[int, Field(ge=0, le=100)] = 0
    seconds: Seconds = 30
    factor: Annotated[int, Field(ge=1, le=10)] = 2

    def window(self, count: int, longest: int) -> int:
        """Seconds that `count` retries may take in all, with a first try and waits between them.

        Args:
            count: of the retries.
            longest: what each try may take, seconds.
        """
        return (count + 1) * longest + sum(self.seconds * self.factor**place for place in range(count))


class TimeToLive(Section):
    """Seconds that the pods and the workflow of a finished run are kept; null leaves it to the cluster."""

    success: Seconds | None = None
    failure: Seconds | None = None


class Cluster(Section):
    """Everything that a cluster needs to know to run the pipeline.

    `image` without a tag is taken with the commit as its tag. `data` is where `data.path` of the options points
    into; `cache` keeps interrupted trainings. `resources` and `timeouts` (seconds; of a step, or by the name `run`
    of the whole run; null is for ever) name steps; `compose`, `look`, `pull`, `refuse` and `record` are the short
    ones at the beginning and the end. Secrets and config maps become environment variables of every step. `page` is
    the address of the Kubeflow page, for links. `tracking_patience` is how many seconds a step waits for a tracking
    server that is away, at its beginning and at its end. `signing` mounts keys as files where models are signed
    and checked.
    """

    image: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:@-]*$")]
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: list[Name] = []
    gpu: Gpu
    resources: dict[TaskName, Resources] = {}
    node_selector: dict[str, Label] = {}
    tolerations: list[Toleration] = []
    data: Volume
    cache: Cache
    secrets: list[Source] = []
    config_maps: list[Source] = []
    signing: Signing = Signing()
    env: dict[Variable, Text] = {}
    tracking_patience: Annotated[int, Field(ge=0, le=86400)] = 0
    timeouts: dict[Timed, Seconds | None] = {}
    retries: Retries = Retries()
    time_to_live: TimeToLive = TimeToLive()
    page: Annotated[str, Field(pattern=r"^https?://")] | None = None

    @field_validator("env")
    @classmethod
    def _holds_no_secrets(cls, env: dict[str, str]) -> dict[str, str]:
        for name, value in env.items():
            # a path may well lead to one
            if (_SECRET.search(name) and not value.startswith("/")) or urlsplit(value).password:
                raise ValueError(f"{name}: everybody who may see a pod reads it there; put it into cluster.secrets")
        return env

    @model_validator(mode="after")
    def _memory_holds_what_is_shared(self) -> Cluster:
        shared = self.gpu.shared_memory
        if shared is None or not self.gpu.count:
            return self
        for task in ON_GPU:
            most = self.resources_of(task).memory_limit
            if most is not None and parse_quantity(shared) >= parse_quantity(most):
                raise ValueError(
                    f"gpu.shared_memory = {shared}: is part of resources.{task}.memory_limit = {most}; lower it"
                )
        return self

    @model_validator(mode="after")
    def _waits_end_in_time(self) -> Cluster:
        for task in TASKS:
            most = self.timeouts.get(task)
            if task not in _UNTRACKED and most is not None and most <= self.tracking_patience:
                raise ValueError(
                    f"tracking_patience = {self.tracking_patience}: {task} is ended after timeouts.{task} = "
                    f"{most}; raise that, or wait less"
                )
        return self

    @model_validator(mode="after")
    def _retries_end_in_time(self) -> Cluster:
        run = self.timeouts.get("run")
        for task in TASKS:
            count, most = self.retries_of(task), self.timeouts.get(task)
            if run is None or not count or most is None:
                continue
            window = self.retries.window(count, most)
            if window > run:
                kind = "network" if TASKS[task].network else "training"
                raise ValueError(
                    f"timeouts.run = {run}: ends the run before {task} has had all its tries, {window} s "
                    f"(timeouts.{task} = {most}, retries.{kind} = {count}); raise it, or lower one of these"
                )
        return self

    @model_validator(mode="after")
    def _states_outlast_a_run(self) -> Cluster:
        run, days = self.timeouts.get("run"), self.cache.keep_days
        if self.cache.claim and run is not None and days is not None and days * 24 * 3600 <= run:
            raise ValueError(
                f"cache.keep_days = {days}: a run may take {run} s (timeouts.run), and would find what it has "
                f"trained so far removed; set it to {run // (24 * 3600) + 1} or more"
            )
        return self

    @model_validator(mode="after")
    def _volumes_apart(self) -> Cluster:
        if self.data.claim and self.cache.claim and self.data.path == self.cache.path:
            raise ValueError(f"data.path = cache.path = {self.data.path}: mount them at different places")
        return self

    def resources_of(self, task: str) -> Resources:
        """What a task asks for; the least where nothing is set."""
        return self.resources.get(task, Resources())

    def on_gpu(self, task: str) -> bool:
        """Whether a task gets GPUs."""
        return task in ON_GPU and self.gpu.count > 0

    def retries_of(self, task: str) -> int:
        """How often a task that failed is tried again."""
        row = TASKS[task]
        return self.retries.network if row.network else self.retries.training if row.trains else 0

    def image_for(self, task: str, commit: str | None) -> str:
        """The image that a task runs in, always with a tag or digest.

        Args:
            task: its name.
            commit: the tag of an image that has none.

        Raises:
            UserError: the image has no tag and the commit is not known.
        """
        on_gpu = self.on_gpu(ON_GPU[0] if task == "pull" else task)
        given = on_gpu and self.gpu.image
        field, image = ("cluster.gpu.image", given) if given else ("cluster.image", self.image)
        # a colon before the last slash is that of a port
        if "@" not in image and ":" not in image.rsplit("/", 1)[-1]:
            if commit is None:
                raise UserError(
                    f"{field} = {image}: has no tag, and the commit is not known here; write {image}:<tag>"
                )
            image = f"{image}:{commit}"
        if given or not on_gpu:
            return image
        if "@" in image:
            raise UserError(
                f"cluster.image = {self.image}: a digest is one image; set cluster.gpu.image for the GPUs"
            )
        return f"{image}-gpu"


def compose_cluster(overrides: Sequence[str] = (), conf: Path = CONF) -> Cluster:
    """Compose and check the settings of a cluster.

    Args:
        overrides: `cluster=<name>` of `conf/cluster/` (default: `default`) and single values such as
            `cluster.gpu.count=2`.
        conf: the folder of configuration groups.

    Raises:
        UserError: there is no such cluster or setting, or a value is not allowed.
    """
    chosen = [override for override in overrides if override.startswith(f"{GROUP}=")]
    name = chosen[-1].partition("=")[2] if chosen else "default"
    known = options(conf, every=True)[GROUP]
    if name not in known:
        raise UserError(f"{GROUP}={name}: must be one of {', '.join(known)}{did_you_mean(name, known)}")
    composed = compose_settings(f"{GROUP}/{name}", [o for o in overrides if o not in chosen], conf)[GROUP]
    try:
        return Cluster.model_validate(composed)
    except ValidationError as error:
        raise UserError(explain(error, composed, [GROUP])) from None


def is_cluster(override: str) -> bool:
    """Whether an option is about the cluster, not about what is computed."""
    return re.match(rf"[+~]*{GROUP}[.=]", override) is not None


def commit() -> str | None:
    """The first twelve digits of the commit that is checked out here, None outside a repository."""
    found = git.commit(_ROOT)
    return found[:12] if found else None


def uncommitted() -> bool:
    """Whether the code here differs from its commit, so that an image of the commit would lack the changes."""
    return git.is_dirty("components", "models", "pipelines", "conf", folder=_ROOT)
