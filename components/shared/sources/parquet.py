"""Images in Parquet files as Hugging Face data sets have them: `image` struct<bytes, path>, `label` int64.

The folder holds `train*.parquet`, `test*.parquet` and optionally `validation*` and `unlabelled*` (or
`unsupervised*`), in one file each or in shards such as `train-00000-of-00002.parquet`. The class names are those
in the schema metadata, key `huggingface`; without them the labels' numbers serve as names. A label of −1 in a
training file means unlabelled. An optional column `group` (`data.group` may name another), text or whole numbers,
names what an image is a view of (a patient, a camera, a burst): images of one group are never divided between
splits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
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
from components.shared.sources.pixels import ImageFile, Picture, decode_all

PUBLISHED = False
ROWS = 256  # read at a time
SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.parquet$", re.IGNORECASE)


def open_source(data: DataParams) -> Source:
    """Read the schemas and labels of the Parquet files in `data.path`; see `Parquet`."""
    return Parquet(Path(data.path), data.image_size, data.group)


class Parquet(Source):
    """Images in Parquet files.

    Args:
        path: folder of the files.
        image_size: height and width to resize to, in pixels.
        group: the column that groups the images; None: `group`, where there is one.

    Raises:
        UserError: one line that names the file, and the column or row, which does not fit.
    """

    def __init__(self, path: Path, image_size: int, group: str | None = None):
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
        if not named:
            highest = max((int(labels.max()) for labels in self._labels.values() if labels.size), default=-1)
            named = [(path, [str(label) for label in range(highest + 1)])]
        first, self.class_names = named[0]
        for file, names in named:
            if names != self.class_names:
                raise UserError(f"{file}: has other class names than {first.name}; make them alike, in one order")

    def labels(self, split: str) -> np.ndarray:
        """Labels of a split: int64, shape (N,)."""
        return self._labels.get(split, np.zeros(0, np.int64))

    def images(self, split: str) -> Iterator[Picture]:
        """Images of a split, in the order of the rows."""
        files = self._files.get(split, [])
        return decode_all((row for file in files for row in _read_images(file, self._group)), self._size)

    def digest(self) -> str:
        """SHA-256 over the names and contents of the files."""
        return files_digest(file for files in self._files.values() for file in files)


def _find_files(path: Path) -> dict[str, list[Path]]:
    if not path.is_dir():
        what = "is a file, but a folder of .parquet files is expected" if path.exists() else "no such folder"
        raise UserError(f"data.path = {path}: {what}; run `dvc pull`, or put train.parquet and test.parquet there")
    found: dict[str, list[Path]] = {}
    for file in sorted(path.iterdir()):
        if file.name.startswith(".") or file.suffix.lower() != ".parquet":
            continue
        split = next((to for name, to in SPLIT_NAMES.items() if file.name.lower().startswith(name)), None)
        if split is None:
            raise UserError(f"{file}: the name must begin with train, test, validation or unlabelled; rename it")
        found.setdefault(split, []).append(file)
    # of unlabelled images alone an encoder can be trained
    if "train" not in found and list(found) != ["unlabelled"]:
        raise UserError(f"{path}: holds no train*.parquet; put train.parquet and test.parquet there")
    for files in found.values():
        _check_shards(files)
    return found


def _check_shards(files: list[Path]) -> None:
    numbers = [tuple(map(int, match.groups())) if (match := SHARD.search(file.name)) else None for file in files]
    total = next((number[1] for number in numbers if number), None)
    if total is not None and numbers != [(index, total) for index in range(total)]:
        raise UserError(
            f"{files[0].parent}: {', '.join(file.name for file in files[:4])}{', …' if len(files) > 4 else ''} "
            f"are not the {total} shards of one split; add the missing or remove the others"
        )


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """An open `pyarrow.parquet.ParquetFile`; whatever damage shows while it is read is told in one line."""
    try:
        with pyarrow.parquet.ParquetFile(file) as parquet:
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


def _read_images(file: Path, group: str) -> Iterator[ImageFile]:
    with _opened(file) as parquet:
        has_group = group in parquet.schema_arrow.names
        row = 0
        for batch in parquet.iter_batches(batch_size=ROWS, columns=["image", *([group] if has_group else [])]):
            contents = pyarrow.compute.struct_field(batch.column("image"), "bytes").to_pylist()
            groups = batch.column(group).to_pylist() if has_group else [None] * len(contents)
            for content, name in zip(contents, groups, strict=True):
                where = f"{file}: row {row}"
                if content is None:
                    raise UserError(f"{where}: image.bytes is empty; store the image in the file")
                yield ImageFile(content, where, f"{file.name}: row {row}", None if name is None else str(name))
                row += 1
