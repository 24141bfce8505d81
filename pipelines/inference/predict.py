"""Tell the classes of image files with a registered model.

  python -m pipelines predict photo.jpg folder/
  python -m pipelines predict folder/ --out predictions.parquet

Without --out they are printed: path, class, probability. Images go through what the dataset's went through:
upright, centre square, the size the model was trained on. Files that can't be read are told on the error stream and
skipped; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from components.shared.errors import UserError
from components.shared.params.schema import load_params
from components.shared.registry.uris import alias_uri
from components.shared.registry.versions import CHAMPION
from pipelines.inference.batches import FileWork, write_answers
from pipelines.inference.image_files import ImageFiles, shown
from pipelines.inference.model import load_ready, quiet
from pipelines.inference.table import NUMBER, TEXT, check_table

ENDINGS = (".csv", ".parquet")
COLUMNS = {"path": TEXT, "class": TEXT, "probability": NUMBER}

Row = tuple[str, str, np.float32]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("images", nargs="+", metavar="IMAGES", help="image files and folders of them")
    parser.add_argument(
        "--model",
        help="models:/<name>@<alias>, models:/<name>/<version>, or a .keras file; "
        "default: the champion of the registry section in params.yaml",
    )
    parser.add_argument("--top", type=int, default=1, metavar="K", help="the K likeliest classes; default: 1")
    parser.add_argument(
        "--out", type=Path, help="write a table, .csv or .parquet, instead of printing; K rows an image"
    )


def main(options: argparse.Namespace) -> int:
    """Print or write the predictions; returns 1 if a file was skipped, else 0.

    Raises:
        UserError: no image, no such model, or the table can't be written.
    """
    if options.top < 1:
        raise UserError(f"--top = {options.top}: must be at least 1")
    if options.out is not None:
        check_table(options.out, ENDINGS)
    where = options.model or alias_uri(load_params(Path("params.yaml")).registry.champion_model, CHAMPION)
    quiet()
    files = ImageFiles(options.images)
    model = load_ready(where)
    network, labels = model.classifier(), model.labels()
    if labels != model.class_names:
        print(f"note: {model.name} does not name its classes; they are numbered from 0", file=sys.stderr)

    def predictions(work: FileWork) -> Iterator[list[Row]]:
        for paths, probabilities in work.answers(network, model.size):
            pairs = zip(paths, probabilities, strict=True)
            yield [row for path, answer in pairs for row in _rows(path, answer, labels, options.top)]

    if options.out is not None:
        return write_answers("predict", files, model, options.out, COLUMNS, ENDINGS, predictions)
    return _print(files, predictions)


def _print(files: ImageFiles, predictions: Callable[[FileWork], Iterator[list[Row]]]) -> int:
    # on a terminal the lines themselves show how far it is
    work = FileWork("predict", files, visible=sys.stderr.isatty() and not sys.stdout.isatty())
    try:
        for rows in predictions(work):
            for path, name, probability in rows:
                print(f"{shown(path)}  {shown(name)}  {probability:.4f}")
            sys.stdout.flush()
    except BrokenPipeError:
        # the reader has seen enough, as `head` does; Python would complain again when it flushes at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return work.finish()


def _rows(path: str, probabilities: np.ndarray, labels: Sequence[str], top: int) -> list[Row]:
    # stable, so that of equal classes the first one wins, as argmax has it
    best = np.argsort(-probabilities, kind="stable")[:top]
    return [(path, labels[index], probabilities[index]) for index in best]
