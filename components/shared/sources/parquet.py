"""Images in Parquet files as Hugging Face data sets have them: `image` struct<bytes, path>, `label` int64.

The folder holds `train.parquet`, `test.parquet` and optionally `validation.parquet` and `unlabelled.parquet` (see
`SPLIT_NAMES` for others), each in one file or in shards such as `train-00000-of-00002.parquet` or
`train_0.parquet`; a file of any other name is refused. The class names are those in the schema metadata, key
`huggingface`; without them the labels' numbers serve as names. A label of −1 in a training file means unlabelled.
An optional column `group` (`data.group` may name another), text or whole numbers, names what an image is a view of
(a patient, a camera, a burst): images of one group are never divided between splits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from components.shared.artifacts import UNLABELLED
from components.shared.digests import files_digest
from components.shared.errors import UserError, first_line
from components.shared.params.schema import DataParams
from components.shared.sources import SPLIT_NAMES, Source
from components.shared.sources.decoding import ImageFile, decode_all
from components.shared.sources.pixels import MEMORY, BadImageError, Limits, Picture
from components.shared.sources.splitting import MOST_CLASSES

PUBLISHED = False
ROWS = 256  # read at a time
NAME = re.compile(
    rf"(?P<split>{'|'.join(SPLIT_NAMES)})(?:[-_.](?P<number>\d+)(?:-of-(?P<total>\d+))?)?(?:-[0-9a-f]{{16}})?\.parquet",
    re.IGNORECASE,
)


def open_source(data: DataParams) -> Source:
    """Read the schemas and labels of the Parquet files in `data.path`; see `Parquet`."""
    source = Parquet(Path(data.path), data.image_size, data.group, data.memory)
    source.bits = data.grey_bits
    return source


class Parquet(Source):
    """Images in Parquet files.

    Args:
        path: folder of the files.
        image_size: height and width to resize to, in pixels.
        group: the column that groups the images; None: `group`, where there is one.
        memory: that decoding may take, in MiB.

    Raises:
        UserError: one line that names the file, and the column or row, which does not fit.
    """

    def __init__(self, path: Path, image_size: int, group: str | None = None, memory: int = MEMORY):
        self._limits = Limits(memory)
        self._group = group or "group"
        self.location = str(path)
        self._size = image_size
        self._files = _find_files(path)
        self._labels: dict[str, np.ndarray] = {}
        named: list[tuple[Path, list[str]]] = []
        for split, files in self._files.items():
            heads = [_read_head(file, split != "unlabelled", self._group, group is not None) for file in files]
            self._labels[split] = np.concatenate([labels for labels, _ in heads])
            named += [(file, names) for file, (_, names) in zip(files, heads, strict=True) if names]
        are_named = bool(named)
        if not are_named:
            named = [(path, [str(label) for label in range(_highest(self._labels, path) + 1)])]
        first, self.class_names = named[0]
        for file, names in named:
            if names != self.class_names:
                raise UserError(f"{file}: has other class names than {first.name}; make them alike, in one order")
        _refuse_from_one(self._labels, len(self.class_names), are_named, path)

    def labels(self, split: str) -> np.ndarray:
        """Labels of a split: int64, shape (N,)."""
        return self._labels.get(split, np.zeros(0, np.int64))

    def images(self, split: str) -> Iterator[Picture | BadImageError]:
        """Images of a split, in the order of the rows; of one that can't be read, why."""
        files, most = self._files.get(split, []), self._limits.files.total
        rows = (row for file in files for row in _read_images(file, self._group, most))
        return decode_all(rows, self._size, self.bits, self._limits, self.channels)

    def digest(self) -> str:
        """SHA-256 over the names and contents of the files."""
        return files_digest(file for files in self._files.values() for file in files)


def _find_files(path: Path) -> dict[str, list[Path]]:
    if not path.is_dir():
        what = "is a file, but a folder of .parquet files is expected" if path.exists() else "no such folder"
        raise UserError(
            f"data.path = {path}: {what}; put train.parquet and test.parquet there, or run `dvc pull` if a DVC "
            "remote of yours has them"
        )
    found: dict[str, list[tuple[re.Match[str], Path]]] = {}
    for file in sorted(path.iterdir()):
        if file.name.startswith(".") or file.suffix.lower() != ".parquet":
            continue
        match = NAME.fullmatch(file.name)
        if match is None:
            raise UserError(
                f"{file}: no name of a split, such as train.parquet or unlabelled.parquet, nor of a shard of one, "
                "such as train-00000-of-00002.parquet; rename it, or move it away"
            )
        found.setdefault(SPLIT_NAMES[match["split"].lower()], []).append((match, file))
    # of unlabelled images alone an encoder can be trained
    if "train" not in found and list(found) != ["unlabelled"]:
        raise UserError(f"{path}: holds no train.parquet; put train.parquet and test.parquet there")
    return {split: _in_order(files) for split, files in found.items()}


