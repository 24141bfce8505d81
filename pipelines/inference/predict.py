"""The classes of image files, by a registered model or one in a file: printed, or as a table."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from components.shared.errors import drop_unread
from components.shared.params.schema import load_params
from components.shared.registry.uris import alias_uri
from components.shared.registry.versions import CHAMPION
from components.shared.repository import in_repository
from pipelines.command_line import printable
from pipelines.inference.batches import apply, write_answers
from pipelines.inference.inputs import Images
from pipelines.inference.model import load_ready
from pipelines.inference.table import check_table

SCHEMA = pa.schema({"path": pa.string(), "class": pa.string(), "probability": pa.float32()})


def predict_files(images: Sequence[str], model_address: str | None, top: int, out: Path | None) -> int:
    """Print or write the predictions; returns 1 if a file was skipped, else 0.

    Args:
        images: see `Images`.
        model_address: see `load_ready`; None is the champion that the repository's params.yaml names.
        top: so many of the likeliest classes, at least 1.
        out: table to write; None prints.

    Raises:
        UserError: no image, no such model, or the table can't be written.
    """
    if out is not None:
        check_table(out, (".csv", ".parquet"))
    address = model_address or _champion()
    asked = Images(images)
    model = load_ready(address).classifier()
    labels = model.labels()
    if labels != model.class_names:
        print(f"note: {model.name} does not name its classes; they are numbered from 0", file=sys.stderr)

    def columns(paths: list[str], probabilities: np.ndarray) -> list[Any]:
        # stable, so that of equal classes the first one wins, as argmax has it
        best = np.argsort(-probabilities, kind="stable")[:, :top]
        classes = [labels[index] for index in best.ravel()]
        likeliest = np.take_along_axis(probabilities, best, axis=1).ravel()
        return [np.repeat(np.array(paths, object), best.shape[1]), classes, likeliest]

    if out is not None:
        return write_answers("predict", asked, model, out, SCHEMA, columns)
    try:
        for answers in apply(model, asked):
            for path, name, probability in zip(*columns(*answers), strict=True):
                print(f"{printable(path)}  {printable(name)}  {probability:.4f}")
            sys.stdout.flush()
    except BrokenPipeError:
        # where the reader has seen enough, as `head` does, the images after that need no answer
        if not drop_unread():
            raise
    return asked.finish()


def _champion() -> str:
    registry = load_params(in_repository("params.yaml"), "register").registry
    return alias_uri(registry.champion_model, CHAMPION)
