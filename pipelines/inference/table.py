"""Tables written row by row to a CSV or Parquet file that appears when it is complete, or not at all."""

from __future__ import annotations

import csv
import io
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.shared.errors import UserError, first_line

ROWS = 8192  # of a Parquet row group: 64 MB of 2,048 features
TEXT, NUMBER, NUMBERS = "text", "number", "numbers"


class Table(ABC):
    """A table in the making. Columns are `text`, `number` (float32) or `numbers` (a list of float32 in each row).

    Args:
        path: where it shall stand; it is written beside it.

    Attributes:
        rows: how many were added.
    """

    def __init__(self, path: Path):
        self.path = path
        self.rows = 0
        self._partial = path.with_name(f".{path.name}.partial")
        with self._writing():
            self._file = self._partial.open("wb")

    def add(self, rows: Sequence[Sequence[Any]]) -> None:
        """Append rows, their values in the order of the columns.

        Raises:
            UserError: the disk is full, or the like.
        """
        with self._writing():
            self._write(rows)
        self.rows += len(rows)

    def finish(self) -> None:
        """Write what is still held, and let the table take its place; without rows there is nothing to place."""
        with self._writing():
            self._end()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            if self.rows:
                self._partial.replace(self.path)

    def abandon(self) -> None:
        """Remove what lies beside the table's place, if it has not taken it."""
        if not self._file.closed:
            with suppress(OSError, ValueError):
                self._end()
            with suppress(OSError):
                self._file.close()
        self._partial.unlink(missing_ok=True)

    @abstractmethod
    def _write(self, rows: Sequence[Sequence[Any]]) -> None: ...

    @abstractmethod
    def _end(self) -> None: ...

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            why = error.strerror or first_line(error)
            raise UserError(f"{self.path}: can't be written: {why}; make room, or choose another place") from None


@contextmanager
def new_table(path: Path, columns: Mapping[str, str], endings: Sequence[str], about: str = "") -> Iterator[Table]:
    """A table to fill; when the block ends without an error and there are rows, it takes the place of `path`.

    Args:
        path: of the file; its ending, in either case, chooses the format.
        columns: name → `text`, `number` or `numbers`.
        endings: which formats are offered, of `.csv` and `.parquet`.
        about: what made the table; kept in Parquet's metadata under the key `model`.

    Raises:
        UserError: the ending is another one, or the file can't be written.
    """
    table = _FORMATS[check_table(path, endings)](path, columns, about)
    try:
        yield table
        table.finish()
    finally:
        table.abandon()


def check_table(path: Path, endings: Sequence[str]) -> str:
    """The format that a path's ending names; refuses early what can't become a table.

    Raises:
        UserError: another ending, no such folder, no permission, or a folder of this name.
    """
    ending = path.suffix.lower()
    if ending not in endings:
        raise UserError(f"{path}: a table ends in {' or '.join(endings)}; choose the format by the ending")
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}/; make it first")
    if path.is_dir():
        raise UserError(f"{path}: is a folder; choose another name")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UserError(f"{path}: can't be written: no permission in {path.parent}/; choose another place")
    return ending


class _Csv(Table):
    def __init__(self, path: Path, columns: Mapping[str, str], about: str):
        super().__init__(path)
        self._text = io.TextIOWrapper(self._file, encoding="utf-8", newline="")
        self._writer = csv.writer(self._text, lineterminator="\n")
        self._writer.writerow(columns)

    def _write(self, rows: Sequence[Sequence[Any]]) -> None:
        self._writer.writerows(rows)

    def _end(self) -> None:
        self._text.flush()


class _Parquet(Table):
    def __init__(self, path: Path, columns: Mapping[str, str], about: str):
        super().__init__(path)
        types = {TEXT: pa.string(), NUMBER: pa.float32(), NUMBERS: pa.list_(pa.float32())}
        self._kinds = list(columns.values())
        self._schema = pa.schema([(name, types[kind]) for name, kind in columns.items()], {"model": about})
        self._parquet = pq.ParquetWriter(self._file, self._schema)
        self._held: list[Sequence[Any]] = []

    def _write(self, rows: Sequence[Sequence[Any]]) -> None:
        self._held.extend(rows)
        while len(self._held) >= ROWS:
            self._group(self._held[:ROWS])
            self._held = self._held[ROWS:]

    def _end(self) -> None:
        if self._held:
            self._group(self._held)
        self._parquet.close()

    def _group(self, rows: Sequence[Sequence[Any]]) -> None:
        values = zip(*rows, strict=True)
        columns = [self._column(kind, column) for kind, column in zip(self._kinds, values, strict=True)]
        self._parquet.write_table(pa.Table.from_arrays(columns, schema=self._schema))

    def _column(self, kind: str, values: Sequence[Any]) -> Any:
        if kind != NUMBERS:
            return pa.array(values, pa.string() if kind == TEXT else pa.float32())
        # not pa.array: it would go through a Python object for each number
        ends = np.cumsum([0, *(len(value) for value in values)]).astype(np.int32)
        return pa.ListArray.from_arrays(ends, np.concatenate(values).astype(np.float32))


_FORMATS: dict[str, Callable[[Path, Mapping[str, str], str], Table]] = {".csv": _Csv, ".parquet": _Parquet}
