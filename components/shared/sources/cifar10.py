"""CIFAR-10: 50,000 + 10,000 images of 10 classes, 32×32 (Krizhevsky 2009)."""

from __future__ import annotations

from pathlib import Path

from components.shared.params.schema import DataParams
from components.shared.sources.tfds import TensorFlowDataset

PUBLISHED = True


def open_source(data: DataParams) -> TensorFlowDataset:
    """Prepare the data set if it is not yet; `data.path` may hold cifar-10-binary.tar.gz."""
    return TensorFlowDataset("cifar10", Path(data.path), data.image_size)
