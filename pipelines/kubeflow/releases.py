"""Bringing the pipeline to a cluster: compiled, and uploaded as a version named by commit and content."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.shared.digests import value_digest
from components.shared.errors import UserError
from components.shared.params.composing import compose_params
from pipelines.kubeflow import NAME
from pipelines.kubeflow import cluster as settings
from pipelines.kubeflow.client import Client, ClusterError, by_name
from pipelines.kubeflow.cluster import Cluster
from pipelines.kubeflow.images import check_images
from pipelines.kubeflow.options import Access, ReleaseOptions
from pipelines.kubeflow.pipeline import compile_pipeline


@dataclass(frozen=True)
class Release:
    """A version of the pipeline on a cluster, and what its runs are given.

    Args:
        name: of the version: the commit, and a digest of the content, so that other settings of the cluster at the
            same commit make another version.
        source: what the API wants of a run: `pipeline_id`, `version_id`, `experiment_id`, `params`,
            `service_account`.
    """

    name: str
    source: dict[str, Any]


def write_compiled(out: Path, overrides: Sequence[str], data_version: str, on_change: bool = False) -> None:
    """Check the options, write the compiled pipeline, and print what it is for.

    Args:
        out: the file, .yaml.
        overrides: those of the group `cluster` are fixed in the file; the others are a run's defaults.
        data_version: names the state of the data; empty: the run looks at it.
        on_change: a run does nothing where nothing changed.

    Raises:
        UserError: an override is not allowed, or the file can't be written.
    """
    cluster, what, replicates = _divide(overrides)
    commit = settings.commit()
    image = cluster.image_for("ingest", commit)
    text = compiled(replicates, cluster, commit, what, data_version, on_change)
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{out}: can't be written: {error.strerror}; choose another --out") from None
    if image.endswith(f":{commit}") and settings.uncommitted():
        print(f"warning: the image of commit {commit} lacks the changes that are not committed", file=sys.stderr)
    gpu = cluster.gpu
    gpus = f"{gpu.count} {gpu.type} for each of {', '.join(settings.ON_GPU)}" if gpu.count else "no GPU"
    print(f"{out}: image {image}, {gpus}, {summary(what)}")


def compiled(
    replicates: Sequence[int],
    cluster: Cluster,
    commit: str | None,
    overrides: Sequence[str] = (),
    data_version: str = "",
    on_change: bool = False,
) -> str:
    """The pipeline for these seeds and a cluster as YAML."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compile_pipeline(replicates, cluster, path, overrides, data_version, commit, on_change)
        return path.read_text(encoding="utf-8")


def publish(wanted: ReleaseOptions, access: Access, on_change: bool = False) -> tuple[Client, Release]:
    """Compile the pipeline and upload it, unless this version is there.

    Args:
        wanted: what runs.
        access: where.
        on_change: a run does nothing where nothing changed.

    Its name is printed, and by KFP's client links to what was made.

    Options that say what is computed are left out of the file and given to each run, so that they make no new
    version; but for the replicates, which are tasks of their own. Pipeline and experiment are made on first use.

    Raises:
        UserError: an option is not allowed, there are changes that are not committed, or the image, if it is to be
            checked, is not in its registry.
        ClusterError: the server refused or was lost; what was uploaded is found again by the next call.
    """
    cluster, what, replicates = _divide(wanted.overrides or [])
    commit, dirty = settings.commit(), settings.uncommitted()
    if dirty and not wanted.allow_dirty:
        raise UserError(
            f"changes are not committed, so the image of commit {commit} lacks them: commit and build the image, "
            "or go on without them with --allow-dirty"
        )
    if wanted.check_image:
        check_images(cluster, commit, access.timeout)
    text = compiled(replicates, cluster, commit, on_change=on_change)
    name = f"{commit or 'no-commit'}-{'dirty-' if dirty else ''}{value_digest(text)[:8]}"
    client = Client(access, cluster.page)
    pipeline = find_pipeline(client) or client.create_pipeline(NAME)
    found = client.list_pipeline_versions(pipeline, filter=by_name(name)).pipeline_versions
    version = found[0] if found else _upload(client, pipeline, name, text)
    print(f"version     {NAME} {name}{', uploaded before' if found else ''}")
    try:
        experiment = client.create_experiment(wanted.experiment, namespace=client.namespace)
    except ClusterError as error:
        error.args = (f"{error}; version {name} is uploaded, and nothing was started: repeat the command",)
        raise
    source = {
        "pipeline_id": pipeline,
        "version_id": str(version.pipeline_version_id),
        "experiment_id": str(experiment.experiment_id),
        "params": {"overrides": what, "data_version": wanted.data_version},
        "service_account": wanted.service_account,
    }
    return client, Release(name, source)


def find_pipeline(client: Client) -> str | None:
    """Id of the pipeline, None if it was never uploaded."""
    found = client.list_pipelines(namespace=client.namespace, filter=by_name(NAME)).pipelines
    return str(found[0].pipeline_id) if found else None


def summary(overrides: Sequence[str]) -> str:
    """Options for a person to read."""
    return " ".join(overrides) or "the default options"


def options_of(run: Any) -> str:
    """The options of a run or a recurring run for a person to read."""
    parameters = (run.runtime_config.parameters if run.runtime_config else None) or {}
    return summary([str(override) for override in parameters.get("overrides") or []])


def _divide(overrides: Sequence[str]) -> tuple[Cluster, list[str], tuple[int, ...]]:
    """The settings of the cluster that options name, the options of a run, and its seeds; all are checked."""
    where = [override for override in overrides if settings.is_cluster(override)]
    what = [override for override in overrides if override not in where]
    params, _ = compose_params(what)
    return settings.compose_cluster(where), what, params.runtime.replicates


def _upload(client: Client, pipeline: str, name: str, text: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        return client.upload_pipeline_version(str(path), name, pipeline_id=pipeline)
