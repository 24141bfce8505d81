"""Retention: what is old and needed by nobody, found and removed.

What can't be told for certain is kept. MLflow marks runs and models as deleted and leaves their files; so the files
go first, and a removal that broke off finds the rest again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from components.shared.errors import UserError
from components.shared.registry.ledger import EXPERIMENT
from components.shared.registry.uris import parse_uri
from components.shared.registry.versions import PRUNED, REJECTED, STATUS, all_tags, registry_client
from components.shared.replicates import KEPT
from components.shared.repository import in_lasting_repository
from components.shared.steps import STEPS
from pipelines.command_line import print_table
from pipelines.review.actions import find_models
from pipelines.review.commands import ModelOptions
from pipelines.review.record import Record
from pipelines.review.state import ReviewedModels

# a run that was never ended may still go on
_ABANDONED = timedelta(days=30)
_PARENT, _PIPELINE_RUN = "mlflow.parentRunId", "pipeline.run"


@dataclass(frozen=True)
class Item:
    """Something to remove.

    Attributes:
        kind: of which the table has a row.
        name: by which it is found again.
        last: when it was made, ended or used last.
        remove: does it; doing it twice is no error.
    """

    kind: str
    name: str
    last: datetime
    remove: Callable[[], None]


@dataclass
class _Needed:
    """What versions that stay need: ids of runs, of logged models, and of pipeline runs."""

    runs: set[str] = field(default_factory=set)
    models: set[str] = field(default_factory=set)
    pipeline_runs: set[str] = field(default_factory=set)


def prune(options: ModelOptions, before: datetime, kubeflow: Any, delete: bool, as_json: bool) -> None:
    """Print what is old and needed by nobody, and remove it if told to.

    Args:
        options: which registered models are under review; versions of all others stay.
        before: what was made, ended or used since stays.
        kubeflow: client of a cluster whose runs are looked at too, or None.
        delete: remove it.
        as_json: print all of it by name, not how much of each kind.

    Raises:
        UserError: the registry or the cluster does not answer, or does not let this account do that.
    """
    models = find_models(options)
    with registry_client(models.model) as client:
        items = list(_found(client, models, before, kubeflow))
        if as_json:
            told = [{"kind": item.kind, "name": item.name, "last": item.last.isoformat()} for item in items]
            print(json.dumps({"deleted": delete, "items": told}, indent=2))
        else:
            _print(items, before)
        if delete:
            for item in items:
                item.remove()
    if not as_json and items:
        print(f"\n{'removed' if delete else 'nothing was removed; --delete removes all of it'}")


def _print(items: list[Item], before: datetime) -> None:
    kinds: dict[str, list[datetime]] = {}
    for item in items:
        kinds.setdefault(item.kind, []).append(item.last)
    if not items:
        print(f"nothing from before {before:%Y-%m-%d %H:%M} UTC can go")
        return
    rows = [[kind, str(len(at)), f"{min(at):%Y-%m-%d}", f"{max(at):%Y-%m-%d}"] for kind, at in kinds.items()]
    print_table(("WHAT", "HOW MANY", "OLDEST (UTC)", "NEWEST (UTC)"), rows)


def _found(client: Any, models: ReviewedModels, before: datetime, kubeflow: Any) -> Iterator[Item]:
    """All that can go, in the order in which it must."""
    versions = {(version.name, str(version.version)): version for version in mlflow.search_model_versions()}
    staying = _staying(client, models, versions, before)
    for key, version in versions.items():
        if key not in staying and PRUNED not in version.tags:
            yield Item("version", "/".join(key), _time(version.creation_timestamp), partial(_drop, client, version))
    needed = _needs([versions[key] for key in staying])
    for experiment in _pages(client.search_experiments, filter_string="name LIKE 'contrastive-%'"):
        if experiment.name != EXPERIMENT:
            yield from _of_experiment(client, experiment.experiment_id, needed, before)
    if kubeflow is not None:
        yield from _on_cluster(kubeflow, needed, before)
    yield from _checkpoints(before)


def _staying(
    client: Any, models: ReviewedModels, versions: Mapping[tuple[str, str], Any], before: datetime
) -> set[tuple[str, str]]:
    """The versions that nothing may be taken from."""
    registered = {model.name: model for model in _pages(client.search_registered_models)}
    aliased = {(name, str(at)) for name, model in registered.items() for at in model.aliases.values()}
    champions = registered.get(models.champion_model)
    for decision in Record.of(champions.tags if champions else {}).decisions:
        if decision.moves:
            aliased |= {(models.model, str(decision.version))}
            aliased |= {(models.champion_model, str(number)) for number in (decision.champion, decision.replaced)}
    staying = {
        key
        for key, version in versions.items()
        if key[0] not in (models.model, models.production)
        or key in aliased
        or version.tags.get(STATUS) not in (None, REJECTED)
        or _time(version.creation_timestamp) >= before
    }
    # a copy has the files of what it was copied from
    copied = list(staying)
    while copied:
        source = parse_uri(versions[copied.pop()].source or "")
        origin = (str(source.name), str(source.version)) if source else ("", "")
        if origin in versions and origin not in staying:
            staying.add(origin)
            copied.append(origin)
    return staying


def _needs(versions: list[Any]) -> _Needed:
    needed = _Needed()
    for version in versions:
        source = parse_uri(version.source or "")
        tags = all_tags(version.tags)
        named = [value for key, value in tags.items() if key.startswith("run.") or key.endswith("_run")]
        needed.runs.update(named, [version.run_id] if version.run_id else [])
        needed.models.update(filter(None, [version.model_id, source.model_id if source else None]))
        made_by = tags.get("pipeline_run", "")
        # all runs of `dvc repro` at one commit have the same name
        if made_by and not made_by.startswith("repro-"):
            needed.pipeline_runs.add(made_by)
    return needed


def _of_experiment(client: Any, experiment: str, needed: _Needed, before: datetime) -> Iterator[Item]:
    runs = list(_pages(client.search_runs, experiment_ids=[experiment], max_results=1000))
    staying = {run.info.run_id: run for run in runs if not _can_go(run, needed, before)}
    staying_parents = {run.data.tags.get(_PARENT) for run in staying.values()}
    for model in _pages(client.search_logged_models, experiment_ids=[experiment]):
        made = _time(model.creation_timestamp)
        if model.model_id not in needed.models and model.source_run_id not in staying and made < before:
            remove = partial(_remove, model.artifact_location, model.model_id, client.delete_logged_model)
            yield Item("model", model.model_id, made, remove)
    for run in runs:
        identity = run.info.run_id
        if identity not in staying and identity not in staying_parents:
            remove = partial(_remove, run.info.artifact_uri, identity, client.delete_run)
            yield Item("run", identity, _time(run.info.end_time or run.info.start_time), remove)


def _can_go(run: Any, needed: _Needed, before: datetime) -> bool:
    info = run.info
    old = _time(info.end_time) < before if info.end_time else _time(info.start_time) < before - _ABANDONED
    return old and info.run_id not in needed.runs and run.data.tags.get(_PIPELINE_RUN) not in needed.pipeline_runs


def _on_cluster(client: Any, needed: _Needed, before: datetime) -> Iterator[Item]:
    from pipelines.kubeflow.client import every
    from pipelines.kubeflow.releases import find_pipeline
    from pipelines.kubeflow.runs import ENDED

    pipeline = find_pipeline(client)
    for run in every(client.list_runs, "runs", namespace=client.namespace, sort_by="created_at"):
        source, last = run.pipeline_version_reference, max(run.created_at, run.finished_at or run.created_at)
        ours = pipeline is not None and source is not None and source.pipeline_id == pipeline
        if ours and run.state in ENDED and last < before and run.run_id not in needed.pipeline_runs:
            yield Item("Kubeflow run", run.run_id, last, partial(client.delete_run, run.run_id))


def _checkpoints(before: datetime) -> Iterator[Item]:
    """What is kept of interrupted steps, and finished replicates that no run has used since."""
    keeping = (step.name for step in STEPS.values() if step.keeps)
    for pattern in (*(f"{KEPT.parent}/{name}/*" for name in keeping), f"{KEPT}/*/*"):
        try:
            found = sorted(in_lasting_repository(".").glob(pattern))
        except UserError:
            # outside of a repository there are none
            return
        for path in found:
            last = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            if last < before:
                yield Item("checkpoint", str(path), last, partial(_unlink, path))


def _drop(client: Any, version: Any) -> None:
    """Delete a version that nobody decided on; a rejected one stays on record, or it would be put up again."""
    name, number = version.name, str(version.version)
    now = client.get_model_version(name, number)
    if now.aliases or now.tags.get(STATUS) != version.tags.get(STATUS):
        raise UserError(f"{name} version {number}: was decided on just now; look at it, and repeat the command")
    if STATUS in version.tags:
        client.set_model_version_tag(name, number, PRUNED, f"{datetime.now(UTC):%Y-%m-%d}")
    else:
        client.delete_model_version(name, number)


def _remove(location: str, identity: str, delete: Callable[[str], object]) -> None:
    # never a folder that others share
    if identity in location:
        get_artifact_repository(location).delete_artifacts()
    delete(identity)


def _unlink(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _pages(search: Callable[..., Any], **asked: Any) -> Iterator[Any]:
    token = None
    while True:
        page = search(page_token=token, **asked)
        yield from page
        token = page.token
        if not token:
            return


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
