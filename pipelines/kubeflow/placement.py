"""Putting a task where a cluster wants it: resources, GPUs, volumes, secrets, retries, timeouts."""

from __future__ import annotations

from kfp import dsl, kubernetes

from components.shared.registry.signature import SIGNING_KEY
from components.shared.registry.signed_files import PUBLIC_KEY
from components.shared.steps import Task
from components.shared.tracking.client import PATIENCE_VARIABLE
from pipelines.kubeflow import CACHE, KEEP_DAYS, PAGE, RUN
from pipelines.kubeflow.cluster import Cluster, Gpu

# who is given which key; the private one nobody else
KEYS = "/keys"
_HOLDERS = {SIGNING_KEY: ("register",), PUBLIC_KEY: ("evaluate", "register")}
WRITABLE = "/tmp/pipeline-cache"
# of a try without a time limit, in seconds: a year
_FOR_EVER = 365 * 24 * 3600


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
    # a namespace of pod security `restricted` refuses pods that don't say so; the rest of it KFP sets by itself
    kubernetes.set_security_context(task, run_as_non_root=True)
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
    for name, value in cluster.resources_of(step.name):
        if value is not None:
            # cpu and memory are what is requested
            getattr(task, f"set_{name}" if name.endswith("_limit") else f"set_{name}_request")(value)
    if cluster.on_gpu(step.name):
        task.set_accelerator_type(cluster.gpu.type)
        task.set_accelerator_limit(cluster.gpu.count)


def _scheduling(task: dsl.PipelineTask, step: Task, cluster: Cluster) -> None:
    groups: list[Cluster | Gpu] = [cluster, cluster.gpu] if cluster.on_gpu(step.name) else [cluster]
    for group in groups:
        for key, value in group.node_selector.items():
            kubernetes.add_node_selector(task, label_key=key, label_value=value)
        for toleration in group.tolerations:
            settings = toleration.model_dump()
            kubernetes.add_toleration(task, toleration_seconds=settings.pop("seconds"), **settings)
    kubernetes.set_image_pull_policy(task, cluster.image_pull_policy)
    if cluster.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, secret_names=list(cluster.image_pull_secrets))


def _volumes(task: dsl.PipelineTask, step: Task, cluster: Cluster) -> None:
    # compose looks at the data to name its state
    data = cluster.data if step.name in ("compose", "ingest") else None
    mounted = cluster.cache if step.keeps else data
    if mounted is not None and mounted.claim is not None:
        kubernetes.mount_pvc(task, mounted.claim, mounted.path, mounted.sub_path)
    for name, kind, mount, variable in (
        (cluster.signing.secret, "private", kubernetes.use_secret_as_volume, SIGNING_KEY),
        (cluster.signing.config_map, "public", kubernetes.use_config_map_as_volume, PUBLIC_KEY),
    ):
        if name is not None and step.name in _HOLDERS[variable]:
            mount(task, name, f"{KEYS}/{kind}")
            task.set_env_variable(variable, f"{KEYS}/{kind}/{kind}.pem")
    if step.keeps:
        task.set_env_variable(CACHE, cluster.cache.path if cluster.cache.claim else WRITABLE)
        if cluster.cache.claim and cluster.cache.keep_days:
            task.set_env_variable(KEEP_DAYS, str(cluster.cache.keep_days))
    if cluster.on_gpu(step.name) and cluster.gpu.shared_memory is not None:
        kubernetes.empty_dir_mount(
            task, "shared-memory", "/dev/shm", medium="Memory", size_limit=cluster.gpu.shared_memory
        )


def _environment(task: dsl.PipelineTask, step: Task, cluster: Cluster) -> None:
    if cluster.tracking_patience:
        task.set_env_variable(PATIENCE_VARIABLE, str(cluster.tracking_patience))
    for name, value in cluster.env.items():
        task.set_env_variable(name, value)
    if cluster.on_gpu(step.name) and cluster.gpu.count > 1 and "KERAS_BACKEND" not in cluster.env:
        # the backend that shares out a training over several
        task.set_env_variable("KERAS_BACKEND", "jax")
    for use, sources in (
        (kubernetes.use_secret_as_env, cluster.secrets),
        (kubernetes.use_config_map_as_env, cluster.config_maps),
    ):
        for source in sources:
            use(task, source.name, dict(source.keys), optional=source.optional)
    # from the pod, not as a value: in the cache's key, an id that is new in every run would spoil it
    kubernetes.use_field_path_as_env(task, RUN, "metadata.labels['pipeline/runid']")
    if step.name == "record" and cluster.page is not None:
        task.set_env_variable(PAGE, cluster.page)


def _failures(task: dsl.PipelineTask, step: Task, cluster: Cluster) -> None:
    retries, count = cluster.retries, cluster.retries_of(step.name)
    seconds = cluster.timeouts.get(step.name)
    if count:
        # Argo counts it from the start of the first try, and ends by it whichever one still runs
        window = retries.window(count, _FOR_EVER if seconds is None else seconds)
        task.set_retry(count, f"{retries.seconds}s", retries.factor, f"{window}s")
    if seconds is not None:
        kubernetes.set_timeout(task, seconds)
