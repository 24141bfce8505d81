"""Putting a task where a cluster wants it: resources, GPUs, volumes, secrets, retries, timeouts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kfp import dsl, kubernetes

from pipelines.kubeflow.cluster import ON_GPU, Cluster, Source, Step, Toleration, Volume
from pipelines.kubeflow.runtime import CACHE, PAGE, RUN

# they ask a source, a registry or a tracking server for what they can't do without
ON_NETWORK = ("ingest", "champion", "register", "record")
TRAINING = ("pretrain", "probe", "baseline", "finetune")
WRITABLE = "/tmp/pipeline-cache"


def place(task: dsl.PipelineTask, step: Step, about: str, cluster: Cluster) -> None:
    """Apply the settings of a cluster to one task.

    Args:
        task: of the pipeline.
        step: name of the step whose settings count.
        about: one line on the step, for whoever looks at its pod.
        cluster: the settings.
    """
    _resources(task, step, cluster)
    _scheduling(task, step, cluster)
    _volumes(task, step, cluster)
    _environment(task, step, cluster)
    _failures(task, step, cluster)
    kubernetes.add_pod_label(task, "app.kubernetes.io/name", "contrastive-pipeline")
    kubernetes.add_pod_label(task, "app.kubernetes.io/component", step)
    kubernetes.add_pod_annotation(task, "kubernetes.io/description", about)


def on_gpu(step: Step, cluster: Cluster) -> bool:
    """Whether a step gets GPUs."""
    return step in ON_GPU and cluster.gpu.count > 0


def pipeline_config(cluster: Cluster) -> dsl.PipelineConfig:
    """What a cluster wants of the run as a whole: its deadline, and how long it is kept when finished."""
    return dsl.PipelineConfig(
        ttl_seconds_after_success=cluster.time_to_live.success,
        ttl_seconds_after_failure=cluster.time_to_live.failure,
        active_deadline_seconds=cluster.timeouts.get("run"),
    )


def _resources(task: dsl.PipelineTask, step: Step, cluster: Cluster) -> None:
    wanted = cluster.for_step(step)
    task.set_cpu_request(wanted.cpu)
    task.set_memory_request(wanted.memory)
    if wanted.cpu_limit is not None:
        task.set_cpu_limit(wanted.cpu_limit)
    if wanted.memory_limit is not None:
        task.set_memory_limit(wanted.memory_limit)
    if on_gpu(step, cluster):
        task.set_accelerator_type(cluster.gpu.type)
        task.set_accelerator_limit(cluster.gpu.count)


def _scheduling(task: dsl.PipelineTask, step: Step, cluster: Cluster) -> None:
    selector, tolerations = dict(cluster.node_selector), list(cluster.tolerations)
    if on_gpu(step, cluster):
        selector |= cluster.gpu.node_selector
        tolerations += cluster.gpu.tolerations
    for key, value in selector.items():
        kubernetes.add_node_selector(task, label_key=key, label_value=value)
    _tolerate(task, tolerations)
    kubernetes.set_image_pull_policy(task, cluster.image_pull_policy)
    if cluster.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, secret_names=list(cluster.image_pull_secrets))


def _tolerate(task: dsl.PipelineTask, tolerations: Sequence[Toleration]) -> None:
    for toleration in tolerations:
        kubernetes.add_toleration(
            task,
            key=toleration.key,
            operator=toleration.operator,
            value=toleration.value,
            effect=toleration.effect,
            toleration_seconds=toleration.seconds,
        )


def _volumes(task: dsl.PipelineTask, step: Step, cluster: Cluster) -> None:
    # compose looks at the data to name its state
    if step in ("compose", "ingest"):
        _mount(task, cluster.data)
    if step == "pretrain":
        _mount(task, cluster.cache)
        task.set_env_variable(CACHE, cluster.cache.path if cluster.cache.claim else WRITABLE)
    if on_gpu(step, cluster) and cluster.gpu.shared_memory is not None:
        kubernetes.empty_dir_mount(
            task, "shared-memory", "/dev/shm", medium="Memory", size_limit=cluster.gpu.shared_memory
        )


def _mount(task: dsl.PipelineTask, volume: Volume) -> None:
    if volume.claim is not None:
        kubernetes.mount_pvc(task, volume.claim, volume.path, volume.sub_path)


def _environment(task: dsl.PipelineTask, step: Step, cluster: Cluster) -> None:
    for name, value in cluster.env.items():
        task.set_env_variable(name, value)
    if on_gpu(step, cluster) and cluster.gpu.count > 1 and "KERAS_BACKEND" not in cluster.env:
        # the backend that shares out a training over several
        task.set_env_variable("KERAS_BACKEND", "jax")
    for secret in cluster.secrets:
        kubernetes.use_secret_as_env(task, *_keys(secret), optional=secret.optional)
    for config_map in cluster.config_maps:
        kubernetes.use_config_map_as_env(task, *_keys(config_map), optional=config_map.optional)
    # from the pod, not as a value: in the cache's key, an id that is new in every run would spoil it
    kubernetes.use_field_path_as_env(task, RUN, "metadata.labels['pipeline/runid']")
    if step == "record" and cluster.page is not None:
        task.set_env_variable(PAGE, cluster.page)


def _keys(source: Source) -> tuple[str, dict[str, str]]:
    return source.name, dict(source.keys)


def _failures(task: dsl.PipelineTask, step: Step, cluster: Cluster) -> None:
    retries = cluster.retries
    count = retries.network if step in ON_NETWORK else retries.training if step in TRAINING else 0
    if count:
        options: dict[str, Any] = {
            "backoff_duration": f"{retries.seconds}s",
            "backoff_factor": retries.factor,
            "backoff_max_duration": f"{retries.longest_seconds}s",
        }
        task.set_retry(count, **options)
    seconds = cluster.timeouts.get(step)
    if seconds is not None:
        kubernetes.set_timeout(task, seconds)
