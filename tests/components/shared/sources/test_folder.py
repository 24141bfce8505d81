"""The folder source: what it reads from folders and archives, and the one line it answers to bad ones."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from components.shared.artifacts import SPLITS
from components.shared.errors import UserError
from components.shared.sources.folder import Folder
from components.shared.sources.pixels import Picture
from tests.helpers.image_trees import encode, pack_tar, pack_zip, picture, write_tree

SIZE = 12
BOTH = {"train/cat": 3, "train/dog": 4, "test/cat": 2, "test/dog": 2}
FULL = {**BOTH, "validation/cat": 1, "validation/dog": 1, "unlabelled": 5}


def contents(path, **options):
    """Labels and images of all splits."""
    with Folder(path, SIZE, **options) as source:
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
    names, splits = contents(write_tree(tmp_path / "images", {"b": 2, "a": 1}))
    assert names == ["a", "b"]
    assert splits["train"][0] == [0, 1, 1]
    assert not splits["test"][0]


NESTED = {"animals/cat": 2, "animals/dog": 1, "plants/oak": 2}


def test_folders_inside_a_class_are_refused_unless_one_says_which_names_the_class(tmp_path):
    root = write_tree(tmp_path / "images", NESTED)
    with pytest.raises(UserError) as caught:
        Folder(root, SIZE)
    assert str(caught.value) == (
        f"{root}/animals/cat/0000.png: lies in folders inside animals/; set data.class_folder=last if cat is its "
        "class, or data.class_folder=first if animals is"
    )
    names, splits = contents(root, class_folder="last")
    assert (names, splits["train"][0]) == (["cat", "dog", "oak"], [0, 0, 1, 2, 2])
    names, splits = contents(root, class_folder="first")
    assert (names, splits["train"][0]) == (["animals", "plants"], [0, 0, 0, 1, 1])


def test_the_last_folder_names_the_class_in_each_split(tmp_path):
    root = write_tree(tmp_path / "images", {f"{split}/{name}": 2 for split in ("Train", "TEST") for name in NESTED})
    names, splits = contents(root, class_folder="last")
    assert names == ["cat", "dog", "oak"]
    assert splits["test"][0] == [0, 0, 1, 1, 2, 2]


def test_two_folders_of_one_name_are_not_one_class(tmp_path):
    root = write_tree(tmp_path / "images", {"animals/bat": 1, "sports/bat": 1, "sports/ball": 1})
    with pytest.raises(UserError, match=r"sports/bat/0000.png: class 'bat' has images in animals/bat/ too; rename"):
        Folder(root, SIZE, class_folder="last")


def test_splits_inside_other_folders_are_pointed_at(tmp_path):
    root = write_tree(tmp_path / "images", {"Dataset/train/cat": 1, "Dataset/test/cat": 1, "Examples": 1})
    for class_folder in (None, "last"):
        with pytest.raises(UserError, match=r"test/ names a split, but lies inside other folders; set"):
            Folder(root, SIZE, class_folder=class_folder)


@pytest.mark.parametrize(
    ("train", "others"),
    [
        ("Training", {"Testing": "test"}),
        ("TRAIN", {"Val": "validation", "Holdout": "test", "Unsup": "unlabelled"}),
        ("train", {"dev": "validation", "test": "test", "unsupervised": "unlabelled"}),
        ("training", {"eval": "validation", "testing": "test", "Unlabelled": "unlabelled"}),
    ],
)
def test_splits_go_by_their_usual_names_in_any_case(tmp_path, train, others):
    folders = {f"{train}/{name}": 2 for name in "ab"}
    for folder, split in others.items():
        folders |= {folder: 3} if split == "unlabelled" else {f"{folder}/{name}": 1 for name in "ab"}
    with Folder(write_tree(tmp_path / "images", folders), SIZE) as source:
        assert source.class_names == ["a", "b"]
        assert source.splits == {"train": train, **{split: folder for folder, split in others.items()}}
        assert {split: len(source.labels(split)) for split in SPLITS if len(source.labels(split))} == {
            "train": 4,
            **{split: 3 if split == "unlabelled" else 2 for split in others.values()},
        }


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


WITHOUT_A_USUAL_ENDING = {
    "a.jfif": "JPEG",
    "b.jpe": "JPEG",
    "c.ppm": "PPM",
    "d.bmp": "BMP",
    "e.gif": "GIF",
    "f.tif": "TIFF",
    "g.j2k": "JPEG2000",
    "h.avif": "AVIF",
    "i": "PNG",
    "j.jpg.1": "JPEG",
    "k.txt": "WEBP",
}


@pytest.mark.parametrize("pack", [None, pack_zip])
def test_images_are_known_by_their_content(tmp_path, pack):
    root = tmp_path / "images"
    for folder in ("x", "y"):
        (root / folder).mkdir(parents=True)
        for name, kind in WITHOUT_A_USUAL_ENDING.items():
            (root / folder / name).write_bytes(encode(picture(name, 20), kind))
        (root / folder / "notes.txt").write_text("BM is no bitmap, and P6 no pixmap")
        (root / folder / "table.csv").write_text("")
    with Folder(pack(root, tmp_path / "images.zip") if pack else root, SIZE) as source:
        assert len(source.labels("train")) == 2 * len(WITHOUT_A_USUAL_ENDING)
        assert all(isinstance(image, Picture) for image in source.images("train"))
        assert source.others == [
            (f"{folder}/{name}", kind)
            for folder in ("x", "y")
            for name, kind in (("notes.txt", ".txt"), ("table.csv", ".csv"))
        ]


UNREAD = {
    "Photoshop": (b"8BPS\0\1", "a.psd"),
    "HEIC": (b"\0\0\0\x18ftypheic", "a.heic"),
    "JPEG XL": (b"\xff\x0a\0\0", "a.jpg"),
    "icon": (b"\0\0\1\0\1\0\x10\x10", "a"),
    "camera raw": (b"II*\0\x10\0\0\0CR\2\0", "a.cr2"),
    "TGA": (b"\0\0\2", "a.tga"),
    "SVG": (b"<?xml version='1.0'?>\n<svg>", "a.svg"),
}


@pytest.mark.parametrize(("kind", "content", "name"), [(kind, *file) for kind, file in UNREAD.items()], ids=UNREAD)
def test_images_of_kinds_that_are_not_read_are_told(tmp_path, kind, content, name):
    root = write_tree(tmp_path / "images", {"x": 1, "y": 1})
    (root / "y" / name).write_bytes(content)
    with Folder(root, SIZE) as source:
        (bad,) = (image for image in source.images("train") if not isinstance(image, Picture))
    assert (bad.path, bad.kind) == (f"y/{name}", kind)
    assert str(bad) == (
        f"{root}/y/{name}: can't be read as an image: {kind} images are not read; convert it to JPEG or PNG; "
        "repair or remove it"
    )


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    root = write_tree(tmp_path / "images", {"x": 1, "y": 1})
    with (root / "y/sparse.jpg").open("wb") as file:
        file.truncate(3 << 30)
    with Folder(root, SIZE, memory=64) as source:
        first, second, bad = source.images("train")
    assert isinstance(first, Picture) and isinstance(second, Picture)
    assert bad.reason == (
        "a file that takes 3,072 MiB, and 16 MiB are allowed by data.memory = 64; 12288 is enough"
    )


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
    for junk in ("@eaDir/0000.png", ".ipynb_checkpoints/1.png", "Thumbs.db", "desktop.ini"):
        (tree / "train/cat" / junk).parent.mkdir(exist_ok=True)
        (tree / "train/cat" / junk).write_bytes(encode(picture("junk")))
    (tree / "@eaDir").mkdir()
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
    listing = os.scandir

    @contextlib.contextmanager
    def backwards(folder):
        with listing(folder) as entries:
            yield sorted(entries, key=lambda entry: entry.name, reverse=True)

    monkeypatch.setattr(os, "scandir", backwards)
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


@pytest.mark.parametrize("pack", [None, pack_zip, lambda root, path: pack_tar(root, path, "w")])
def test_every_bad_file_is_told_and_the_others_are_read(tree, tmp_path, pack):
    names = [f"train/dog/000{number}.png" for number in (0, 2, 3)]
    for name in names:
        (tree / name).write_bytes((tree / name).read_bytes()[:60])
    with Folder(pack(tree, tmp_path / "packed") if pack else tree, SIZE) as source:
        found = list(source.images("train"))
    assert [getattr(image, "reason", "") != "" for image in found] == [False] * 3 + [True, False, True, True]
    assert [image.path for image in found[3:]] == [f"train/dog/000{number}.png" for number in range(4)]


BAD_FOLDERS = {
    "no images": ({"notes": 0}, None, "{root}: holds no images"),
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
    def refuse(path, flags):
        raise PermissionError(13, "Permission denied")

    with Folder(tree, SIZE) as source:
        monkeypatch.setattr(os, "open", refuse)
        errors = list(source.images("train"))
    assert str(errors[0]) == (
        f"{tree}/train/cat/0000.png: can't be read as an image: Permission denied; repair or remove it"
    )


def test_a_missing_path_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"data.path = .*gone: nothing there; put your images there, or run"):
        Folder(tmp_path / "gone", SIZE)
    with pytest.raises(UserError, match=r"data/sample/gone.zip: nothing there; run `dvc pull -r sample`$"):
        Folder(Path("data/sample/gone.zip"), SIZE)


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
    with Folder(path, SIZE) as source:
        errors = [str(image) for image in source.images("train") if not isinstance(image, Picture)]
    assert errors == [
        f"{path}: train/a/2.png: can't be read as an image: can't be unpacked: Bad CRC-32 for file "
        "'train/a/2.png'; pack the archive again; repair or remove it"
    ]


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_half_an_archive_is_refused_in_one_line(tree, tmp_path, kind):
    path = tmp_path / f"images.{kind}"
    pack_zip(tree, path) if kind == "zip" else pack_tar(tree, path, "w:" + kind.partition(".")[2])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"archive that breaks off|neither a folder nor a readable zip") as caught:
        contents(path)
    assert "\n" not in str(caught.value)
    if kind == "zip":
        length = path.stat().st_size
        assert str(caught.value) == (
            f"{path}: a zip archive that breaks off after {length:,} bytes; copy or download it again"
        )


@pytest.mark.parametrize(
    ("start", "what"), [(b"7z\xbc\xaf\x27\x1c", "a 7z archive"), (b"\x28\xb5\x2f\xfd", "packed by zstd")]
)
def test_an_archive_of_another_kind_is_named(tmp_path, start, what):
    (tmp_path / "x").write_bytes(start + bytes(2000))
    with pytest.raises(UserError, match=f"x: {what}, which is not read; unpack it, or pack it as .zip, .tar or"):
        Folder(tmp_path / "x", SIZE)


def test_a_full_folder_for_temporary_files_is_named(tree, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = pack_tar(tree, tmp_path / "x.tar.gz", "w:gz")
    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(UserError, match=r"x.tar.gz: no room in /.* to unpack it \(0 bytes fit\); set TMPDIR to a"):
        Folder(path, SIZE)


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    path = tmp_path / "images.zip"
    path.write_text("<html>404 not found</html>")
    with pytest.raises(UserError, match="neither a folder nor a readable zip or tar archive"):
        Folder(path, SIZE)


def test_labels_are_int64(tree):
    with Folder(tree, SIZE) as source:
        assert all(source.labels(split).dtype == np.int64 for split in SPLITS)
