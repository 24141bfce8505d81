"""Check options and write them as params.yaml.

A run is named by options of the groups in conf/ and by single values:

  python -m pipelines compose data=cifar10 runtime.epochs=200

`dvc repro` then does what params.yaml says; `dvc exp run -S data=cifar10 …` does both at once.
"""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path

from components.shared.errors import UserError
from components.shared.params.composing import compose, write_params


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "overrides", nargs="*", metavar="OVERRIDE", help="such as data=cifar10 or runtime.epochs=200"
    )
    parser.add_argument("--out", type=Path, default=Path("params.yaml"), help="default: params.yaml")


def main(options: argparse.Namespace) -> None:
    """Compose and check; write only what is valid.

    Raises:
        UserError: an override is not allowed, or the file can't be written.
    """
    _, values = compose(options.overrides)
    partial = options.out.with_name(f".{options.out.name}.partial")
    try:
        write_params(values, partial)
        partial.replace(options.out)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise UserError(f"{options.out}: can't be written: {error.strerror}; choose another --out") from None
    chosen = " ".join(options.overrides) or "the defaults"
    print(f"{options.out}: composed from {chosen}")
