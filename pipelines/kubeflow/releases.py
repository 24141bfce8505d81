"""Bringing the pipeline to a cluster: compiled, and uploaded as a version named by commit and content."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from components.shared.digests import value_digest
from components.shared.errors import UserError
from components.shared.params.composing import compose
from components.shared.params.explain import did_you_mean
from pipelines.kubeflow import NAME
from pipelines.kubeflow.connection import Connection
from pipelines.kubeflow.faults import ClusterError
from pipelines.kubeflow.options import ReleaseOptions

if TYPE_CHECKING:
    from pipelines.kubeflow.cluster import Cluster

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
    """A version on the cluster; `new` says that it was uploaded just now."""

    pipeline_id: str
    version_id: str
    name: str
    new: bool

    @property
    def told(self) -> str:
        """What to tell about it."""
        return self.name if self.new else f"{self.name}, uploaded before"


@dataclass(frozen=True)
class Experiment:
    """An experiment on the cluster, and what to tell about it."""

    id: str
    told: str


def prepare(options: ReleaseOptions) -> Release:
    """Check the options and compile the pipeline for the cluster that they name.

    The options that say what is computed are left out of the file and given to each run, so that they make no new
    version.

    Raises:
        UserError: an option is not allowed, or there are changes that are not committed.
    """
    from pipelines.kubeflow import cluster as settings

    overrides = options.overrides or []
    where = [override for override in overrides if settings.is_cluster(override)]
    what = [override for override in overrides if override not in where]
    compose(what)
    cluster = settings.compose_cluster(where)
    commit, dirty = settings.commit(), settings.uncommitted()
    if dirty and not options.allow_dirty:
        raise UserError(
            f"changes are not committed, so the image of commit {commit} lacks them: commit and build the image, "
            "or go on without them with --allow-dirty"
        )
    documents = compiled(cluster, commit)
    digest = value_digest(documents)
    version = "-".join([commit or "no-commit", *(["dirty"] if dirty else []), digest[:8]])
    about = f"{' '.join(where) or 'cluster=default'}; {DIGEST}{digest}"
    parameters = {"overrides": what, "data_version": options.data_version}
    return Release(NAME, version, documents, parameters, about, cluster.page)


def compiled(cluster: Cluster, commit: str | None) -> list[dict[str, Any]]:
    """The pipeline for a cluster: the documents of the compiled YAML."""
    from pipelines.kubeflow.pipeline import compile_pipeline

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compile_pipeline(cluster, path, commit=commit)
        return [document for document in yaml.safe_load_all(path.read_text()) if document]


def named(name: str) -> str:
    """Filter of a list by display name, as the API wants it."""
    predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
    return json.dumps({"predicates": [predicate]})


def publish(connection: Connection, release: Release) -> Published:
    """Upload a version, unless it is there; the pipeline is made on first use.

    Raises:
        ClusterError: the server refused or was lost; what was uploaded is found again by the next call.
        UserError: a version of that name has other content.
    """
    pipeline = find_pipeline(connection, release.pipeline) or _made_pipeline(connection, release)
    found = _find_version(connection, pipeline, release.version)
    if found is None:
        try:
            uploaded = _uploaded(connection, pipeline, release)
        except ClusterError as error:
            # another one uploaded it in this very moment
            found = _find_version(connection, pipeline, release.version) if error.status == 409 else None
            if found is None:
                raise
        else:
            return Published(pipeline, uploaded.pipeline_version_id, release.version, new=True)
    # a list may leave the content out
    version = connection.call(
        connection.pipelines.pipeline_service_get_pipeline_version, pipeline, found.pipeline_version_id
    )
    if not release.matches(version):
        raise UserError(
            f"{release.pipeline}: version {release.version} is there with other content; delete it on the Kubeflow "
            "page, then repeat the command"
        )
    return Published(pipeline, version.pipeline_version_id, release.version, new=False)


def find_pipeline(connection: Connection, name: str) -> str | None:
    """Id of the pipeline of that name, None if there is none."""
    pipelines = connection.pages(
        connection.pipelines.pipeline_service_list_pipelines,
        "pipelines",
        namespace=connection.namespace,
        filter=named(name),
    )
    return next((str(pipeline.pipeline_id) for pipeline in pipelines), None)


def version_name(connection: Connection, reference: Any) -> str:
    """Name of the version that something refers to."""
    if reference is None or not reference.pipeline_version_id:
        return ""
    try:
        version = connection.call(
            connection.pipelines.pipeline_service_get_pipeline_version,
            reference.pipeline_id,
            reference.pipeline_version_id,
        )
    except ClusterError as error:
        if error.status != 404:
            raise
        return "deleted"
    return str(version.display_name or version.name)


def use_experiment(connection: Connection, given: str | None, default: str) -> Experiment:
    """The experiment to run in, made on first use.

    Args:
        connection: to the cluster.
        given: its name from the command line; else as with KFP's client, from the environment.
        default: its name if neither names one.

    Raises:
        UserError: it is archived.
    """
    import kfp_server_api as api

    chosen = given or os.environ.get("KF_PIPELINES_DEFAULT_EXPERIMENT_NAME") or default
    name = os.environ.get("KF_PIPELINES_OVERRIDE_EXPERIMENT_NAME") or chosen
    found = _experiment(connection, name)
    if found is None:
        wanted = api.V2beta1Experiment(display_name=name, namespace=connection.namespace)
        try:
            made = connection.call(connection.experiments.experiment_service_create_experiment, wanted)
        except ClusterError as error:
            found = _experiment(connection, name) if error.status == 409 else None
            if found is None:
                raise
        else:
            return Experiment(str(made.experiment_id), f"{name}, made now")
    if found.storage_state == "ARCHIVED":
        raise UserError(f"--experiment = {name}: is archived; restore it on the Kubeflow page, or name another")
    return Experiment(str(found.experiment_id), name)


def known_experiment(connection: Connection, name: str) -> str:
    """Id of an experiment that must be there.

    Raises:
        UserError: it is not; the line names those that are.
    """
    found = _experiment(connection, name)
    if found is None:
        everyone = connection.pages(
            connection.experiments.experiment_service_list_experiments,
            "experiments",
            namespace=connection.namespace,
        )
        names = sorted(str(experiment.display_name) for experiment in everyone)
        some = ", ".join(names[:10]) or "none yet; `submit` makes one"
        raise UserError(f"--experiment = {name}: no such experiment{did_you_mean(name, names)}; there are: {some}")
    return str(found.experiment_id)


def _experiment(connection: Connection, name: str) -> Any:
    found = connection.pages(
        connection.experiments.experiment_service_list_experiments,
        "experiments",
        namespace=connection.namespace,
        filter=named(name),
    )
    return next(iter(found), None)


def _made_pipeline(connection: Connection, release: Release) -> str:
    import kfp_server_api as api

    about = str(release.documents[0].get("pipelineInfo", {}).get("description", ""))
    wanted = api.V2beta1Pipeline(display_name=release.pipeline, description=about, namespace=connection.namespace)
    try:
        made = connection.call(connection.pipelines.pipeline_service_create_pipeline, wanted)
    except ClusterError as error:
        found = find_pipeline(connection, release.pipeline) if error.status == 409 else None
        if found is None:
            raise
        return found
    return str(made.pipeline_id)


def _find_version(connection: Connection, pipeline: str, name: str) -> Any:
    versions = connection.pages(
        connection.pipelines.pipeline_service_list_pipeline_versions,
        "pipeline_versions",
        pipeline,
        filter=named(name),
    )
    return next(iter(versions), None)


def _uploaded(connection: Connection, pipeline: str, release: Release) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{release.version}.yaml"
        path.write_text(yaml.safe_dump_all(release.documents, sort_keys=False))
        return connection.call(
            connection.uploads.upload_pipeline_version,
            str(path),
            name=release.version,
            pipelineid=pipeline,
            description=release.about,
        )


def summary(overrides: Sequence[str]) -> str:
    """Options for a person to read."""
    return " ".join(overrides) or "the default options"
