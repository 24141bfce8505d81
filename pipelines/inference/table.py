"""Tables written batch by batch to a CSV or Parquet file that appears when it is complete, or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
from pyarrow import csv, parquet

from components.shared.errors import UserError, first_line

ROWS = 8192  # at least, of a Parquet row group: 64 MB of 2,048 features


def check_table(path: Path, endings: Sequence[str]) -> None:
    """Refuse early what can't become a table.

    Args:
        path: of the file; its ending, in either case, chooses the format.
        endings: which formats are offered, of `.csv` and `.parquet`.

    Raises:
        UserError: another ending, no such folder, or a folder of this name.
    """
    if path.suffix.lower() not in endings:
        raise UserError(f"{path}: a table ends in {' or '.join(endings)}; choose the format by the ending")
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"{path}: is a folder, or there is no folder {path.parent}/; choose another place")


def write_table(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """Write a table; returns the number of its rows. Without rows, or if the work fails, `path` stays as it is.

    Args:
        path: see `check_table`; it is written beside it.
        schema: of the columns; what its metadata say, Parquet keeps.
        batches: of the schema.

    Raises:
        UserError: the disk is full, or the like.
    """
    partial = path.with_name(f".{path.name}.partial")
    new_writer = csv.CSVWriter if path.suffix.lower() == ".csv" else parquet.ParquetWriter
    rows = 0
    try:
        with partial.open("wb") as file, new_writer(file, schema) as writer:
            for group in _groups(batches):
                writer.write_table(group)
                rows += len(group)
        if rows:
            partial.replace(path)
    except OSError as error:
        why = error.strerror or first_line(error)
        raise UserError(f"{path}: can't be written: {why}; make room, or choose another place") from None
    finally:
        partial.unlink(missing_ok=True)
    return rows


def _groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The batches, put together to as many rows as a row group shall have."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(map(len, held)) >= ROWS:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)
