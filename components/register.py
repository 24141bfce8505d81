"""Register: put a blessed model up for review, once it has loaded, answered and served as its users will need."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.exceptions import MlflowException

from components.shared.artifacts import Dataset, Result, input_digest, read_record
from components.shared.digests import file_digest
from components.shared.errors import RefusedError, UserError, first_line
from components.shared.evaluation.gate import BLESSING, Blessing, read_blessing
from components.shared.evaluation.measured import read_measured
from components.shared.evaluation.predictions import CONTENDERS, TEST, Candidate, image_digests, read_candidate
from components.shared.params.schema import Params
from components.shared.registry.infra_validation import validate_infrastructure
from components.shared.registry.ledger import RegistryLedger
from components.shared.registry.logged_model import log_classifier
from components.shared.registry.model_card import about_model, model_card
from components.shared.registry.signature import fetch, find_signer, require_signed
from components.shared.registry.signed_files import SIGNATURE
from components.shared.registry.version_tags import Subject, version_tags
from components.shared.registry.versions import find_version, put_up_for_review
from components.shared.step import command_line, working
from components.shared.tracking.client import connect, server_variables
from components.shared.tracking.earlier_runs import find_runs, recorded_runs
from components.shared.tracking.lineage import lineage

CLASSIFIER = "classifier.keras"
COMPARED_IMAGES = 256


def register(
    dataset: Path,
    evaluation: Path,
    probe: Path,
    finetune: Path,
    out: Path,
    params: Params,
    overrides: Sequence[str] | None = None,
) -> Result:
    """Register the winner as a version with the alias `challenger`, or write down why not.

    A model that is not blessed, does not belong to the evaluation, was judged as an earlier look at the test images
    than the registry's ledger counts, does not load in a fresh process without this project, answers differently
    there or over HTTP, or takes requests that its signature forbids, is not registered. That is a result, not an
    error: `result.json` holds the reason and the step ends well, because a repeated run would find the same. A
    registry that does not answer is an error: nothing is written, and the next run tries again.

    Args:
        dataset: folder of `ingest`.
        evaluation: folder of `evaluate`.
        probe: folder of `probe`.
        finetune: folder of `finetune`.
        out: folder to write: `result.json` with `registered`, `why`, the version and its alias, and what was
            measured of the model: `model_mebibytes`, `memory_mebibytes`, `load_seconds`, `latency_ms_batch_1` and
            `_32` (a call in Python), `http_latency_ms_batch_1` and `_32` (a request to the server).
        params: with section `registry`.
        overrides: of the whole run, for the model card, which tells how to make it again; None: not known.

    Returns:
        The record.

    Raises:
        UserError: the dataset or the evaluation is missing or damaged, the key to sign with is missing or none, or
            the registry does not answer.
    """
    data = Dataset(dataset)
    blessing, evaluated = read_blessing(evaluation), read_record(evaluation, Result)
    folders = {"probe": Path(probe), "finetune": Path(finetune)}
    inputs = {"dataset": Path(dataset), "evaluation": Path(evaluation), **folders}
    signer = find_signer(params.registry.require_signature)
    with working("register", out, params, inputs, data.manifest.name) as work:
        measured: dict[str, float] = {}
        signature = work.out / SIGNATURE
        try:
            winner = _winner(data, blessing, evaluated, folders)
            _check_look(data, blessing)
            path = folders[winner.name] / CLASSIFIER
            digest = file_digest(path)
            known = find_version(params.registry.model_name, digest)
            if known is not None:
                uri = known.uri
            else:
                sign = partial(signer.sign, signature=signature) if signer else None
                uri = log_classifier(path, data, work.run.id, Path(evaluation) / BLESSING, sign)
            _say(f"MLflow has the model as {uri}")
            measured["model_mebibytes"] = round(path.stat().st_size / 2**20, 3)
            if signer is None:
                measured |= _try_out(uri, data, winner)
            else:
                measured |= _try_out_signed(uri, None if known else signature, data, winner)
            probed = read_record(folders["probe"], Result)
            exported = int(winner.result.details.get("exported_seed", 0))
            runs = find_runs(recorded_runs(data.manifest, evaluated, probed, exported, work.run.id), data.manifest)
            subject = Subject(
                blessing=blessing,
                manifest=data.manifest,
                winner=winner.result,
                probe=probed,
                evaluation=evaluated,
                test=read_measured(evaluation),
                lineage=lineage(),
                runs=runs,
                measured=measured,
                overrides=overrides,
            )
            if signature.exists():
                # only now: what was tried, and nothing else, is signed
                _publish(signature, uri)
            details = _put_up(uri, digest, subject, params) | {"signed": signer is not None}
            if known is not None:
                details["why"] += " (it was registered before)"
        except RefusedError as refusal:
            # nobody may put it beside a model that was refused
            signature.unlink(missing_ok=True)
            details = {"registered": False, "why": str(refusal)}
        details["model_name"] = params.registry.model_name
        work.run.tags({"registered": str(details["registered"]).lower()})
        metrics = {"registered": float(details["registered"]), **measured}
        result = work.finish(data.manifest.digest, metrics, **details)
    _say(details["why"])
    return result


def _winner(data: Dataset, blessing: Blessing, evaluated: Result, folders: Mapping[str, Path]) -> Candidate:
    """The winner's record and predictions, if the verdict is about exactly these folders."""
    inputs, digest, winner = evaluated.inputs, data.manifest.digest, blessing.winner
    if not blessing.blessed:
        raise RefusedError(f"{blessing.verdict}: " + "; ".join(blessing.reasons()))
    if winner not in CONTENDERS:
        raise RefusedError(f"blessing.json: winner = {winner!r}; expected one of {', '.join(CONTENDERS)}")
    if blessing.dataset_digest != digest or inputs.get("dataset") != digest:
        raise RefusedError("the evaluation judged another dataset; run `dvc repro evaluate`")
    try:
        blessing.require_current()
        if inputs.get(winner) != input_digest(folders[winner]):
            raise RefusedError(f"the evaluation judged another {winner}/; run `dvc repro evaluate`")
        return read_candidate(winner, folders[winner])
    except UserError as error:
        raise RefusedError(str(error)) from None


