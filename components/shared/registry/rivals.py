"""Asking the versions that reviewers approved tonight's test images."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from components.shared.artifacts import Dataset
from components.shared.checks.drift import TRAINING_IMAGES
from components.shared.errors import UserError, first_line
from components.shared.evaluation.champion import Accepted, Champion
from components.shared.evaluation.evidence import Rival, Rivals
from components.shared.evaluation.feature_drift import FEWEST, FeatureDrift, measure_drift
from components.shared.evaluation.predictions import TEST, image_digests
from components.shared.registry.logged_model import DATASET_FEATURES, classifier_features
from components.shared.registry.signature import fetch, require_signed
from components.shared.tracking.client import connect
from components.shared.training.backend import start_backend

_BATCH = 256
_SKIP = (
    "to go on without it, set gate.skip_champions=[{}] (approving then needs --override), or decide against it "
    "(`contrastive review withdraw`, or `reject` once it is not champion)"
)


class _NotComparableError(Exception):
    """Why a model can't be asked these images, whoever asks."""


def ask_rivals(
    champion: Champion, data: Dataset, skipped: Sequence[int], require_signature: bool = False
) -> Rivals:
    """Load each accepted version from the registry and let it answer the test images.

    The champion must be comparable; one before it that has other classes, another image size or no list of its
    training images does not count. None that can't be loaded is passed over. The champion also tells how far the
    images have moved in its features since it was accepted.

    Args:
        champion: what the step `champion` wrote down.
        data: the dataset.
        skipped: numbers of versions that are not asked.
        require_signature: `registry.require_signature`; a version that is not signed counts as one that can't be
            loaded.
    """
    if champion.unavailable is not None:
        fault = f"the registry could not be asked for its champion: {champion.unavailable}"
        return Rivals(faults=[fault], no_drift=fault)
    if champion.version is not None and champion.version not in {model.version for model in champion.accepted}:
        fault = f"version {champion.version} is champion, but the registry does not hold it"
        return Rivals(faults=[fault], no_drift=fault)
    found, faults, notes, asked = [], [], [], set()
    drift: list[FeatureDrift] = []
    no_drift = "there is no champion"
    for model in champion.accepted:
        name = f"version {model.version}"
        reigns = model.version == champion.version
        if model.version in map(str, skipped):
            notes.append(f"{name} was left out (gate.skip_champions)")
            no_drift = notes[-1] if reigns else no_drift
            continue
        if model.artifact_digest is not None and model.artifact_digest in asked:
            continue
        asked.add(model.artifact_digest)
        try:
            with _fetched(model) as folder:
                require_signed(folder, "its files", require_signature)
                network = _network(folder, data)
                found.append(_ask(model.version, folder, network, data))
                if reigns:
                    drift, no_drift = _drift(name, folder, network, data)
        except _NotComparableError as error:
            if reigns:
                faults.append(f"{name} is champion, but {error}; {_SKIP.format(model.version)}")
                no_drift = f"{name} is not comparable: {error}"
            else:
                notes.append(f"{name}, champion before, does not count: {error}")
        except UserError as error:
            faults.append(f"{name} can't be loaded: {error}; {_SKIP.format(model.version)}")
            no_drift = f"{name} can't be loaded: {error}" if reigns else no_drift
    return Rivals(found, faults, notes, drift, no_drift)


@contextmanager
def _fetched(model: Accepted) -> Iterator[Path]:
    """The files of a version, for as long as the block lasts."""
    connect()
    with tempfile.TemporaryDirectory(prefix="champion-") as place:
        folder = fetch(model.uri, Path(place))
        if not (folder / "MLmodel").is_file():
            raise UserError("its files are gone from the artifact store")
        yield folder


def _ask(version: str, folder: Path, network: Any, data: Dataset) -> Rival:
    fresh = ~np.isin(image_digests(data, TEST), _training_images(folder))
    return Rival(version, _answers(network, data).argmax(axis=1) == data.labels(TEST), fresh)


def _drift(name: str, folder: Path, network: Any, data: Dataset) -> tuple[list[FeatureDrift], str]:
    """How far the images have moved in a model's features, or why that is not known."""
    path = folder / DATASET_FEATURES
    if not path.exists():
        return [], f"{name} keeps no features of its dataset ({DATASET_FEATURES})"
    try:
        with np.load(path, allow_pickle=False) as file:
            before = {split: file[split] for split in file.files}
        drift = measure_drift(before, classifier_features(network, data))
    except Exception as error:  # a damaged file, or another network's features: nothing that the verdict needs
        return [], f"{name}: its features can't be compared ({first_line(error)})"
    return drift, "" if drift else f"{name} has seen fewer than {FEWEST} images of each split"


def _training_images(folder: Path) -> np.ndarray:
    try:
        images = np.load(folder / TRAINING_IMAGES, allow_pickle=False)
    except FileNotFoundError:
        raise _NotComparableError(f"it has no list of its training images ({TRAINING_IMAGES})") from None
    except (OSError, ValueError, EOFError):
        raise _NotComparableError(f"the list of its training images ({TRAINING_IMAGES}) is damaged") from None
    if images.dtype != np.uint64 or images.ndim != 1 or not len(images):
        raise _NotComparableError(f"the list of its training images ({TRAINING_IMAGES}) is none")
    return images


def _network(folder: Path, data: Dataset) -> Any:
    """The model of a version, if it is about these classes and images of this size."""
    # asked first: without it nothing that the model answers counts
    _training_images(folder)
    try:
        described = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
        names = described["metadata"]["class_names"]
        shape = json.loads(described["signature"]["inputs"])[0]["tensor-spec"]["shape"][1:]
    except (OSError, KeyError, TypeError, IndexError, ValueError, yaml.YAMLError):
        raise _NotComparableError("it does not tell its classes and image size as register writes them") from None
    if names != data.manifest.class_names:
        raise _NotComparableError(f"it knows {len(names)} other classes")
    if tuple(shape[:2]) != data.manifest.image_shape[:2]:
        raise _NotComparableError(f"it takes images of {shape[0]}×{shape[1]} pixels")
    if shape[2] != data.manifest.channels:
        raise _NotComparableError(f"it was trained with data.channels={shape[2]}")
    start_backend()
    import keras

    try:
        return keras.saving.load_model(folder / "data" / "model.keras", compile=False)
    except Exception as error:  # Keras raises whatever the file makes it raise
        raise UserError(first_line(error)) from None


def _answers(network: Any, data: Dataset) -> np.ndarray:
    """Probabilities for the test images, shape (N, classes)."""
    images = data.images(TEST)
    try:
        batches = [images[start : start + _BATCH] for start in range(0, len(images), _BATCH)]
        answers = np.concatenate([network.predict(batch, batch_size=_BATCH, verbose=0) for batch in batches])
    except Exception as error:  # likewise
        raise UserError(first_line(error)) from None
    if answers.shape != (len(images), data.classes) or not np.isfinite(answers).all():
        raise UserError(f"it answers with shape {answers.shape}, or with NaN")
    return answers