def _in_order(files: list[tuple[re.Match[str], Path]]) -> list[Path]:
    """The one file or all shards of a split, by number."""
    names = {match["split"].lower() for match, _ in files}
    numbers = sorted(-1 if match["number"] is None else int(match["number"]) for match, _ in files)
    totals = {match["total"] and int(match["total"]) for match, _ in files}
    # shards count from 0, or where they don't tell how many they are from 1
    first = 1 if totals == {None} and numbers[0] == 1 else 0
    whole = numbers == list(range(first, first + len(files))) and totals <= {None, len(files)} and len(totals) == 1
    if len(names) > 1 or not (whole or numbers == [-1]):
        listed = ", ".join(file.name for _, file in files[:4]) + (", …" if len(files) > 4 else "")
        raise UserError(
            f"{files[0][1].parent}: {listed} are not one file, nor all the "
            f"{f'{max(total for total in totals if total)} ' if any(totals) else ''}shards, of one split; add the "
            "missing or remove the others"
        )
    return [file for _, file in sorted(files, key=lambda found: int(found[0]["number"] or 0))]


def _highest(labels: Mapping[str, np.ndarray], path: Path) -> int:
    """The highest label, where classes are numbers."""
    highest = max((int(values.max()) for values in labels.values() if values.size), default=-1)
    if highest >= MOST_CLASSES:
        raise UserError(
            f"{path}: label {highest:,} means {highest + 1:,} classes, and at most {MOST_CLASSES:,} are possible; "
            "number the classes from 0 without gaps, or give their names in the metadata"
        )
    return highest


def _refuse_from_one(labels: Mapping[str, np.ndarray], classes: int, are_named: bool, path: Path) -> None:
    """Labels that count from 1 would lack class 0, or go beyond the names."""
    values = np.unique(np.concatenate([found[found != UNLABELLED] for found in labels.values()]))
    if not values.size or values[0] != 1:
        return
    last = int(values[-1])
    if last == classes if are_named else values.size == last:
        raise UserError(f"{path}: the labels go from 1 to {last}, but must begin with 0; subtract 1 from each")


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """An open `pyarrow.parquet.ParquetFile`; whatever damage shows while it is read is told in one line."""
    try:
        # a buffer: else a whole column of a group of rows would be read at a time
        with pyarrow.parquet.ParquetFile(file, buffer_size=1 << 20) as parquet:
            yield parquet
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"{file}: not readable as Parquet: {first_line(error)}") from None


def _read_head(file: Path, labelled: bool, group: str, needs_group: bool) -> tuple[np.ndarray, list[str]]:
    """Labels and class names of a file, its columns checked; no names where its metadata have none."""
    with _opened(file) as parquet:
        schema = parquet.schema_arrow
        _check_columns(file, schema, (*(["label"] if labelled else []), *([group] if needs_group else [])))
        if group in schema.names and not _names_groups(schema.field(group).type):
            raise UserError(f"{file}: column {group!r} is {schema.field(group).type}; expected string or int64")
        if not labelled:
            return np.full(parquet.metadata.num_rows, UNLABELLED, np.int64), _class_names(schema)
        column = parquet.read(columns=["label"]).column("label")
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise UserError(f"{file}: row {row}: label is missing; −1 stands for unlabelled")
    return column.to_numpy().astype(np.int64), _class_names(schema)


def _check_columns(file: Path, schema: Any, needed: tuple[str, ...]) -> None:
    for column in ("image", *needed):
        if column not in schema.names:
            raise UserError(f"{file}: has no column {column!r}, but {', '.join(schema.names)}; rename the column")
    image = schema.field("image").type
    if not pyarrow.types.is_struct(image) or image.get_field_index("bytes") < 0:
        raise UserError(f"{file}: column 'image' is {image}; expected struct<bytes: binary, path: string>")
    if "label" in needed and not pyarrow.types.is_integer(schema.field("label").type):
        raise UserError(f"{file}: column 'label' is {schema.field('label').type}; expected int64")


def _names_groups(kind: Any) -> bool:
    types = pyarrow.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_integer(kind))


def _class_names(schema: Any) -> list[str]:
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return [str(name) for name in features["label"]["names"]]
    except (ValueError, KeyError, TypeError):
        return []


def _read_images(file: Path, group: str, most: int) -> Iterator[ImageFile]:
    with _opened(file) as parquet:
        has_group = group in parquet.schema_arrow.names
        row = 0
        columns = ["image.bytes", *([group] if has_group else [])]
        for batch in parquet.iter_batches(batch_size=_rows_at_a_time(parquet, most), columns=columns):
            contents = pyarrow.compute.struct_field(batch.column("image"), "bytes").to_pylist()
            groups = batch.column(group).to_pylist() if has_group else [None] * len(contents)
            for content, name in zip(contents, groups, strict=True):
                yield ImageFile(
                    len(content or b""),
                    partial(_given, content),
                    f"{file}: row {row}",
                    f"{file.name}: row {row}",
                    None if name is None else str(name),
                )
                row += 1


def _rows_at_a_time(parquet: Any, most: int) -> int:
    """So many rows that their images, of usual size, take no more than `most` bytes."""
    groups = [parquet.metadata.row_group(index) for index in range(parquet.metadata.num_row_groups)]
    largest = max((group.total_byte_size / max(group.num_rows, 1) for group in groups), default=1)
    return int(min(ROWS, max(most / largest, 1)))


def _given(content: bytes | None) -> bytes:
    if content is None:
        raise UserError("image.bytes is empty; store the image in the file")
    return content
