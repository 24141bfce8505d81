"""Putting a task where a cluster wants it: resources, GPUs, volumes, secrets, retries, timeouts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kfp import dsl, kubernetes

from components.shared.steps import Task
from pipelines.kubeflow import CACHE, PAGE, RUN
from pipelines.kubeflow.cluster import Cluster, Source, Toleration, Volume

WRITABLE = "/tmp/pipeline-cache"


def apply_cluster_settings(task: dsl.PipelineTask, step: Task, about: str, cluster: Cluster) -> None:
    """Put a task where a cluster wants it.

    Args:
        task: of the pipeline.
        step: its row in the table of steps.
        about: one line on the step, for whoever looks at its pod.
        cluster: the settings.
    """
    _resources(task, step, cluster)
    _scheduling(task, step, cluster)
    _volumes(task, step, cluster)
    _environment(task, step, cluster)
    _failures(task, step, cluster)
    kubernetes.add_pod_label(task, "app.kubernetes.io/name", "contrastive-pipeline")
    kubernetes.add_pod_label(task, "app.kubernetes.io/component", step.name)
    kubernetes.add_pod_annotation(task, "kubernetes.io/description", about)


def pipeline_config(cluster: Cluster) -> dsl.PipelineConfig:
    """What a cluster wants of the run as a whole: its deadline, and how long it is kept when finished."""
    return dsl.PipelineConfig(
        ttl_seconds_after_success=cluster.time_to_live.success,
        ttl_seconds_after_failure=cluster.time_to_live.failure,
        active_deadline_seconds=cluster.timeouts.get("run"),
    )


def _resources(task: dsl.PipelineTask, step: Task, cluster: Cluster) -> None:
    wanted = cluster.resources_of(step.name)
    task.set_cpu_request(wanted.cpu)
    task.set_memory_request(wanted.memory)
    if wanted.cpu_limit is not None:
        task.set_cpu_limit(wanted.cpu_limit)
    if wanted.memory_limit is not None:
        task.set_memory_limit(wanted.memory_limit)
    if cluster.on_gpu(step.name):
        task.set_accelerator_type(cluster.gpu.type)
        task.set_accelerator_limit(cluster.gpu.count)


def _scheduling(task: dsl.PipelineTask, step: Task, cluster: Cluster) -> None:
    selector, tolerations = dict(cluster.node_selector), list(cluster.tolerations)
    if cluster.on_gpu(step.name):
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


def _volumes(task: dsl.PipelineTask, step: Task, cluster: Cluster) -> None:
    # compose looks at the data to name its state
    if step.name in ("compose", "ingest"):
        _mount(task, cluster.data)
    if step.name == "pretrain":
        _mount(task, cluster.cache)
        task.set_env_variable(CACHE, cluster.cache.path if cluster.cache.claim else WRITABLE)
    if cluster.on_gpu(step.name) and cluster.gpu.shared_memory is not None:
        kubernetes.empty_dir_mount(
            task, "shared-memory", "/dev/shm", medium="Memory", size_limit=cluster.gpu.shared_memory
        )


def _mount(task: dsl.PipelineTask, volume: Volume) -> None:
    if volume.claim is not None:
        kubernetes.mount_pvc(task, volume.claim, volume.path, volume.sub_path)


def _environment(task: dsl.PipelineTask, step: Task, cluster: Cluster) -> None:
    for name, value in cluster.env.items():
        task.set_env_variable(name, value)
    if cluster.on_gpu(step.name) and cluster.gpu.count > 1 and "KERAS_BACKEND" not in cluster.env:
        # the backend that shares out a training over several
        task.set_env_variable("KERAS_BACKEND", "jax")
    for secret in cluster.secrets:
        kubernetes.use_secret_as_env(task, *_name_and_keys(secret), optional=secret.optional)
    for config_map in cluster.config_maps:
        kubernetes.use_config_map_as_env(task, *_name_and_keys(config_map), optional=config_map.optional)
    # from the pod, not as a value: in the cache's key, an id that is new in every run would spoil it
    kubernetes.use_field_path_as_env(task, RUN, "metadata.labels['pipeline/runid']")
    if step.name == "record" and cluster.page is not None:
        task.set_env_variable(PAGE, cluster.page)


def _name_and_keys(source: Source) -> tuple[str, dict[str, str]]:
    return source.name, dict(source.keys)


def _failures(task: dsl.PipelineTask, step: Task, cluster: Cluster) -> None:
    retries = cluster.retries
    count = retries.network if step.network else retries.training if step.trains else 0
    if count:
        options: dict[str, Any] = {
            "backoff_duration": f"{retries.seconds}s",
            "backoff_factor": retries.factor,
            "backoff_max_duration": f"{retries.longest_seconds}s",
        }
        task.set_retry(count, **options)
    seconds = cluster.timeouts.get(step.name)
    if seconds is not None:
        kubernetes.set_timeout(task, seconds)
