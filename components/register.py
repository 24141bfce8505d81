"""Register: put a blessed model up for review, once it has loaded, answered and served as its users will need."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from components.shared.artifacts import Dataset, Result, input_digest, read_record
from components.shared.digests import file_digest
from components.shared.errors import UserError
from components.shared.evaluation.gate import Blessing, read_blessing
from components.shared.evaluation.predictions import CONTENDERS, TEST, Candidate, read_candidate
from components.shared.params.schema import Params
from components.shared.registry.infra_validation import UnfitError, validate_infrastructure
from components.shared.registry.logged_model import NoClassifierError, describe_logged_model, log_classifier
from components.shared.registry.model_card import model_card
from components.shared.registry.version_tags import Subject, version_tags
from components.shared.registry.versions import find_version, put_up_for_review
from components.shared.step import Work, command_line, working
from components.shared.tracking.client import absolute_uri, connect
from components.shared.tracking.earlier_runs import find_runs, recorded_runs
from components.shared.tracking.lineage import lineage

CLASSIFIER = "classifier.keras"
COMPARED_IMAGES = 256


class RefusedError(Exception):
    """Why a model is not registered, in one line."""


def register(dataset: Path, evaluation: Path, probe: Path, finetune: Path, out: Path, params: Params) -> Result:
    """Register the winner as a version with the alias `challenger`, or write down why not.

    A model that is not blessed, does not belong to the evaluation, does not load in a fresh process without this
    project, answers differently there or over HTTP, or takes requests that its signature forbids, is not
    registered. That is a result, not an error: `result.json` holds the reason and the step ends well, because a
    repeated run would find the same. A registry that does not answer is an error: nothing is written, and the next
    run tries again.

    Args:
        dataset: folder of `ingest`.
        evaluation: folder of `evaluate`.
        probe: folder of `probe`.
        finetune: folder of `finetune`.
        out: folder to write: `result.json` with `registered`, `why`, the version and its alias, and what was
            measured of the model: `model_mebibytes`, `memory_mebibytes`, `load_seconds`, `latency_ms_batch_1` and
            `_32` (a call in Python), `http_latency_ms_batch_1` and `_32` (a request to the server).
        params: with section `registry`.

    Returns:
        The record.

    Raises:
        UserError: the dataset or the evaluation is missing or damaged, or the registry does not answer.
    """
    data = Dataset(dataset)
    blessing, judged = read_blessing(evaluation), read_record(evaluation, Result)
    folders = {"probe": Path(probe), "finetune": Path(finetune)}
    inputs = {"dataset": Path(dataset), "evaluation": Path(evaluation), **folders}
    with working("register", out, params, inputs, data.manifest.name) as work:
        measured: dict[str, float] = {}
        try:
            details = _register(work, data, blessing, judged, folders, measured)
        except RefusedError as refusal:
            details = {"registered": False, "why": str(refusal)}
        details["model_name"] = params.registry.model_name
        work.run.tags({"registered": str(details["registered"]).lower()})
        result = work.finish(
            data.manifest.digest, {"registered": float(details["registered"]), **measured}, **details
        )
    _say(details["why"])
    return result


def _register(
    work: Work,
    data: Dataset,
    blessing: Blessing,
    judged: Result,
    folders: dict[str, Path],
    measured: dict[str, float],
) -> dict[str, Any]:
    winner = _winner(work, data, blessing, judged, folders)
    path = folders[winner.name] / CLASSIFIER
    name, digest = work.params.registry.model_name, _classifier_digest(path)
    known = find_version(name, digest)
    uri = known.uri if known is not None else _logged(path, data, work.run.id)
    measured["model_mebibytes"] = round(path.stat().st_size / 2**20, 3)
    try:
        measured |= _validated(uri, data, winner)
    except RefusedError as refusal:
        describe_logged_model(uri, work.run.id, {}, {"refused": str(refusal)})
        raise
    describe_logged_model(uri, work.run.id, {**measured, **_accuracies(judged, winner.name)}, {"validated": "true"})
    subject = _subject(work, data, blessing, judged, winner, folders, measured)
    version = put_up_for_review(
        name, uri, digest, version_tags(subject), lambda number: model_card(subject, name, number)
    )
    aliases = " and ".join(version.aliases)
    return {
        "registered": True,
        "why": f"{name} version {version.number} is {aliases}" + (" (it was registered before)" if known else ""),
        "version": version.number,
        "aliases": list(version.aliases),
        "model_uri": version.uri,
        "artifact_digest": digest,
        "runs": {step: run.run_id for step, run in subject.runs.items()},
    }


def _winner(work: Work, data: Dataset, blessing: Blessing, judged: Result, folders: dict[str, Path]) -> Candidate:
    """The winner's record and predictions, if the verdict is about exactly these folders."""
    if not blessing.blessed:
        raise RefusedError("not blessed: " + "; ".join(blessing.reasons()))
    try:
        blessing.require_current()
    except UserError as error:
        raise RefusedError(str(error)) from None
    winner = blessing.winner
    if winner not in CONTENDERS:
        raise RefusedError(f"blessing.json: winner = {winner!r}; expected one of {', '.join(CONTENDERS)}")
    if blessing.dataset_digest != data.manifest.digest or judged.inputs.get("dataset") != data.manifest.digest:
        raise RefusedError("the evaluation judged another dataset; run `dvc repro evaluate`")
    if judged.inputs.get(winner) != input_digest(folders[winner]):
        raise RefusedError(f"the evaluation judged another {winner}/; run `dvc repro evaluate`")
    try:
        return read_candidate(winner, folders[winner])
    except UserError as error:
        raise RefusedError(str(error)) from None


