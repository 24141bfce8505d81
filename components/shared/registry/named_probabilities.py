"""How MLflow's pyfunc asks a registered classifier: a copy of this file goes into the model's folder.

It runs wherever the model is loaded, without this project.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd


class NamedProbabilities:
    """A classifier whose answers name the classes.

    Args:
        network: from uint8 images (N, H, W, C) to probabilities (N, classes).
        class_names: in the order of its outputs.
    """

    def __init__(self, network: Any, class_names: list[str]):
        self.network, self.class_names = network, class_names

    def predict(self, images: Any) -> pd.DataFrame:
        """A row for each image, and a column of probabilities (float32) for each class, by its name.

        `answers.idxmax(axis=1)` are the likeliest classes, `answers.to_numpy()` is the matrix.
        """
        return pd.DataFrame(self.network.predict(images, verbose=0), columns=self.class_names)


def _load_pyfunc(path: str) -> NamedProbabilities:
    """What MLflow calls, with the model's folder.

    Raises:
        ValueError: the environment names a public key, and the model is not as its owner signed it.
    """
    if os.environ.get("CONTRASTIVE_PUBLIC_KEY"):
        # it lies beside this file, in the model's folder
        signed = importlib.import_module("signed_files")
        signed.require_signed(Path(path), signed.public_keys())
    network = mlflow.keras.load_model(path)
    return NamedProbabilities(network, mlflow.models.Model.load(path).metadata["class_names"])
