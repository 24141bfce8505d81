"""STL-10: 100,000 unlabelled and 5,000 + 8,000 labelled images of 10 classes, 96×96 (Coates et al. 2011)."""

from __future__ import annotations

from pathlib import Path

from components.shared.params.schema import DataParams
from components.shared.sources.tfds import TensorFlowDataset

PUBLISHED = True


def open_source(data: DataParams) -> TensorFlowDataset:
    """Prepare the data set if it is not yet; `data.path` may hold stl10_binary.tar.gz."""
    return TensorFlowDataset("stl10", Path(data.path), data.image_size)
