"""Images as a command line names them: files, folders, patterns, addresses and Parquet files, read one by one."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
from fsspec.core import url_to_fs
from pyarrow import parquet
from tqdm import tqdm

from components.shared.errors import UserError, first_line, redacted
from components.shared.sources.decoding import in_threads
from components.shared.sources.kinds import HEAD, USUAL_ENDINGS, is_junk, kind_of
from components.shared.sources.pixels import decode
from pipelines.command_line import printable
from pipelines.inference.image_files import LARGEST_FILE, ImageFiles, read_images

ROWS = 64  # of a Parquet file, read at a time
BUFFER = 2**20  # bytes of a Parquet file, read at a time: it may hold all its images in one row group

_TABLE = re.compile(r"(.*\.parquet)(?:#(\d+))?", re.IGNORECASE | re.DOTALL)

# name, and the content: read by the thread that decodes it
Item = tuple[str, Callable[[], bytes]]
# name, and the image as a dataset would hold it (uint8, shape (size, size, channels)) or why it can't be read
Read = tuple[str, "np.ndarray | UserError"]


class Images:
    """The images that arguments name; local files first, then those at addresses and in Parquet files.

    An argument is a file or folder (see `ImageFiles`), a pattern such as `photos/**/*.jpg`, an address that fsspec
    knows (`https://…/photo.jpg`, `s3://bucket/folder`, `gs://bucket/*.png`, `memory://…`), or a Parquet file, here
    or at an address, in the Hugging Face layout (`image` struct<bytes, path>); its rows are named `<file>#<row>`.

    Only names are kept of files, and nothing of rows: the images are read as they are asked for, a few at a time.

    Args:
        arguments: of the command line.

    Attributes:
        skipped: number of files and rows, so far, that can't be used; each is told on the error stream.

    Raises:
        UserError: an argument names nothing or can't be reached, or there is no image at all.
    """

    def __init__(self, arguments: Sequence[str | Path]):
        self._left_alone = 0
        named = [name for argument in map(str, arguments) for name in _matches(argument)]
        tables = [name for name in named if _is_table(name)]
        others = [name for name in named if not _is_table(name)]
        local = [name for name in others if not _is_address(name)]
        self._files = ImageFiles(local) if local else None
        self.skipped = len(self._files.skipped) if self._files else 0
        self._remote = [item for name in others if _is_address(name) for item in self._at(name)]
        self._tables = [(name, _count_rows(name)) for name in tables]
        if not len(self) and not self.skipped:
            raise UserError(f"{printable(', '.join(map(str, arguments)))}: no image found; name other files")

    def __len__(self) -> int:
        rows = sum(count for _, count in self._tables)
        return (len(self._files.paths) if self._files else 0) + len(self._remote) + rows

    def read(self, size: int, channels: int = 3) -> Iterator[Read]:
        """Read them on all processors, in order; one that can't be read does not end the others.

        Args:
            size: height and width in pixels; the images are prepared as a dataset's are.
            channels: likewise.
        """
        if self._files:
            for path, image in read_images(self._files.paths, size, channels):
                yield str(path), image
        rows = (item for name, _ in self._tables for item in _rows(name))
        yield from in_threads(partial(_read_or_refuse, size=size, channels=channels), chain(self._remote, rows))

    def skip(self, line: str) -> None:
        """Say why an image is not in the result."""
        self.skipped += 1
        tqdm.write(f"skipped: {printable(redacted(line))}", file=sys.stderr)

    def finish(self) -> int:
        """Say what was left alone; returns the exit status: 1 if an image was skipped, else 0."""
        left_alone = self._left_alone + (self._files.left_alone if self._files else 0)
        if left_alone:
            print(f"note: other files in the folders, left alone: {left_alone:,}", file=sys.stderr)
        return 1 if self.skipped else 0

    def _at(self, address: str) -> Iterator[Item]:
        """The images at an address: of a file itself, of a folder or a pattern those below it, sorted by name."""
        with _reaching(address):
            files, path = url_to_fs(address)
            pattern = _is_pattern(address)
            if not pattern and files.isfile(path):
                yield address, partial(_content, files, path)
                return
            found = files.glob(path) if pattern else files.find(path)
        if not found:
            raise UserError(f"{address}: no such file or folder; check the address")
        top = path.split("*")[0]
        for each in sorted(found):
            parts = each.removeprefix(top).split("/")
            if any(map(is_junk, parts)):
                continue
            if _is_image(files, each):
                yield files.unstrip_protocol(each), partial(_content, files, each)
            else:
                self._left_alone += 1


def _is_address(name: str) -> bool:
    return "://" in name


def _is_pattern(name: str) -> bool:
    # an address may go on with ?key=value
    return "*" in name if _is_address(name) else glob.has_magic(name) and not os.path.lexists(name)


def _is_table(name: str) -> bool:
    return _TABLE.fullmatch(name) is not None and not Path(name).is_dir()


def _matches(argument: str) -> list[str]:
    """What a pattern stands for here; of patterns at addresses the Parquet files. Anything else is itself."""
    if not _is_pattern(argument) or (_is_address(argument) and not _is_table(argument)):
        return [argument]
    if _is_address(argument):
        with _reaching(argument):
            files, path = url_to_fs(argument)
            found = [files.unstrip_protocol(each) for each in sorted(files.glob(path))]
    else:
        found = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207 (it knows ** and absolute patterns)
    if not found:
        raise UserError(f"{printable(argument)}: no file matches; check the pattern")
    return found


@contextmanager
def _reaching(address: str) -> Iterator[None]:
    """Whatever goes wrong on the way to an address, in one line."""
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f"{address}: {first_line(error)}; `uv pip install` it") from None
    except Exception as error:  # each file system has its own
        raise UserError(
            f"{address}: can't be read: {first_line(error)}; check address, network and account"
        ) from None


def _is_image(files: Any, path: str) -> bool:
    """By the content, unless the ending is a usual one."""
    if PurePosixPath(path).suffix.lower() in USUAL_ENDINGS:
        return True
    with _reaching(path):
        return bool(kind_of(files.cat_file(path, start=0, end=HEAD), path))


def _content(files: Any, path: str) -> bytes:
    data: bytes = files.cat_file(path, start=0, end=LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise UserError(f"{files.unstrip_protocol(path)}: too large: at most {LARGEST_FILE >> 20} MiB are read")
    return data


def _read_or_refuse(item: Item, size: int, channels: int) -> Read:
    name, load = item
    try:
        with _reaching(name):
            return name, decode(load(), size, name, channels=channels).pixels
    except UserError as error:
        return name, error


@contextmanager
def _opened(name: str) -> Iterator[tuple[Any, int | None]]:
    """An open `ParquetFile`, read a little at a time, and the row where the name has one."""
    path, row = _TABLE.fullmatch(name).groups()  # type: ignore[union-attr]
    with (
        _reaching(path),
        fsspec.open(path, "rb") if _is_address(path) else Path(path).open("rb") as file,
        parquet.ParquetFile(file, buffer_size=BUFFER, pre_buffer=False) as table,
    ):
        yield table, None if row is None else int(row)


def _count_rows(name: str) -> int:
    with _opened(name) as (table, row):
        schema = table.schema_arrow
        kind = schema.field("image").type if "image" in schema.names else None
        if kind is None or not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
            found = ", ".join(f"{field.name} {field.type}" for field in schema)
            raise UserError(
                f"{name}: has no column image of struct<bytes, path>, but {found}; rename or convert it"
            )
        rows: int = table.metadata.num_rows
        if row is not None and row >= rows:
            raise UserError(f"{name}: has rows 0 to {rows - 1}; choose another")
        return rows if row is None else 1


def _rows(name: str) -> Iterator[Item]:
    file = _TABLE.sub(r"\1", name)
    with _opened(name) as (table, row):
        first = 0
        for group in range(table.num_row_groups):
            last = first + table.metadata.row_group(group).num_rows
            if row is None or first <= row < last:
                numbers = count(first)
                for batch in table.iter_batches(ROWS, row_groups=[group], columns=["image.bytes"]):
                    for image, number in zip(batch.column("image"), numbers, strict=False):
                        if row in (None, number):
                            each = f"{file}#{number}"
                            yield each, partial(_stored, each, image["bytes"].as_py())
            first = last


def _stored(row: str, content: bytes | None) -> bytes:
    if content is None:
        raise UserError(f"{row}: image.bytes is empty; store the image in the file")
    return content
