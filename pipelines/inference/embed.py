"""An encoder's features of image files, as Parquet.

One column holds them all, a list per row: pandas gives the matrix back in one call, and thousands of columns make
every reader slow.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from components.shared.repository import in_repository
from pipelines.inference.batches import write_answers
from pipelines.inference.inputs import Images
from pipelines.inference.model import load_ready
from pipelines.inference.table import check_table

SCHEMA = pa.schema({"path": pa.string(), "features": pa.list_(pa.float32())})


def embed_files(images: Sequence[str], model_address: str | None, out: Path) -> int:
    """Write the features; returns 1 if a file was skipped, else 0.

    Args:
        images: see `Images`.
        model_address: see `load_ready`; None is the encoder of the repository's last run.
        out: table to write.

    Raises:
        UserError: no image, no such model, or the table can't be written.
    """
    check_table(out, (".parquet",))
    address = model_address or str(in_repository("encoder/encoder.keras"))
    asked = Images(images)
    return write_answers("embed", asked, load_ready(address).encoder(), out, SCHEMA, _columns)


def _columns(paths: list[str], features: np.ndarray) -> list[Any]:
    ends = np.arange(len(paths) + 1, dtype=np.int32) * features.shape[1]
    # not pa.array: it would go through a Python object for each number
    return [pa.array(paths), pa.ListArray.from_arrays(ends, features.ravel())]
