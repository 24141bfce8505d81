"""Write an encoder's features of image files as Parquet.

  python -m pipelines embed folder/ --out features.parquet

For search, clustering or a classifier of one's own. One row an image: `path`, and `features`, a list of float32. A
list, not a column a feature: pandas gives the matrix back in one call,
`np.stack(pd.read_parquet("features.parquet").features)`, and thousands of columns make every reader slow. Files
that can't be read are told on the error stream and skipped; the exit status is then 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipelines.inference.batches import FileWork, write_answers
from pipelines.inference.image_files import ImageFiles
from pipelines.inference.model import load_ready, quiet
from pipelines.inference.table import NUMBERS, TEXT, check_table

ENDINGS = (".parquet",)
COLUMNS = {"path": TEXT, "features": NUMBERS}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("images", nargs="+", metavar="FOLDER", help="folders of images, or image files")
    parser.add_argument("--out", type=Path, required=True, help="the table to write, .parquet")
    parser.add_argument(
        "--model",
        default="encoder/encoder.keras",
        help="a .keras file, or an address such as models:/<name>@champion; of a classifier, the features that its "
        "head is given. Default: encoder/encoder.keras",
    )


def main(options: argparse.Namespace) -> int:
    """Write the features; returns 1 if a file was skipped, else 0.

    Raises:
        UserError: no image, no such model, or the table can't be written.
    """
    check_table(options.out, ENDINGS)
    quiet()
    files = ImageFiles(options.images)
    model = load_ready(options.model)
    network = model.encoder()

    def features(work: FileWork) -> Iterator[Sequence[Sequence[Any]]]:
        for paths, vectors in work.answers(network, model.size):
            yield list(zip(paths, vectors, strict=True))

    return write_answers("embed", files, model, options.out, COLUMNS, ENDINGS, features)
