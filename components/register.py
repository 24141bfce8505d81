"""Register: put a blessed model up for review, once it has loaded, answered and served as its users will need."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from components.shared.artifacts import Dataset, Result, input_digest, read_record
from components.shared.digests import file_digest
from components.shared.errors import RefusedError, UserError
from components.shared.evaluation.gate import Blessing, read_blessing
from components.shared.evaluation.predictions import CONTENDERS, TEST, Candidate, read_candidate
from components.shared.params.schema import Params
from components.shared.registry.infra_validation import validate_infrastructure
from components.shared.registry.logged_model import describe_logged_model, log_classifier
from components.shared.registry.model_card import model_card
from components.shared.registry.version_tags import Subject, version_tags
from components.shared.registry.versions import find_version, put_up_for_review
from components.shared.step import Work, command_line, working
from components.shared.tracking.client import connect, server_variables
from components.shared.tracking.earlier_runs import find_runs, recorded_runs
from components.shared.tracking.lineage import lineage

CLASSIFIER = "classifier.keras"
COMPARED_IMAGES = 256


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
    blessing, evaluated = read_blessing(evaluation), read_record(evaluation, Result)
    folders = {"probe": Path(probe), "finetune": Path(finetune)}
    inputs = {"dataset": Path(dataset), "evaluation": Path(evaluation), **folders}
    with working("register", out, params, inputs, data.manifest.name) as work:
        registration = _Registration(work, data, blessing, evaluated, folders)
        try:
            details = registration.run()
        except RefusedError as refusal:
            details = {"registered": False, "why": str(refusal)}
        details["model_name"] = params.registry.model_name
        work.run.tags({"registered": str(details["registered"]).lower()})
        metrics = {"registered": float(details["registered"]), **registration.measured}
        result = work.finish(data.manifest.digest, metrics, **details)
    _say(details["why"])
    return result


@dataclass
class _Registration:
    """What the step knows of the model, and what it has measured so far; methods raise `RefusedError`."""

    work: Work
    data: Dataset
    blessing: Blessing
    evaluated: Result
    folders: dict[str, Path]
    measured: dict[str, float] = field(default_factory=dict)

    def run(self) -> dict[str, Any]:
        """Find the winner, try it out, put it up for review; returns the record's details."""
        winner = self._winner()
        path = self.folders[winner.name] / CLASSIFIER
        registry, digest = self.work.params.registry, _classifier_digest(path)
        name = registry.model_name
        known = find_version(name, digest)
        uri = known.uri if known is not None else self._log(path)
        self.measured["model_mebibytes"] = round(path.stat().st_size / 2**20, 3)
        self._validate(uri, winner)
        subject = self._subject(winner)
        version = put_up_for_review(
            name, uri, digest, version_tags(subject), lambda number: model_card(subject, name, number),
            registry.champion_model,
        )  # fmt: skip
        return {
            "registered": True,
            "why": f"{name} version {version.number} is {version.standing}"
            + (" (it was registered before)" if known else ""),
            "version": version.number,
            "aliases": list(version.aliases),
            "model_uri": version.uri,
            "artifact_digest": digest,
            "runs": {step: run.run_id for step, run in subject.runs.items()},
        }

    def _winner(self) -> Candidate:
        """The winner's record and predictions, if the verdict is about exactly these folders."""
        blessing, inputs, digest = self.blessing, self.evaluated.inputs, self.data.manifest.digest
        if not blessing.blessed:
            raise RefusedError("not blessed: " + "; ".join(blessing.reasons()))
        winner = blessing.winner
        if winner not in CONTENDERS:
            raise RefusedError(f"blessing.json: winner = {winner!r}; expected one of {', '.join(CONTENDERS)}")
        if blessing.dataset_digest != digest or inputs.get("dataset") != digest:
            raise RefusedError("the evaluation judged another dataset; run `dvc repro evaluate`")
        try:
            blessing.require_current()
            if inputs.get(winner) != input_digest(self.folders[winner]):
                raise RefusedError(f"the evaluation judged another {winner}/; run `dvc repro evaluate`")
            return read_candidate(winner, self.folders[winner])
        except UserError as error:
            raise RefusedError(str(error)) from None

    def _log(self, path: Path) -> str:
        uri = log_classifier(path, self.data, self.work.run.id)
        _say(f"logged to MLflow as {uri}")
        return uri

    def _validate(self, uri: str, winner: Candidate) -> None:
        """Let the infrastructure validation try the logged model, and note beside it what came out."""
        expected = winner.exported_answers()
        chosen = np.unique(np.linspace(0, len(expected) - 1, COMPARED_IMAGES).round().astype(int))
        images = np.asarray(self.data.images(TEST)[chosen])
        run_id = self.work.run.id
        try:
            self.measured |= validate_infrastructure(uri, images, expected[chosen], server_variables(), _say)
        except RefusedError as refusal:
            # a server that went away says nothing about the model
            connect()
            describe_logged_model(uri, run_id, {}, {"refused": str(refusal)})
            raise
        metrics = {**self.measured, **_accuracies(self.evaluated, winner.name)}
        describe_logged_model(uri, run_id, metrics, {"validated": "true"})

    def _subject(self, winner: Candidate) -> Subject:
        manifest = self.data.manifest
        probe, finetune = (_record(self.folders[name]) for name in CONTENDERS)
        recorded = recorded_runs(manifest, self.evaluated, probe, finetune, self.work.run.id)
        runs = find_runs(recorded, manifest.digest)
        return Subject(
            self.blessing, manifest, winner.result, probe, self.evaluated, lineage(), runs, self.measured
        )


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


def _accuracies(evaluated: Result, winner: str) -> dict[str, float]:
    wanted = {"test_accuracy": f"{winner}_accuracy", "gain": "gain"}
    return {name: evaluated.metrics[key] for name, key in wanted.items() if key in evaluated.metrics}


def _say(line: str) -> None:
    print(f"register: {line}", flush=True)


if __name__ == "__main__":
    command_line("register", register)