def _check_look(data: Dataset, blessing: Blessing) -> None:
    """Ask the ledger again: a run cache may have restored the evaluation, of another registry even."""
    if blessing.look is None or blessing.look_key is None or not blessing.policy:
        raise RefusedError(
            "blessing.json: does not tell which look at the test images it was; run `dvc repro evaluate`"
        )
    look = RegistryLedger().claim(blessing.look_key, image_digests(data, TEST), blessing.policy)
    if look.place > blessing.look:
        raise RefusedError(
            f"by the registry's ledger this is look {look.place} at these test images, and it was judged as look "
            f"{blessing.look}; run `dvc repro -f evaluate`"
        )


def _try_out(uri: str, data: Dataset, winner: Candidate) -> dict[str, float]:
    """Let the infrastructure validation try the logged model; returns what it measured."""
    expected = winner.exported_answers()
    chosen = np.unique(np.linspace(0, len(expected) - 1, COMPARED_IMAGES).round().astype(int))
    images = np.asarray(data.images(TEST)[chosen])
    try:
        found = validate_infrastructure(uri, images, expected[chosen], server_variables())
    except RefusedError:
        # a server that went away says nothing about the model
        connect()
        raise
    asked, refused = found["served_images"], found["refused_requests"]
    loading = f"loaded by MLflow in a fresh process in {found['load_seconds']:.1f} s"
    _say(f"{loading}; {len(images)} images answered as recorded")
    _say(f"served over HTTP; {asked:.0f} images answered as recorded, {refused:.0f} malformed requests refused")
    return found


def _try_out_signed(uri: str, signature: Path | None, data: Dataset, winner: Candidate) -> dict[str, float]:
    """Fetch a model, compare it with its signature, and only then run it: its code can read the private key.

    Args:
        uri: of the model.
        signature: of its files, None where it was signed when it was registered before.
        data: the dataset.
        winner: what it must answer.
    """
    with tempfile.TemporaryDirectory(prefix="signed-") as place:
        folder = fetch(uri, Path(place))
        if signature is not None:
            shutil.copyfile(signature, folder / SIGNATURE)
        try:
            require_signed(folder, uri, required=True)
        except UserError as error:
            again = "delete that version, and register again" if signature is None else "look who may write there"
            raise RefusedError(f"what the registry holds is not what was signed: {error}; {again}") from None
        return _try_out(str(folder), data, winner)


def _publish(signature: Path, uri: str) -> None:
    """Put a signature beside the files of a logged model."""
    try:
        mlflow.MlflowClient().log_model_artifact(str(uri.rpartition("/")[2]), str(signature))
    except (MlflowException, OSError) as error:
        raise UserError(f"MLflow did not take the signature: {first_line(error)}; run again") from None


def _put_up(uri: str, digest: str, subject: Subject, params: Params) -> dict[str, Any]:
    """Make the logged model a version that waits for review; returns the record's details."""
    name = params.registry.model_name
    card, champion = partial(model_card, subject, name), params.registry.champion_model
    version = put_up_for_review(
        name, uri, digest, version_tags(subject), card, champion, about_model(subject, name)
    )
    return {
        "registered": True,
        "why": f"{name} version {version.number} is {version.standing}",
        "version": version.number,
        "aliases": list(version.aliases),
        "model_uri": version.uri,
        "artifact_digest": digest,
        "runs": {step: run.run_id for step, run in subject.runs.items()},
    }


def _say(line: str) -> None:
    print(f"register: {line}", flush=True)


if __name__ == "__main__":
    command_line("register", register)
