"""The folder source: what it reads from folders and archives, and the one line it answers to bad ones."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from components.shared.artifacts import SPLITS
from components.shared.errors import UserError
from components.shared.sources.folder import Folder
from tests.helpers.image_trees import encode, pack_tar, pack_zip, picture, write_tree

SIZE = 12
BOTH = {"train/cat": 3, "train/dog": 4, "test/cat": 2, "test/dog": 2}
FULL = {**BOTH, "validation/cat": 1, "validation/dog": 1, "unlabelled": 5}


def contents(path):
    """Labels and images of all splits."""
    with Folder(path, SIZE) as source:
        return source.class_names, {
            split: (source.labels(split).tolist(), [image.pixels.tobytes() for image in source.images(split)])
            for split in SPLITS
        }


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path / "images", FULL)


def test_splits_classes_and_pixels(tree):
    names, splits = contents(tree)
    assert names == ["cat", "dog"]
    assert splits["train"][0] == [0, 0, 0, 1, 1, 1, 1]
    assert splits["unlabelled"][0] == [-1] * 5
    assert [len(splits[split][0]) for split in ("validation", "test")] == [2, 4]
    assert splits["train"][1][4] == picture("train/dog/0001.png", SIZE).tobytes()
    assert splits["unlabelled"][1][2] == picture("unlabelled/0002.png", SIZE).tobytes()


def test_a_picture_tells_its_file_and_size(tree):
    (tree / "test/dog/0001.png").write_bytes(encode(picture("wide", (30, 50))))
    with Folder(tree, SIZE) as source:
        found = [(image.path, image.width, image.height, image.group) for image in source.images("test")]
    names = ["test/cat/0000.png", "test/cat/0001.png", "test/dog/0000.png", "test/dog/0001.png"]
    assert found == [*((name, 12, 12, None) for name in names[:3]), (names[3], 50, 30, None)]


def test_classes_alone_are_all_training_images(tmp_path):
    names, splits = contents(write_tree(tmp_path / "images", {"b": 2, "a/deep/er": 1, "a": 1}))
    assert names == ["a", "b"]
    assert splits["train"][0] == [0, 0, 1, 1]
    assert not splits["test"][0]


@pytest.mark.parametrize("prefix", ["", "download/"])
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_archives_hold_the_same_as_the_folder(tree, tmp_path, kind, prefix):
    path = tmp_path / f"images.{kind}"
    if kind == "zip":
        pack_zip(tree, path, prefix)
    else:
        pack_tar(tree, path, "w:" + kind.partition(".")[2], f"./{prefix}")
    assert contents(path) == contents(tree)


def test_a_folder_around_a_folder_is_tolerated(tree, tmp_path):
    outer = tmp_path / "outer"
    outer.mkdir()
    tree.rename(outer / "download")
    (outer / "LICENCE.txt").write_text("free")
    assert contents(outer)[0] == ["cat", "dog"]


def test_endings_in_either_case_and_all_kinds(tmp_path):
    root = tmp_path / "images"
    kinds = {"a.JPG": "JPEG", "b.jpeg": "JPEG", "c.Jpeg": "JPEG", "d.png": "PNG", "e.PNG": "PNG", "f.WebP": "WEBP"}
    for folder in ("x", "y"):
        (root / folder).mkdir(parents=True)
        for name, kind in kinds.items():
            (root / folder / name).write_bytes(encode(picture(name, 20), kind))
    assert contents(root)[1]["train"][0] == [0] * 6 + [1] * 6


def test_hidden_files_and_other_files_are_left_alone(tree, tmp_path):
    before = contents(tree)
    (tree / "__MACOSX/train/cat").mkdir(parents=True)
    (tree / "__MACOSX/train/cat/._0000.png").write_bytes(b"resource fork")
    (tree / "__MACOSX/odd.png").write_bytes(b"?")
    (tree / ".cache").mkdir()
    (tree / ".cache/1.png").write_bytes(b"?")
    (tree / "train/cat/.DS_Store").write_bytes(b"?")
    (tree / "train/cat/._0000.png").write_bytes(b"?")
    (tree / "train/labels.csv").write_text("x")
    (tree / "README.md").write_text("x")
    assert contents(tree) == before
    assert contents(pack_zip(tree, tmp_path / "images.zip")) == before


def test_split_folders_may_be_called_otherwise(tmp_path):
    root = write_tree(tmp_path / "images", {"Train/a": 1, "Train/b": 1, "val/a": 1, "val/b": 1, "unlabeled": 2})
    splits = contents(root)[1]
    assert {split: len(labels) for split, (labels, _) in splits.items()} == {
        "train": 2,
        "validation": 2,
        "unlabelled": 2,
        "test": 0,
    }


def test_a_class_may_be_called_train_inside_a_split(tmp_path):
    counts = {"train/bus": 1, "train/train": 2, "test/bus": 1, "test/train": 1}
    assert contents(write_tree(tmp_path / "images", counts))[0] == ["bus", "train"]


def test_order_does_not_depend_on_the_file_system(tree, monkeypatch):
    with Folder(tree, SIZE) as source:
        digest = source.digest()
    before = contents(tree)
    listing = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(sorted(listing(self), reverse=True)))
    assert contents(tree) == before
    with Folder(tree, SIZE) as source:
        assert source.digest() == digest


def test_decomposed_names_equal_composed_ones(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    write_tree(
        tmp_path / "images", {f"train/{decomposed}": 1, "train/tea": 1, f"test/{composed}": 1, "test/tea": 1}
    )
    assert contents(tmp_path / "images")[0] == [composed, "tea"]


def test_digest_sees_contents_and_names(tree):
    def digest():
        with Folder(tree, SIZE) as source:
            return source.digest()

    first = digest()
    (tree / "train/cat/0000.png").rename(tree / "train/cat/renamed.png")
    second = digest()
    (tree / "train/cat/renamed.png").write_bytes(encode(picture("other")))
    assert len({first, second, digest()}) == 3


def test_linked_files_and_folders_are_followed(tree, tmp_path):
    before = contents(tree)
    (tree / "train/cat").rename(tmp_path / "elsewhere")
    (tree / "train/cat").symlink_to(tmp_path / "elsewhere")
    (tree / "train/dog/0000.png").rename(tmp_path / "one.png")
    (tree / "train/dog/0000.png").symlink_to(tmp_path / "one.png")
    assert contents(tree) == before


def test_a_windows_archive_with_backslashes_is_read(tree, tmp_path):
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        for file in tree.rglob("*.png"):
            archive.writestr(str(file.relative_to(tree)).replace("/", "\\"), file.read_bytes())
    assert contents(tmp_path / "w.zip") == contents(tree)


def damage(path):
    path.write_bytes(path.read_bytes()[:60])


BAD_FOLDERS = {
    "no images": ({"notes": 0}, None, "{root}: holds no images"),
    "damaged image": (BOTH, lambda r: damage(r / "test/dog/0001.png"), "{root}/test/dog/0001.png: can't be read"),
    "empty class": ({**BOTH, "train/eel": 0}, None, "{root}: class 'eel' of train holds no images"),
    "empty class of test": ({**BOTH, "test/dog": 0}, None, "{root}: class 'dog' of test holds no images"),
    "empty split": ({**BOTH, "validation": 0}, None, "the split validation holds no images"),
    "empty unlabelled": ({**BOTH, "unlabelled": 0}, None, "the split unlabelled holds no images"),
    "class only in test": ({**BOTH, "test/eel": 1}, None, "{root}/test/eel/0000.png: class 'eel' has no training"),
    "a class called train": ({"bus": 2, "car": 2, "train": 2}, None, "{root}/bus: stands beside train/"),
    "classes beside a split": ({"train/a": 1, "cat": 1}, None, "{root}/cat: stands beside train/"),
    "no train": ({"test/a": 1, "test/b": 1}, None, "{root}: has test but no train/"),
    "one split twice": ({**BOTH, "val/cat": 1, "validation/cat": 1}, None, "names the same split as val/"),
    "loose image": (BOTH, lambda r: write_tree(r, {"train": 1}), "{root}/train/0000.png: is in no class folder"),
    "loose on top": (BOTH, lambda r: write_tree(r, {".": 1}), "{root}/0000.png: is in no class folder"),
    "other image": (BOTH, lambda r: (r / "test/dog/x.TIFF").touch(), "{root}/test/dog/x.TIFF: .tiff images"),
    "dead link": (BOTH, lambda r: (r / "test/dog/x.png").symlink_to("gone"), "{root}/test/dog/x.png: a link to"),
    "loop": (BOTH, lambda r: (r / "test/dog/x").symlink_to(r), "{root}/test/dog/x: links to a folder"),
}  # fmt: skip


@pytest.mark.parametrize(("counts", "change", "expected"), BAD_FOLDERS.values(), ids=BAD_FOLDERS)
def test_a_bad_folder_is_refused_in_one_line(tmp_path, counts, change, expected):
    root = write_tree(tmp_path / "images", counts)
    if change:
        change(root)
    with pytest.raises(UserError) as caught:
        contents(root)
    message = str(caught.value)
    assert expected.format(root=root) in message
    assert "\n" not in message


def test_an_undecodable_name_is_refused(tree):
    os.rename(tree / "train/cat", os.fsencode(tree) + b"/train/c\xe4t")  # noqa: PTH104  (a name in bytes)
    with pytest.raises(UserError, match="is not UTF-8; rename it"):
        Folder(tree, SIZE)


def test_an_unreadable_image_is_named(tree, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with (
        Folder(tree, SIZE) as source,
        pytest.raises(UserError, match=r"train/cat/0000.png: can't be read: Permission"),
    ):
        list(source.images("train"))


def test_a_missing_path_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"data.path = .*gone: nothing there; run `dvc pull`, or put your images"):
        Folder(tmp_path / "gone", SIZE)


def make_zip(path, name, mode=0o100644, *, twice=False):
    image = encode(picture("a"))
    with zipfile.ZipFile(path, "w") as archive:
        for folder in ("train/a", "train/b"):
            archive.writestr(f"{folder}/1.png", image)
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        archive.writestr(entry, image)
        if twice:
            archive.writestr(f"./{name}", image)
    return path


def make_tar(path, name, kind=tarfile.REGTYPE):
    with tarfile.open(path, "w") as archive:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname, entry.size = kind, "/etc/hostname", 4 if kind == tarfile.REGTYPE else 0
        archive.addfile(entry, io.BytesIO(b"1234"))
    return path


UNSAFE = ["../evil/1.png", "train/../../evil.png", "/etc/1.png", "C:\\evil\\1.png", "train\\..\\..\\1.png"]


@pytest.mark.parametrize("name", UNSAFE)
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_an_unsafe_name_in_an_archive_is_refused(tmp_path, make, name):
    path = make(tmp_path / "images", name)
    with pytest.raises(UserError, match=r"unsafe name .* points outside the archive"):
        Folder(path, SIZE)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    with pytest.raises(UserError, match=r"train/a/x.png: is a link or device"):
        Folder(make_tar(tmp_path / "x.tar", "train/a/x.png", kind), SIZE)


def test_links_in_a_zip_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"train/a/x.png: is a link"):
        Folder(make_zip(tmp_path / "x.zip", "train/a/x.png", 0o120777), SIZE)


def test_a_file_that_is_there_twice_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"train/a/2.png: there twice"):
        Folder(make_zip(tmp_path / "x.zip", "train/a/2.png", twice=True), SIZE)


def test_an_encrypted_zip_is_refused(tmp_path):
    path = make_zip(tmp_path / "x.zip", "train/a/2.png")
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"train/a/1.png: is encrypted"):
        Folder(path, SIZE)


def test_a_damaged_entry_of_a_zip_is_named(tmp_path):
    path = make_zip(tmp_path / "x.zip", "train/a/2.png")
    data = bytearray(path.read_bytes())
    data[data.index(b"train/a/2.png") + 60] ^= 255
    path.write_bytes(data)
    with (
        Folder(path, SIZE) as source,
        pytest.raises(UserError, match=r"x.zip: train/a/2.png: can't be unpacked: Bad CRC"),
    ):
        list(source.images("train"))


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_half_an_archive_is_refused_in_one_line(tree, tmp_path, kind):
    path = tmp_path / f"images.{kind}"
    pack_zip(tree, path) if kind == "zip" else pack_tar(tree, path, "w:" + kind.partition(".")[2])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match="neither a folder nor a readable zip or tar archive") as caught:
        contents(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    path = tmp_path / "images.zip"
    path.write_text("<html>404 not found</html>")
    with pytest.raises(UserError, match="neither a folder nor a readable zip or tar archive"):
        Folder(path, SIZE)


def test_labels_are_int64(tree):
    with Folder(tree, SIZE) as source:
        assert all(source.labels(split).dtype == np.int64 for split in SPLITS)
