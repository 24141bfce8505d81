"""Applying a model to image files: batch by batch, with progress; what can't be read is named and counted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components.shared.errors import UserError
from components.shared.progress import Progress
from pipelines.command_line import printable
from pipelines.inference.image_files import ImageFiles, read_images
from pipelines.inference.table import new_table

if TYPE_CHECKING:
    from pipelines.inference.networks import ReadyModel

# so many pixels a batch, whatever the images' size: some hundred MB inside a large network
_BATCH_PIXELS, _LARGEST_BATCH = 2**20, 256


class FileWork:
    """The work on image files: what was skipped, and how far it is.

    Args:
        label: of the progress.
        files: to work on.
        visible: whether to show progress.
    """

    def __init__(self, label: str, files: ImageFiles, visible: bool):
        self.files = files
        self.skipped = 0
        self._progress = Progress(label, len(files.paths), "image") if visible and files.paths else None
        for line in files.refused:
            self._skip(line)

    def answers(self, network: Any, size: int) -> Iterator[tuple[list[str], np.ndarray]]:
        """Paths and answers, batch by batch; see `apply`."""
        try:
            yield from apply(network, self.files.paths, size, self._skip, self._advance)
        finally:
            if self._progress is not None:
                self._progress.close()

    def finish(self) -> int:
        """Say on the error stream what is not in the result; returns the exit status."""
        if self.files.left_alone:
            count = self.files.left_alone
            print(f"note: left alone: {count:,} other file{'s' * (count != 1)} in the folders", file=sys.stderr)
        return 1 if self.skipped else 0

    def _skip(self, line: str) -> None:
        self.skipped += 1
        line = f"skipped: {printable(line)}"
        if self._progress is not None:
            self._progress.note(line)
        else:
            print(line, file=sys.stderr, flush=True)

    def _advance(self, count: int) -> None:
        if self._progress is not None and count:
            self._progress.step(count=count)


def write_answers(
    label: str,
    files: ImageFiles,
    model: ReadyModel,
    out: Path,
    columns: dict[str, str],
    endings: Sequence[str],
    rows: Callable[[FileWork], Iterator[Sequence[Sequence[Any]]]],
) -> int:
    """Write a table of answers, and say so in one line; returns the exit status.

    Args:
        label: of the progress.
        files: to work on.
        model: kept as the table's origin.
        out: of the table.
        columns: name → kind.
        endings: which formats are offered.
        rows: makes the rows of each batch.
    """
    work = FileWork(label, files, visible=True)
    with new_table(out, columns, endings, model.name) as table:
        for batch in rows(work):
            table.add(batch)
        written = table.rows
    skipped = f", {work.skipped:,} skipped" if work.skipped else ""
    if written:
        print(f"{out}: {written:,} rows by {model.name}{skipped}", flush=True)
    else:
        print(f"{out}: not written: no image could be read", file=sys.stderr)
    return work.finish()


def apply(
    network: Any,
    paths: Sequence[Path],
    size: int,
    skip: Callable[[str], None],
    advance: Callable[[int], None] = lambda count: None,
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Apply a model to image files, batch by batch, in their order.

    Args:
        network: from uint8 images, shape (N, size, size, 3).
        paths: of the files.
        size: height and width in pixels.
        skip: called with a line for each file that can't be read.
        advance: called with the number of files that are done, read or not.

    Yields:
        Paths of a batch, and the answers: float32, shape (batch, D).

    Raises:
        UserError: an answer is not a number.
    """
    length = max(1, min(_LARGEST_BATCH, _BATCH_PIXELS // size**2))
    names: list[str] = []
    images: list[np.ndarray] = []
    handled = 0
    first = True
    for path, image in read_images(paths, size):
        handled += 1
        if isinstance(image, str):
            skip(image)
        else:
            names.append(str(path))
            images.append(image)
        if len(images) == length:
            yield names, _answers(network, images, length)
            advance(handled)
            names, images, handled, first = [], [], 0, False
    if images:
        yield names, _answers(network, images, len(images) if first else length)
    advance(handled)


def _answers(network: Any, images: list[np.ndarray], length: int) -> np.ndarray:
    # batches of one shape: the last one is filled up, so that nothing is compiled a second time
    batch = np.stack([*images, *[images[-1]] * (length - len(images))])
    answers = np.asarray(network.predict_on_batch(batch))[: len(images)].astype(np.float32)
    if not np.isfinite(answers).all():
        raise UserError(f"{network.name}: answers with NaN or infinity; train it again, or choose another model")
    return answers
