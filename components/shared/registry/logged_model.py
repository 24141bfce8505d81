"""A classifier's file as an MLflow model: signature, a real example, class names, pinned requirements."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import Model, infer_signature

from components.shared.artifacts import SPLITS, Dataset
from components.shared.checks.drift import DATASET_STATISTICS, TEST_IMAGES, TRAINING_IMAGES, dataset_statistics
from components.shared.errors import UserError, first_line
from components.shared.evaluation.feature_drift import SPLITS as COMPARED
from components.shared.evaluation.feature_drift import chosen
from components.shared.evaluation.gate import BLESSING
from components.shared.evaluation.predictions import TEST, image_digests
from components.shared.registry import named_probabilities, signed_files
from components.shared.tracking.models import requirements
from components.shared.training.backend import start_backend

DATASET_FEATURES = "dataset_features.npz"
# to check its signature
_TO_CHECK = ("model-signing", "pyopenssl")


def log_classifier(
    path: Path,
    data: Dataset,
    run_id: str,
    verdict: Path | None = None,
    sign: Callable[[Path], None] | None = None,
) -> str:
    """Log a classifier to an MLflow run, its file as it is, byte for byte.

    With it goes what a later dataset is held against: `training_images.npy`, by which a later test set is freed of
    images that it has seen: the first 8 bytes of the content digest of every image but those of test, uint64,
    ascending; `test_images.npy`, the same of those; `dataset_statistics.json`; and `dataset_features.npz` (split →
    its features of at most 1,000 images, float32). Asked through MLflow's pyfunc, or served, it answers with a
    column of probabilities for each class, by its name; where `CONTRASTIVE_PUBLIC_KEY` names a public key, it does
    not load unless it is signed.

    Args:
        path: `classifier.keras`, from uint8 images (N, H, W, C) to probabilities (N, classes).
        data: the dataset it was trained on; the example is its first training image.
        run_id: of the step.
        verdict: `blessing.json` of its evaluation, to keep with it.
        sign: called with the folder of all its files before they go to MLflow. Nothing is put into it.

    Returns:
        The logged model's address, `models:/m-…`.

    Raises:
        UserError: MLflow does not take it.
    """
    # quietly, before MLflow imports it
    start_backend()
    import keras

    try:
        features = classifier_features(keras.saving.load_model(path, compile=False), data)
    except (ValueError, OSError):
        # a fresh process is asked later, and says what is wrong with the file
        features = {}
    example = np.array(data.images("train")[:1])
    # without names: MLflow hands named tensors to the model as a dictionary, which it does not take
    answer = pd.DataFrame(np.zeros((1, data.classes), np.float32), columns=data.manifest.class_names)
    signature = infer_signature(example, answer)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    client = mlflow.MlflowClient()
    try:
        run = client.get_run(run_id)
        made = client.create_logged_model(run.info.experiment_id, "classifier", run_id, params=run.data.params)
        logged = Model.log(
            artifact_path=None,
            model_id=made.model_id,
            run_id=run_id,
            flavor=_KerasFlavor,
            flavor_name=mlflow.keras.__name__,
            # MLflow saves it by copying: the file in the registry is the one that was judged
            model=SimpleNamespace(save=partial(shutil.copyfile, path)),
            signature=signature,
            input_example=example,
            training_images=np.unique(image_digests(data, *(split for split in SPLITS if split != TEST))),
            test_images=np.unique(image_digests(data, TEST)),
            dataset_statistics=dataset_statistics(data).model_dump_json(indent=2) + "\n",
            dataset_features=features,
            verdict=verdict,
            sign=sign,
            pip_requirements=requirements(*(_TO_CHECK if sign else ())),
            # kept with the model's files, whatever becomes of the version's tags; also longer than a tag may be
            metadata={"class_names": data.manifest.class_names},
            # the model is served for real afterwards, in a process of its own
            validate_serving_input=False,
        )
    except (MlflowException, OSError) as error:
        raise UserError(f"MLflow did not take the model: {first_line(error)}; run again") from None
    return str(logged.model_uri)


def classifier_features(classifier: Any, data: Dataset) -> dict[str, np.ndarray]:
    """Features of some images of a dataset, as `components.shared.evaluation.feature_drift` compares them.

    Args:
        classifier: a loaded `classifier.keras`.
        data: the dataset.

    Returns:
        Split → float32, shape (N, D).
    """
    import keras

    # a chain of layers, the last of which is the head
    features = classifier.inputs[0]
    layers = [layer for layer in classifier.layers if not isinstance(layer, keras.layers.InputLayer)]
    for layer in layers[:-1]:
        features = layer(features)
    encoder = keras.Model(classifier.inputs[0], features)
    images = {split: data.images(split)[chosen(data.manifest.counts[split])] for split in COMPARED}
    return {
        split: encoder.predict(found, batch_size=256, verbose=0) for split, found in images.items() if len(found)
    }


class _KerasFlavor:
    """`mlflow.keras`, with which an input example can be saved: its own fails where the folder is not there yet.

    Its pyfunc names the classes; its flavor `keras` is MLflow's own.
    """

    @staticmethod
    def save_model(
        path: str,
        mlflow_model: Model,
        validate_serving_input: bool,
        training_images: np.ndarray,
        test_images: np.ndarray,
        dataset_statistics: str,
        dataset_features: dict[str, Any],
        verdict: Path | None,
        sign: Callable[[Path], None] | None,
        **arguments: Any,
    ) -> None:
        code = Path(path, "code")
        code.mkdir(parents=True)
        for module in (named_probabilities, signed_files):
            shutil.copy(str(module.__file__), code)
        mlflow.keras.save_model(path=path, mlflow_model=mlflow_model, **arguments)
        loader = Path(named_probabilities.__file__).stem
        mlflow_model.flavors[mlflow.pyfunc.FLAVOR_NAME] |= {"loader_module": loader, "code": code.name}
        mlflow_model.save(str(Path(path, "MLmodel")))
        np.save(Path(path) / TRAINING_IMAGES, training_images, allow_pickle=False)
        np.save(Path(path) / TEST_IMAGES, test_images, allow_pickle=False)
        (Path(path) / DATASET_STATISTICS).write_text(dataset_statistics, encoding="utf-8")
        np.savez_compressed(Path(path) / DATASET_FEATURES, **dataset_features)
        if verdict is not None:
            shutil.copyfile(verdict, Path(path, BLESSING))
        if sign is not None:
            sign(Path(path))
