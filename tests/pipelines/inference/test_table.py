"""Tables as files: whole or not at all, and what pandas and pyarrow read from them."""

from __future__ import annotations

import os
import resource
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.shared.errors import UserError
from pipelines.inference import embed, predict
from pipelines.inference import table as table_file
from pipelines.inference.table import check_table, write_table

SCHEMA = predict.SCHEMA
ROWS = [
    ("a b/é.png", "one", np.float32(0.1)),
    ('say "hi",\nthere.png', "two, three", np.float32(1 / 3)),
    ("", "-", np.float32(1e-9)),
]


def batch(rows):
    return pa.record_batch(list(zip(*rows, strict=True)), schema=SCHEMA)


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "T.CSV", "T.Parquet"])
def test_what_is_written_is_read(tmp_path, name):
    path = tmp_path / name
    assert write_table(path, SCHEMA.with_metadata({"model": "a model"}), [batch(ROWS[:1]), batch(ROWS[1:])]) == 3
    csv = path.suffix.lower() == ".csv"
    read = pd.read_csv(path, keep_default_na=False) if csv else pd.read_parquet(path)
    assert list(read.columns) == SCHEMA.names
    assert [tuple(row[:2]) for row in read.to_numpy()] == [row[:2] for row in ROWS]
    np.testing.assert_array_equal(read["probability"].astype("float32"), [row[2] for row in ROWS])
    assert [file.name for file in tmp_path.iterdir()] == [name]
    if not csv:
        assert pq.read_schema(path).metadata[b"model"] == b"a model"


def test_csv_is_plain(tmp_path):
    write_table(tmp_path / "t.csv", SCHEMA, [batch(ROWS[:2])])
    assert (tmp_path / "t.csv").read_text(encoding="utf-8") == (
        '"path","class","probability"\n"a b/é.png","one",0.1\n"say ""hi"",\nthere.png","two, three",0.33333334\n'
    )


def test_lists_of_numbers_come_back_as_a_matrix(tmp_path, monkeypatch):
    monkeypatch.setattr(table_file, "ROWS", 4)
    matrix = np.random.default_rng(0).normal(size=(11, 5)).astype(np.float32)
    path = tmp_path / "t.parquet"
    names = [str(row) for row in range(11)]
    parts = [slice(start, start + 3) for start in range(0, 11, 3)]
    batches = [pa.record_batch(embed._columns(names[part], matrix[part]), schema=embed.SCHEMA) for part in parts]
    assert write_table(path, embed.SCHEMA, batches) == 11
    np.testing.assert_array_equal(np.stack(pd.read_parquet(path)["features"]), matrix)
    read = pq.read_table(path)
    assert read.column("path").to_pylist() == names
    flat = read.column("features").combine_chunks().flatten().to_numpy()
    np.testing.assert_array_equal(flat.reshape(-1, 5), matrix)
    assert pq.ParquetFile(path).num_row_groups == 2


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_work_that_fails_leaves_what_was_there(tmp_path, name, error):
    path = tmp_path / name
    path.write_bytes(b"before")

    def batches():
        yield batch(ROWS)
        raise error

    with pytest.raises(error):
        write_table(path, SCHEMA, batches())
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [(name, b"before")]


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_table_without_rows_is_not_written(tmp_path, name):
    assert write_table(tmp_path / name, SCHEMA, []) == 0
    assert list(tmp_path.iterdir()) == []


@contextmanager
def small_files(size):
    """Let no file grow beyond so many bytes, as a full disk does not."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_disk_that_takes_no_more_is_one_line_and_leaves_nothing(tmp_path, name):
    batches = (batch([(os.urandom(50).hex(), "class", np.float32(0.5)) for _ in range(50)]) for _ in range(400))
    with pytest.raises(UserError, match="can't be written: File too large"), small_files(2000):
        write_table(tmp_path / name, SCHEMA, batches)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("t.json", r"ends in \.csv or \.parquet"),
        ("t", "ends in"),
        ("no/t.csv", "no folder"),
        ("d.csv", "is a folder"),
    ],
)
def test_what_can_t_be_a_table_is_refused_at_once(tmp_path, name, words):
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(UserError, match=words):
        check_table(tmp_path / name, (".csv", ".parquet"))
