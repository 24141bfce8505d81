"""An encoder's features of image files, as Parquet.

One column holds them all, a list per row: pandas gives the matrix back in one call, and thousands of columns make
every reader slow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from components.shared.repository import in_repository
from pipelines.inference.batches import FileWork, write_answers
from pipelines.inference.image_files import ImageFiles
from pipelines.inference.model import load_ready, quiet
from pipelines.inference.table import NUMBERS, TEXT, check_table

ENDINGS = (".parquet",)
COLUMNS = {"path": TEXT, "features": NUMBERS}


def embed_files(images: Sequence[str], model_address: str | None, out: Path) -> int:
    """Write the features; returns 1 if a file was skipped, else 0.

    Args:
        images: image files and folders of them.
        model_address: see `load_ready`; None is the encoder of the repository's last run.
        out: table to write.

    Raises:
        UserError: no image, no such model, or the table can't be written.
    """
    check_table(out, ENDINGS)
    address = model_address or str(in_repository("encoder/encoder.keras"))
    quiet()
    files = ImageFiles(images)
    model = load_ready(address)
    network = model.encoder()

    def features(work: FileWork) -> Iterator[Sequence[Sequence[Any]]]:
        for paths, vectors in work.answers(network, model.size):
            yield list(zip(paths, vectors, strict=True))

    return write_answers("embed", files, model, out, COLUMNS, ENDINGS, features)
