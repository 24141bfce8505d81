"""Images named by patterns, addresses and Parquet files: which count, in which order, and how much is held."""

from __future__ import annotations

import functools
import threading
import tracemalloc
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from components.shared.errors import UserError
from pipelines.inference.inputs import Images
from tests.helpers.image_trees import encode, picture, write_tree

SIZE = 16
IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def names(images: Images) -> list[str]:
    return [name for name, _ in images.read(SIZE)]


def write_parquet(path, contents, **options) -> str:
    rows = pa.array([{"bytes": content, "path": None} for content in contents], IMAGE)
    parquet.write_table(pa.table({"image": rows}), path, **options)
    return str(path)


@pytest.fixture
def memory():
    """An empty file system in memory, with some images."""
    files = fsspec.filesystem("memory")
    for name in ("bucket/b.png", "bucket/deep/a.PNG", "bucket/.hidden/x.png", "bucket/.y.png", "other/c"):
        files.pipe(f"/{name}", encode(picture(name, 20)))
    files.pipe("/bucket/notes.txt", b"text")
    files.pipe("/bucket/broken.png", b"no image")
    yield files
    files.rm("/", recursive=True)


@contextmanager
def serving(folder):
    """The folder's address over HTTP, on this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_pattern_names_what_it_matches(in_tmp):
    write_tree(in_tmp, {"a": 2, "a/b": 1, "[c]": 1})
    assert names(Images(["a/*.png"])) == ["a/0000.png", "a/0001.png"]
    assert names(Images(["a/**/*.png"])) == ["a/0000.png", "a/0001.png", "a/b/0000.png"]
    # as a shell's own: folders are walked, and what is named twice counts once
    assert names(Images(["a/*", "a"])) == ["a/0000.png", "a/0001.png", "a/b/0000.png"]
    # what is there is no pattern
    assert names(Images(["[c]"])) == ["[c]/0000.png"]


def test_addresses_are_files_folders_and_patterns(memory, capsys):
    images = Images(["memory://bucket"])
    found = dict(images.read(SIZE))
    assert list(found) == ["memory:///bucket/b.png", "memory:///bucket/broken.png", "memory:///bucket/deep/a.PNG"]
    assert "not a JPEG, PNG, WebP" in str(found["memory:///bucket/broken.png"])
    assert images.finish() == 0
    assert "left alone: 1" in capsys.readouterr().err
    expected = picture("bucket/b.png", 20)
    (_, pixels), *_ = Images(["memory://bucket/b.png"]).read(20)
    np.testing.assert_array_equal(pixels, expected)
    assert names(Images(["memory://bucket/*/*"])) == ["memory:///bucket/deep/a.PNG"]
    # named itself it counts whatever its ending
    assert names(Images(["memory://other/c"])) == ["memory://other/c"]


def test_web_addresses(tmp_path):
    write_tree(tmp_path, {"a": 1})
    write_parquet(tmp_path / "t.parquet", [encode(picture("row", 20))] * 2)
    with serving(tmp_path) as site:
        asked = [f"{site}/a/0000.png?key=a*b".replace("*", "%2A"), f"{site}/t.parquet"]
        images = Images(asked)
        read = dict(images.read(SIZE))
        assert list(read) == [asked[0], f"{asked[1]}#0", f"{asked[1]}#1"]
        assert {image.shape for image in read.values()} == {(SIZE, SIZE, 3)}
        with pytest.raises(UserError, match=f"{site}/none.png: "):
            Images([f"{site}/none.png"])


def test_rows_of_parquet_files_are_images(in_tmp, memory):
    contents = [encode(picture(str(number), 20)) for number in range(70)]
    contents[3], contents[68] = None, b"no image"
    write_parquet(in_tmp / "one.parquet", contents, row_group_size=50)
    memory.pipe("/bucket/two.parquet", (in_tmp / "one.parquet").read_bytes())
    images = Images(["one.parquet", "memory://bucket/*.parquet"])
    assert len(images) == 140
    read = dict(images.read(20))
    assert list(read)[::69] == ["one.parquet#0", "one.parquet#69", "memory:///bucket/two.parquet#68"]
    np.testing.assert_array_equal(read["one.parquet#69"], picture("69", 20))
    np.testing.assert_array_equal(read["memory:///bucket/two.parquet#69"], picture("69", 20))
    assert names(Images(["one.parquet#69", "memory://bucket/two.parquet#5"])) == [
        "one.parquet#69",
        "memory://bucket/two.parquet#5",
    ]
    refused = {name: str(why) for name, why in read.items() if isinstance(why, UserError)}
    assert list(refused) == [
        f"{file}#{row}" for file in ("one.parquet", "memory:///bucket/two.parquet") for row in (3, 68)
    ]
    assert "image.bytes is empty" in refused["one.parquet#3"]


def test_what_is_held_does_not_grow_with_the_number_of_images(in_tmp):
    rng = np.random.default_rng(0)
    image = [encode(rng.integers(0, 256, (64, 64, 3), np.uint8))]
    peaks = []
    for rows in (300, 3000):
        # one row group, so that reading it whole would show
        images = Images([write_parquet(in_tmp / "t.parquet", image * rows)])
        before = pa.total_allocated_bytes()
        tracemalloc.start()
        held = [pa.total_allocated_bytes() - before + tracemalloc.get_traced_memory()[0] for _ in images.read(64)]
        tracemalloc.stop()
        assert len(held) == rows
        peaks.append(max(held))
    # the file itself is 36 MB and as many pixels
    assert peaks[1] < 1.5 * peaks[0] + 2**20
    assert peaks[1] < 8 * 2**20


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("none/*.jpg", r"none/\*\.jpg: no file matches"),
        ("memory://nowhere/*.png", "no such file or folder"),
        ("memory://nowhere", "no such file or folder|can't be read"),
        ("memory://nowhere/*.parquet", "no file matches"),
        ("memory://nowhere/t.parquet", "can't be read"),
        ("odd://bucket/x.png", "odd://bucket/x.png: .*[Pp]rotocol"),
        ("bad.parquet", "bad.parquet: can't be read"),
        ("other.parquet", "other.parquet: has no column image of struct<bytes, path>, but label int64"),
        ("empty.parquet", "no image found"),
        ("empty.parquet#3", "empty.parquet#3: has rows 0 to"),
        ("http://user:secret@127.0.0.1:9/x.png", "can't be read|no such file"),
    ],
)
def test_what_can_t_be_named_is_one_line(in_tmp, argument, words):
    (in_tmp / "bad.parquet").write_bytes(b"no table")
    parquet.write_table(pa.table({"label": [1]}), in_tmp / "other.parquet")
    write_parquet(in_tmp / "empty.parquet", [])
    with pytest.raises(UserError, match=words) as caught:
        Images([argument])
    assert "\n" not in str(caught.value)
