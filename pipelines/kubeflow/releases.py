"""Bringing the pipeline to a cluster: compiled, and uploaded as a version named by commit and content."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from components.shared.digests import value_digest
from components.shared.errors import UserError
from components.shared.params.composing import compose
from components.shared.params.explain import did_you_mean
from pipelines.kubeflow import NAME
from pipelines.kubeflow import cluster as settings
from pipelines.kubeflow.client import Client, ClusterError, every, find_by_name, find_or_make
from pipelines.kubeflow.cluster import Cluster
from pipelines.kubeflow.pipeline import compile_pipeline

DIGEST = "content sha256:"


@dataclass(frozen=True)
class Release:
    """A compiled pipeline, ready to upload.

    Args:
        pipeline: its name.
        version: name of this version: the commit, and a digest of the content, so that other settings of the
            cluster at the same commit make another version.
        documents: the compiled YAML's documents: the pipeline, and what the platform is told.
        parameters: of a run.
        about: description of the version.
        page: address of the Kubeflow page that the cluster's settings name.
    """

    pipeline: str
    version: str
    documents: list[dict[str, Any]]
    parameters: dict[str, Any]
    about: str
    page: str | None

    def matches(self, version: Any) -> bool:
        """Whether a version on the cluster has this content."""
        if f"{DIGEST}{value_digest(self.documents)}" in (version.description or ""):
            return True
        # uploaded by other means: the server gives one document as it is, two under these names
        found = version.pipeline_spec or {}
        content = [found["pipeline_spec"], found.get("platform_spec", {})] if "pipeline_spec" in found else [found]
        return content == self.documents


@dataclass(frozen=True)
class Published:
    """A version on the cluster; `label` also says whether it was there already."""

    pipeline_id: str
    version_id: str
    name: str
    label: str


def prepare(overrides: Sequence[str], data_version: str = "", allow_dirty: bool = False) -> Release:
    """Check the options and compile the pipeline for the cluster that they name.

    The options that say what is computed are left out of the file and given to each run, so that they make no new
    version.

    Args:
        overrides: options of the cluster and of the run.
        data_version: names the state of the data; empty: the run looks at it.
        allow_dirty: although changes are not committed; the version is marked so.

    Raises:
        UserError: an option is not allowed, or there are changes that are not committed.
    """
    where = [override for override in overrides if settings.is_cluster(override)]
    what = [override for override in overrides if override not in where]
    compose(what)
    cluster = settings.compose_cluster(where)
    commit, dirty = settings.commit(), settings.uncommitted()
    if dirty and not allow_dirty:
        raise UserError(
            f"changes are not committed, so the image of commit {commit} lacks them: commit and build the image, "
            "or go on without them with --allow-dirty"
        )
    documents = compiled(cluster, commit)
    digest = value_digest(documents)
    version = "-".join([commit or "no-commit", *(["dirty"] if dirty else []), digest[:8]])
    about = f"{' '.join(where) or 'cluster=default'}; {DIGEST}{digest}"
    parameters = {"overrides": what, "data_version": data_version}
    return Release(NAME, version, documents, parameters, about, cluster.page)


def compiled(cluster: Cluster, commit: str | None) -> list[dict[str, Any]]:
    """The pipeline for a cluster: the documents of the compiled YAML."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compile_pipeline(cluster, path, commit=commit)
        return [document for document in yaml.safe_load_all(path.read_text()) if document]


def publish(client: Client, release: Release) -> Published:
    """Upload a version, unless it is there; the pipeline is made on first use.

    Raises:
        ClusterError: the server refused or was lost; what was uploaded is found again by the next call.
        UserError: a version of that name has other content.
    """
    pipeline, _ = find_or_make(lambda: find_pipeline(client), lambda: _new_pipeline(client, release))
    versions, name = client.list_pipeline_versions, release.version
    found, new = find_or_make(
        lambda: find_by_name(versions, "pipeline_versions", name, pipeline_id=pipeline),
        lambda: _upload(client, pipeline, release),
    )
    identity = str(found.pipeline_version_id)
    # a list may leave the content out
    if not new and not release.matches(client.get_pipeline_version(pipeline, identity)):
        raise UserError(
            f"{release.pipeline}: version {release.version} is there with other content; delete it on the Kubeflow "
            "page, then repeat the command"
        )
    return Published(pipeline, identity, release.version, release.version + ("" if new else ", uploaded before"))


def find_pipeline(client: Client) -> str | None:
    """Id of the pipeline, None if it was never uploaded."""
    found = find_by_name(client.list_pipelines, "pipelines", NAME, namespace=client.namespace)
    return str(found.pipeline_id) if found is not None else None


def version_name(client: Client, reference: Any) -> str:
    """Name of the version that something refers to."""
    if reference is None or not reference.pipeline_version_id:
        return ""
    try:
        version = client.get_pipeline_version(reference.pipeline_id, reference.pipeline_version_id)
    except ClusterError as error:
        if error.status != 404:
            raise
        return "deleted"
    return str(version.display_name or version.name)


def use_experiment(client: Client, given: str | None, default: str = NAME) -> tuple[str, str]:
    """The experiment to run in, made on first use.

    Args:
        client: of the cluster.
        given: its name from the command line; else as with KFP's client, from the environment.
        default: its name if neither names one.

    Returns:
        Its id; its name, and whether it was made just now.

    Raises:
        UserError: it is archived.
    """
    chosen = given or os.environ.get("KF_PIPELINES_DEFAULT_EXPERIMENT_NAME") or default
    name = os.environ.get("KF_PIPELINES_OVERRIDE_EXPERIMENT_NAME") or chosen
    found, new = find_or_make(
        lambda: find_by_name(client.list_experiments, "experiments", name), lambda: client.create_experiment(name)
    )
    if found.storage_state == "ARCHIVED":
        raise UserError(f"--experiment = {name}: is archived; restore it on the Kubeflow page, or name another")
    return str(found.experiment_id), name + (", made now" if new else "")


def known_experiment(client: Client, name: str) -> str:
    """Id of an experiment that must be there.

    Raises:
        UserError: it is not; the line names those that are.
    """
    found = find_by_name(client.list_experiments, "experiments", name)
    if found is None:
        names = sorted(str(item.display_name) for item in every(client.list_experiments, "experiments"))
        some = ", ".join(names[:10]) or "none yet; `submit` makes one"
        raise UserError(f"--experiment = {name}: no such experiment{did_you_mean(name, names)}; there are: {some}")
    return str(found.experiment_id)


def summary(overrides: Sequence[str]) -> str:
    """Options for a person to read."""
    return " ".join(overrides) or "the default options"


def _new_pipeline(client: Client, release: Release) -> str:
    # KFP's own method makes a first version of the pipeline's name
    about = str(release.documents[0].get("pipelineInfo", {}).get("description", ""))
    wanted = {"display_name": release.pipeline, "description": about, "namespace": client.namespace}
    return str(client.pipelines.pipeline_service_create_pipeline(wanted).pipeline_id)


def _upload(client: Client, pipeline: str, release: Release) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{release.version}.yaml"
        path.write_text(yaml.safe_dump_all(release.documents, sort_keys=False))
        return client.upload_pipeline_version(
            str(path), release.version, pipeline_id=pipeline, description=release.about
        )