def _subject(
    work: Work,
    data: Dataset,
    blessing: Blessing,
    judged: Result,
    winner: Candidate,
    folders: dict[str, Path],
    measured: Mapping[str, float],
) -> Subject:
    probe, finetune = (_record(folders[name]) for name in CONTENDERS)
    recorded = recorded_runs(data.manifest, judged, probe, finetune, work.run.id)
    runs = find_runs(recorded, data.manifest.digest)
    return Subject(blessing, data.manifest, winner.result, probe, judged, lineage(), runs, measured)


def _record(folder: Path) -> Result | None:
    try:
        return read_record(folder, Result)
    except UserError:
        return None


def _classifier_digest(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise RefusedError(f"{path}: can't be read ({error.strerror}); run the step that writes it again") from None


def _logged(path: Path, data: Dataset, run_id: str) -> str:
    try:
        uri = log_classifier(path, data, run_id)
    except NoClassifierError as error:
        raise RefusedError(str(error)) from None
    _say(f"logged to MLflow as {uri}")
    return uri


def _validated(uri: str, data: Dataset, winner: Candidate) -> dict[str, float]:
    """What the infrastructure validation found of the logged model, if it passed."""
    expected = winner.exported_answers()
    chosen = np.unique(np.linspace(0, len(expected) - 1, COMPARED_IMAGES).round().astype(int))
    images = np.asarray(data.images(TEST)[chosen])
    import mlflow

    places = {"MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(), "MLFLOW_REGISTRY_URI": mlflow.get_registry_uri()}
    environment = {key: absolute_uri(place) for key, place in places.items()}
    try:
        return validate_infrastructure(uri, images, expected[chosen], environment, _say)
    except UnfitError as error:
        # a server that went away says nothing about the model
        connect()
        raise RefusedError(str(error)) from None


def _accuracies(judged: Result, winner: str) -> dict[str, float]:
    wanted = {"test_accuracy": f"{winner}_accuracy", "gain": "gain"}
    return {name: judged.metrics[key] for name, key in wanted.items() if key in judged.metrics}


def _say(line: str) -> None:
    print(f"register: {line}", flush=True)


if __name__ == "__main__":
    command_line("register", register)
