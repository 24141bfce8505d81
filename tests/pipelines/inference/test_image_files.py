"""Image files named on a command line: which count, in which order, and what is told of the others."""

from __future__ import annotations

import os
import struct
import tempfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from components.shared.errors import UserError
from pipelines.command_line import printable
from pipelines.inference import image_files
from pipelines.inference.image_files import ImageFiles, read_images
from tests.helpers.image_trees import encode, picture, write_tree

NOBODY = 65534


def names(files: ImageFiles, root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in files.paths]


def put(path: Path, data: bytes | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(picture(path.name)) if data is None else data)
    return path


def test_a_folder_gives_all_below_it_sorted_by_name(tmp_path):
    for name in ("b/2.PNG", "b/1.jpeg", "b/deep/er/x.WebP", "a.Jpg", "c d/é 1.png"):
        put(tmp_path / name)
    for name in (".hidden.png", ".git/x.png", "__MACOSX/x.png"):
        put(tmp_path / name)
    put(tmp_path / "labels.csv", b"a,b")
    put(tmp_path / "b" / "notes", b"text")
    files = ImageFiles([tmp_path])
    assert names(files, tmp_path) == ["a.Jpg", "b/1.jpeg", "b/2.PNG", "b/deep/er/x.WebP", "c d/é 1.png"]
    assert (files.skipped, files.left_alone) == ([], 2)


def test_a_named_file_counts_whatever_its_ending(tmp_path):
    files = ImageFiles([put(tmp_path / "photo"), put(tmp_path / "other.txt")])
    assert names(files, tmp_path) == ["photo", "other.txt"]


def test_what_is_named_twice_counts_once_and_keeps_its_first_place(in_tmp):
    write_tree(in_tmp, {"a": 3, "a/b": 2})
    files = ImageFiles(["a/0002.png", "a", "./a//0001.png", in_tmp / "a" / "b", "a/../a/0000.png", "a"])
    listed = ["a/0002.png", "a/0000.png", "a/0001.png", "a/b/0000.png", "a/b/0001.png"]
    assert names(files, Path()) == listed


def test_links_keep_their_names_and_do_not_lead_in_circles(tmp_path):
    put(tmp_path / "a" / "one.png")
    (tmp_path / "a" / "two.png").symlink_to("one.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "a")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    files = ImageFiles([tmp_path])
    assert names(files, tmp_path) == ["a/one.png", "a/two.png", "gone.png"]
    assert "No such file" in str(list(read_images(files.paths, 8))[2][1])


def test_images_of_other_kinds_in_a_folder_are_told(tmp_path):
    put(tmp_path / "a.png")
    put(tmp_path / "design", b"8BPS\0\1")
    files = ImageFiles([tmp_path])
    (_, _), (_, refused) = read_images(files.paths, 8)
    line = str(refused)
    assert line.startswith(str(tmp_path / "design"))
    assert "Photoshop images are not read; convert it to JPEG or PNG" in line


def test_a_name_that_is_no_text_is_refused(tmp_path):
    name = os.fsdecode(bytes(tmp_path) + b"/caf\xe9.png")
    try:
        Path(name).write_bytes(encode(picture("a")))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    ((_, refused),) = read_images(ImageFiles([tmp_path]).paths, 8)
    line = str(refused)
    assert "not UTF-8" in line
    printable(line).encode()


@pytest.mark.parametrize("content", [[], ["notes.txt"], [".a.png"]])
def test_no_image_at_all_is_an_error(tmp_path, content):
    for name in content:
        put(tmp_path / name, b"text" if name.endswith(".txt") else encode(picture(name)))
    with pytest.raises(UserError, match="no image found"):
        ImageFiles([tmp_path])


def test_a_path_to_nothing_is_an_error(tmp_path):
    put(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"b\.png: no such file or folder"):
        ImageFiles([tmp_path / "a.png", tmp_path / "b.png"])


@contextmanager
def without_privileges():
    """As an ordinary user: root may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_what_may_not_be_read_is_told_and_the_rest_is_read():
    # not in pytest's folder, which other users may not enter
    with tempfile.TemporaryDirectory() as folder:
        root = write_tree(Path(folder), {"closed": 1, "open": 2})
        for path, mode in ((root, 0o755), (root / "open" / "0000.png", 0), (root / "closed", 0)):
            path.chmod(mode)
        with without_privileges():
            files = ImageFiles([root])
            read = list(read_images(files.paths, 8))
            with pytest.raises(UserError, match="no such file or folder, or no permission"):
                ImageFiles([root / "closed" / "0000.png"])
        (root / "closed").chmod(0o755)
    assert files.skipped == [f"{root / 'closed'}: can't be read: Permission denied"]
    assert str(read[0][1]) == f"{root / 'open' / '0000.png'}: can't be read: Permission denied"
    assert read[1][1].shape == (8, 8, 3)


def huge_png() -> bytes:
    """A PNG of some hundred bytes that says it has 10¹⁰ pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty"),
        (b"text\nof lines", "not a JPEG, PNG, WebP, GIF, BMP, TIFF, PNM, JPEG 2000 or AVIF file"),
        (encode(picture("half", 40), "JPEG")[:500], "can't be read as an image: "),
        (encode(picture("half", 40))[:300], "can't be read as an image"),
        (b"\0\0\1\0\1\0\x10\x10", "icon images are not read"),
        (huge_png(), "100,000×100,000 pixels: takes 38,147 MiB, and 768 MiB are allowed; repair or remove it"),
    ],
    ids=["empty", "text", "half a JPEG", "half a PNG", "an icon", "too many pixels"],
)
def test_a_file_that_is_no_whole_image_is_told_in_one_line(tmp_path, data, words):
    path = put(tmp_path / "bad.jpg", data)
    good = put(tmp_path / "good.jpg")
    (_, refused), (last, image) = read_images([path, good], 16)
    line = str(refused)
    assert line.startswith(str(path))
    assert words in line
    assert printable(line) == line
    assert (last, image.shape, image.dtype) == (good, (16, 16, 3), np.uint8)


def test_large_and_odd_files_are_told(tmp_path, monkeypatch):
    pipe, large = tmp_path / "pipe.png", put(tmp_path / "large.png", bytes(3 << 20))
    os.mkfifo(pipe)
    monkeypatch.setattr(image_files, "LARGEST_FILE", 2 << 20)
    lines = [str(refused) for _, refused in read_images([pipe, large, tmp_path / "gone.png"], 16)]
    assert [line.split(": ", 1)[1].split(";")[0] for line in lines] == [
        "not a file",
        "too large: 3 MiB, at most 2 are read",
        "can't be read: No such file or directory",
    ]


def test_many_files_come_in_order(tmp_path):
    write_tree(tmp_path, {"many": 150})
    files = ImageFiles([tmp_path])
    read = list(read_images(files.paths, 12))
    assert [path for path, _ in read] == files.paths
    for path, image in read:
        np.testing.assert_array_equal(image, picture(f"many/{path.name}"))


def test_a_reader_that_stops_early_does_not_wait_for_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files.os, "cpu_count", lambda: 2)
    write_tree(tmp_path, {"many": 200})
    paths = ImageFiles([tmp_path]).paths
    asked = []
    reading = read_images((asked.append(path) or path for path in paths), 12)
    next(reading)
    reading.close()
    assert 0 < len(asked) <= 50
