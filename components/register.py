"""Register: put a blessed model up for review, once it has answered from a fresh process as it did in training."""

from __future__ import annotations

import logging
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from components.shared.artifacts import Dataset, Result, input_digest, read_record
from components.shared.backend import start_backend
from components.shared.candidates import CONTENDERS, JUDGING, Candidate, read_candidate
from components.shared.digests import file_digest
from components.shared.errors import UserError
from components.shared.fresh_process import answers
from components.shared.gate import Blessing, read_blessing
from components.shared.model_card import Subject, model_card, version_tags
from components.shared.params import Params
from components.shared.registry import absolute_uri, find_version, put_up_for_review
from components.shared.step import Work, command_line, working
from components.shared.tracking import connect, lineage

CLASSIFIER = "classifier.keras"
# float32 on the same kind of processor repeats to about 1e-6; another one, or another order of sums, to 1e-5
TOLERANCE = 1e-4
COMPARED_IMAGES = 256
_REQUIRED = ("keras", "tensorflow", "tensorflow-cpu", "numpy", "mlflow")


class RefusedError(Exception):
    """Why a model is not registered, in one line."""


def register(dataset: Path, evaluation: Path, probe: Path, finetune: Path, out: Path, params: Params) -> Result:
    """Register the winner as a version with the alias `challenger`, or write down why not.

    A model that is not blessed, does not belong to the evaluation, does not load in a fresh process without this
    project, or answers differently there is not registered. That is a result, not an error: `result.json` holds
    the reason and the step ends well, because a repeated run would find the same. A registry that does not
    answer is an error: nothing is written, and the next run tries again.

    Args:
        dataset: folder of `ingest`.
        evaluation: folder of `evaluate`.
        probe: folder of `probe`.
        finetune: folder of `finetune`.
        out: folder to write: `result.json` with `registered`, `why`, and the version and its alias.
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
        try:
            details = _register(work, data, blessing, judged, folders)
        except RefusedError as refusal:
            details = {"registered": False, "why": str(refusal)}
        details["model_name"] = params.registry.model_name
        work.run.tags({"registered": str(details["registered"]).lower()})
        result = work.finish(data.manifest.digest, {"registered": float(details["registered"])}, **details)
    print(f"register: {details['why']}")
    return result


def _register(
    work: Work, data: Dataset, blessing: Blessing, judged: Result, folders: dict[str, Path]
) -> dict[str, Any]:
    winner = _winner(work, data, blessing, judged, folders)
    path = folders[winner.name] / CLASSIFIER
    name, digest = work.params.registry.model_name, _classifier_digest(path)
    known = find_version(name, digest)
    uri = known.uri if known is not None else _log_classifier(path, data)
    compared, difference = _compare(uri, data, winner)
    subject = Subject(blessing, data.manifest, winner.result, _record(folders["probe"]), judged, lineage())
    version = put_up_for_review(name, uri, digest, version_tags(subject), model_card(subject))
    aliases = " and ".join(version.aliases)
    return {
        "registered": True,
        "why": f"{name} version {version.number} is {aliases}" + (" (it was registered before)" if known else ""),
        "version": version.number,
        "aliases": list(version.aliases),
        "model_uri": version.uri,
        "artifact_digest": digest,
        "compared_images": compared,
        "largest_difference": difference,
    }


def _winner(work: Work, data: Dataset, blessing: Blessing, judged: Result, folders: dict[str, Path]) -> Candidate:
    """The winner's record and predictions, if the verdict is about exactly these folders."""
    if not blessing.blessed:
        raise RefusedError("not blessed: " + "; ".join(blessing.reasons()))
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


def _log_classifier(path: Path, data: Dataset) -> str:
    """Log the classifier to the current MLflow run; returns its `models:/m-…` address."""
    start_backend()
    import keras
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:
        raise RefusedError(f"{path}: Keras can't load it: {_first_line(error)}") from None
    size = data.manifest.image_size
    # without names: MLflow hands named tensors to the model as a dictionary, which it does not take
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("uint8"), (-1, size, size, 3))]),
        outputs=Schema([TensorSpec(np.dtype("float32"), (-1, data.classes))]),
    )
    # without an example MLflow can't check the signature, and says so; the fresh process below does check it
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    try:
        logged = mlflow.keras.log_model(
            model,
            name="classifier",
            signature=signature,
            pip_requirements=requirements(),
            # kept with the model's files, whatever becomes of the version's tags; also longer than a tag may be
            metadata={"class_names": data.manifest.class_names},
        )
    except (MlflowException, OSError) as error:
        raise UserError(f"MLflow did not take the model: {_first_line(error)}; run again") from None
    return str(logged.model_uri)


def requirements() -> list[str]:
    """The installed versions of what the model needs to answer, pinned."""
    pinned = []
    for name in _REQUIRED:
        try:
            pinned.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            continue
    return pinned


def _compare(uri: str, data: Dataset, winner: Candidate) -> tuple[int, float]:
    """Ask the logged model in a fresh process; returns how many images and the largest difference."""
    expected = winner.exported_answers()
    chosen = np.unique(np.linspace(0, len(expected) - 1, COMPARED_IMAGES).round().astype(int))
    images = np.asarray(data.images(JUDGING)[chosen])
    import mlflow

    places = {"MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(), "MLFLOW_REGISTRY_URI": mlflow.get_registry_uri()}
    try:
        answered = answers(uri, images, {key: absolute_uri(place) for key, place in places.items()})
    except RuntimeError as error:
        # a server that went away says nothing about the model
        connect()
        raise RefusedError(f"the model does not answer in a fresh process: {error}") from None
    if answered.shape != expected[chosen].shape or not np.isfinite(answered).all():
        raise RefusedError(f"in a fresh process the model answers with shape {answered.shape}, or with NaN")
    difference = float(np.abs(answered - expected[chosen]).max())
    if difference > TOLERANCE:
        raise RefusedError(
            f"in a fresh process the answers to {len(chosen)} test images differ by up to {difference:.2g} "
            f"from the recorded ones; {TOLERANCE:.0e} is allowed"
        )
    return len(chosen), difference


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


if __name__ == "__main__":
    command_line("register", register, ("dataset", "evaluation", "probe", "finetune"), "registration")
