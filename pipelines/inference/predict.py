"""The classes of image files, by a registered model or one in a file: printed, or as a table."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from components.shared.errors import UserError
from components.shared.params.schema import load_params
from components.shared.registry.uris import alias_uri
from components.shared.registry.versions import CHAMPION
from components.shared.repository import in_repository
from pipelines.command_line import printable
from pipelines.inference.batches import FileWork, write_answers
from pipelines.inference.image_files import ImageFiles
from pipelines.inference.model import load_ready, quiet
from pipelines.inference.table import NUMBER, TEXT, check_table

ENDINGS = (".csv", ".parquet")
COLUMNS = {"path": TEXT, "class": TEXT, "probability": NUMBER}

Row = tuple[str, str, np.float32]


def predict_files(images: Sequence[str], model_address: str | None, top: int, out: Path | None) -> int:
    """Print or write the predictions; returns 1 if a file was skipped, else 0.

    Args:
        images: image files and folders of them.
        model_address: see `load_ready`; None is the champion that the repository's params.yaml names.
        top: so many of the likeliest classes.
        out: table to write; None prints.

    Raises:
        UserError: no image, no such model, or the table can't be written.
    """
    if top < 1:
        raise UserError(f"--top = {top}: must be at least 1")
    if out is not None:
        check_table(out, ENDINGS)
    address = model_address or _champion()
    quiet()
    files = ImageFiles(images)
    model = load_ready(address)
    network, labels = model.classifier(), model.labels()
    if labels != model.class_names:
        print(f"note: {model.name} does not name its classes; they are numbered from 0", file=sys.stderr)

    def predictions(work: FileWork) -> Iterator[list[Row]]:
        for paths, probabilities in work.answers(network, model.size):
            pairs = zip(paths, probabilities, strict=True)
            yield [row for path, answer in pairs for row in _rows(path, answer, labels, top)]

    if out is not None:
        return write_answers("predict", files, model, out, COLUMNS, ENDINGS, predictions)
    return _print(files, predictions)


def _champion() -> str:
    registry = load_params(in_repository("params.yaml"), "register").registry
    return alias_uri(registry.champion_model, CHAMPION)


def _print(files: ImageFiles, predictions: Callable[[FileWork], Iterator[list[Row]]]) -> int:
    # on a terminal the lines themselves show how far it is
    work = FileWork("predict", files, visible=sys.stderr.isatty() and not sys.stdout.isatty())
    try:
        for rows in predictions(work):
            for path, name, probability in rows:
                print(f"{printable(path)}  {printable(name)}  {probability:.4f}")
            sys.stdout.flush()
    except BrokenPipeError:
        # the reader has seen enough, as `head` does; Python would complain again when it flushes at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return work.finish()


def _rows(path: str, probabilities: np.ndarray, labels: Sequence[str], top: int) -> list[Row]:
    # stable, so that of equal classes the first one wins, as argmax has it
    best = np.argsort(-probabilities, kind="stable")[:top]
    return [(path, labels[index], probabilities[index]) for index in best]
