"""Applying a model to images: batch by batch, with progress; what can't be read is named and counted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from components.shared.errors import UserError
from components.shared.progress import Progress
from pipelines.inference.inputs import Images
from pipelines.inference.table import write_table

if TYPE_CHECKING:
    from pipelines.inference.networks import ReadyModel

# so many pixels a batch, whatever the images' size: some hundred MB inside a large network
_BATCH_PIXELS, _LARGEST_BATCH = 2**20, 256

# paths of a batch, and what the network says of them: float32, shape (batch, D)
Answers = tuple[list[str], np.ndarray]


def write_answers(
    label: str,
    images: Images,
    model: ReadyModel,
    out: Path,
    schema: pa.Schema,
    columns: Callable[[list[str], np.ndarray], list[Any]],
) -> int:
    """Write a table of answers, and say so in one line; returns the exit status.

    Args:
        label: of the progress.
        images: to work on.
        model: to ask; its name is kept as the table's origin.
        out: of the table.
        schema: of the table.
        columns: of each batch, in the order of the schema.
    """
    with closing(Progress(label, len(images), "image")) as progress:
        batches = (pa.record_batch(columns(*answers), schema=schema) for answers in apply(model, images, progress))
        rows = write_table(out, schema.with_metadata({"model": model.name}), batches)
    if rows:
        skipped = f", {images.skipped:,} skipped" if images.skipped else ""
        print(f"{out}: {rows:,} rows by {model.name}{skipped}", flush=True)
    else:
        print(f"{out}: not written: no image could be read", file=sys.stderr)
    return images.finish()


def apply(model: ReadyModel, images: Images, progress: Progress | None = None) -> Iterator[Answers]:
    """Apply a model to images, batch by batch, in their order; those that can't be read are skipped.

    Args:
        model: to ask.
        images: to work on.
        progress: counts the images, read or not.

    Raises:
        UserError: an answer is not a number.
    """
    length = max(1, min(_LARGEST_BATCH, _BATCH_PIXELS // model.size**2, len(images)))
    reading = images.read(model.size, model.channels)
    while batch := list(islice(reading, length)):
        read = [(name, image) for name, image in batch if not isinstance(image, UserError)]
        for _, why in batch:
            if isinstance(why, UserError):
                images.skip(str(why))
        if read:
            names, pixels = zip(*read, strict=True)
            yield list(names), _answers(model, list(pixels), length)
        if progress is not None:
            progress.step(count=len(batch))


def _answers(model: ReadyModel, images: list[np.ndarray], length: int) -> np.ndarray:
    # batches of one shape: a smaller one is filled up, so that nothing is compiled a second time
    batch = np.stack([*images, *[images[-1]] * (length - len(images))])
    answers = np.asarray(model.network.predict_on_batch(batch))[: len(images)].astype(np.float32)
    if not np.isfinite(answers).all():
        raise UserError(f"{model.name}: answers with NaN or infinity; train it again, or choose another model")
    return answers
