"""The Parquet source: the Hugging Face layout, shards, class names, and the one line it answers to bad files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.shared.errors import UserError
from components.shared.sources.parquet import Parquet
from tests.helpers.image_trees import encode, picture
from tests.helpers.repository import ROOT

SIZE = 12

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(path, labels, names=("cat", "dog"), columns=("image", "label"), label_type=None):
    """A file whose row i holds the picture named "<file> i"; without `names` it has no metadata."""
    images = [{"bytes": encode(picture(f"{path.name} {i}", SIZE)), "path": f"{i}.png"} for i in range(len(labels))]
    table = pa.table([pa.array(images, IMAGE), pa.array(labels, label_type or pa.int64())], names=columns)
    if names:
        features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=4)
    return path


def test_splits_names_and_pixels(tmp_path):
    write(tmp_path / "train.parquet", [0, 1, 1, 0, 1])
    write(tmp_path / "test-00000-of-00001.parquet", [1, 0])
    write(tmp_path / "unsupervised.parquet", [7, 7, 7])
    source = Parquet(tmp_path, SIZE)
    assert source.class_names == ["cat", "dog"]
    assert source.labels("train").tolist() == [0, 1, 1, 0, 1]
    assert source.labels("train").dtype == np.int64
    assert source.labels("test").tolist() == [1, 0]
    assert source.labels("unlabelled").tolist() == [-1, -1, -1]
    assert source.labels("validation").tolist() == []
    for index, image in enumerate(source.images("train")):
        np.testing.assert_array_equal(image.pixels, picture(f"train.parquet {index}", SIZE))
        assert (image.path, image.group) == (f"train.parquet: row {index}", None)
    assert index == 4
    assert list(source.images("validation")) == []


@pytest.mark.parametrize(
    ("groups", "names"),
    [(["a", None, "a", "b", "b"], ["a", None, "a", "b", "b"]), ([7, 7, 8, 8, None], ["7", "7", "8", "8", None])],
)
def test_a_column_says_which_images_belong_together(tmp_path, groups, names):
    path = write(tmp_path / "train.parquet", [0, 1, 1, 0, 1])
    pq.write_table(pq.read_table(path).append_column("group", pa.array(groups)), path, row_group_size=2)
    assert [image.group for image in Parquet(tmp_path, SIZE).images("train")] == names
    pq.write_table(pq.read_table(path).set_column(2, "group", pa.array([0.5] * 5)), path)
    with pytest.raises(UserError, match=r"train.parquet: column 'group' is double; expected string or int64"):
        Parquet(tmp_path, SIZE)


def test_shards_follow_their_numbers(tmp_path):
    for shard in (2, 0, 1):
        write(tmp_path / f"train-{shard:05d}-of-00003.parquet", [0, 1] * (shard + 1))
    source = Parquet(tmp_path, SIZE)
    assert len(source.labels("train")) == 12
    np.testing.assert_array_equal(
        list(source.images("train"))[2].pixels, picture("train-00001-of-00003.parquet 0", SIZE)
    )


def test_without_metadata_the_numbers_are_the_names(tmp_path):
    write(tmp_path / "train.parquet", [0, 2, 1], names=None, label_type=pa.int32())
    assert Parquet(tmp_path, SIZE).class_names == ["0", "1", "2"]


def test_digest_sees_contents(tmp_path):
    write(tmp_path / "train.parquet", [0, 1])
    before = Parquet(tmp_path, SIZE).digest()
    assert before == Parquet(tmp_path, SIZE).digest()
    write(tmp_path / "train.parquet", [1, 1])
    assert before != Parquet(tmp_path, SIZE).digest()


def struct_of(path, fields):
    pq.write_table(pa.table({"image": pa.array([{name: "x" for name, _ in fields}], pa.struct(fields))}), path)


def without_bytes(path):
    images = [{"bytes": encode(picture("a")), "path": None}, {"bytes": None, "path": "b.png"}]
    pq.write_table(pa.table({"image": pa.array(images, IMAGE), "label": [0, 1]}), path)


BAD = {
    "empty folder": (lambda r: None, "{root}: holds no train.parquet; put train.parquet and test.parquet there"),
    "no train": (lambda r: write(r / "test.parquet", [0, 1]), "{root}: holds no train.parquet"),
    "odd name": (lambda r: write(r / "data.parquet", [0]), "{root}/data.parquet: no name of a split"),
    "no parquet": (lambda r: (r / "train.parquet").write_text("x"), "train.parquet: not readable as Parquet"),
    "column image": (
        lambda r: write(r / "train.parquet", [0], columns=("img", "label")),
        "{root}/train.parquet: has no column 'image', but img, label; rename the column",
    ),
    "column label": (
        lambda r: write(r / "train.parquet", [0], columns=("image", "fine_label")),
        "{root}/train.parquet: has no column 'label', but image, fine_label; rename the column",
    ),
    "image without bytes": (
        lambda r: struct_of(r / "unlabelled.parquet", [("path", pa.string())]) or write(r / "train.parquet", [0]),
        "{root}/unlabelled.parquet: column 'image' is struct<path: string>; expected struct<bytes: binary",
    ),
    "label as text": (
        lambda r: write(r / "train.parquet", ["cat"], label_type=pa.string()),
        "{root}/train.parquet: column 'label' is string; expected int64",
    ),
    "missing label": (
        lambda r: write(r / "train.parquet", [0, 1, None]),
        "{root}/train.parquet: row 2: label is missing",
    ),
    "missing shard": (
        lambda r: write(r / "train-00001-of-00002.parquet", [0]),
        "{root}: train-00001-of-00002.parquet are not one file, nor all the 2 shards, of one split",
    ),
    "shards and the whole": (
        lambda r: write(r / "train-00000-of-00001.parquet", [0]) and write(r / "train.parquet", [0]),
        "are not one file, nor all the 1 shards, of one split",
    ),
    "an old copy": (
        lambda r: write(r / "train.parquet", [0, 1]) and write(r / "train_old.parquet", [0, 1]),
        "{root}/train_old.parquet: no name of a split, such as train.parquet or unlabelled.parquet, nor of a shard",
    ),
    "a word that begins like a split": (
        lambda r: write(r / "train.parquet", [0, 1]) and write(r / "valuation.parquet", [0, 1]),
        "{root}/valuation.parquet: no name of a split",
    ),
    "one split under two names": (
        lambda r: (
            write(r / "train.parquet", [0]) and write(r / "val.parquet", [0]) and write(r / "dev.parquet", [0])
        ),
        "{root}: dev.parquet, val.parquet are not one file, nor all the shards, of one split",
    ),
    "labels from 1": (
        lambda r: write(r / "train.parquet", [1, 2, 3], names=None),
        "{root}: the labels go from 1 to 3, but must begin with 0; subtract 1 from each",
    ),
    "labels from 1 with names": (
        lambda r: write(r / "train.parquet", [1, 2], names=("cat", "dog")),
        "{root}: the labels go from 1 to 2, but must begin with 0",
    ),
    "labels that are no numbers of classes": (
        lambda r: write(r / "train.parquet", [0, 20_000_000], names=None),
        "{root}: label 20,000,000 means 20,000,001 classes, and at most 100,000 are possible; number the classes",
    ),
    "other names in test": (
        lambda r: write(r / "train.parquet", [0]) and write(r / "test.parquet", [0], names=("dog", "cat")),
        "train.parquet: has other class names than test.parquet",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "expected"), BAD.values(), ids=BAD)
def test_bad_files_are_refused_in_one_line(tmp_path, make, expected):
    make(tmp_path)
    with pytest.raises(UserError) as caught:
        list(Parquet(tmp_path, SIZE).images("train"))
    assert expected.format(root=tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_image_is_named_by_its_row(tmp_path):
    images = [{"bytes": data, "path": "a.png"} for data in (encode(picture("a")), b"?", None)]
    pq.write_table(pa.table({"image": pa.array(images, IMAGE), "label": [0, 1, 1]}), tmp_path / "train.parquet")
    good, *bad = Parquet(tmp_path, SIZE).images("train")
    assert good.path == "train.parquet: row 0"
    assert str(bad[0]).startswith(f"{tmp_path}/train.parquet: row 1: can't be read as an image: not a JPEG, PNG")
    assert bad[1].reason == "image.bytes is empty; store the image in the file"


@pytest.mark.parametrize(
    "names",
    [
        ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"],
        ["train-00000-of-00001-0123456789abcdef.parquet"],
        ["train_0.parquet", "train_1.parquet", "train_2.parquet"],
        ["train.1.parquet", "train.2.parquet"],
        ["TRAIN.parquet"],
    ],
    ids=lambda names: names[-1],
)
def test_the_usual_names_of_shards_are_known(tmp_path, names):
    for name in reversed(names):
        write(tmp_path / name, [0, 1])
    source = Parquet(tmp_path, SIZE)
    assert [image.path for image in source.images("train")] == [
        f"{name}: row {row}" for name in names for row in (0, 1)
    ]


def test_a_damaged_file_is_refused_in_one_line(tmp_path):
    path = write(tmp_path / "train.parquet", [0, 1] * 200)
    whole = path.read_bytes()
    for start in (4, len(whole) // 2):  # a page of images; and pages of labels as well
        path.write_bytes(whole[:start] + bytes(30_000) + whole[start + 30_000 :])
        with pytest.raises(UserError, match=r"train.parquet: (not readable as Parquet|row \d+: )") as caught:
            list(Parquet(tmp_path, SIZE).images("train"))
        assert "\n" not in str(caught.value)


def test_a_missing_folder_says_what_to_do(tmp_path):
    with pytest.raises(
        UserError, match=r"data.path = .*gone: no such folder; put train.parquet and test.parquet there"
    ):
        Parquet(tmp_path / "gone", SIZE)
    path = write(tmp_path / "train.parquet", [0])
    with pytest.raises(UserError, match=r"train.parquet: is a file, but a folder of .parquet files is expected"):
        Parquet(path, SIZE)


def test_real_cifar10():
    folder = Path(os.environ.get("CIFAR10_PARQUET") or ROOT.parent / "shared/data/cifar10")
    if not (folder / "train.parquet").exists():
        pytest.skip(f"CIFAR-10 is not in {folder}; CIFAR10_PARQUET may name another folder")
    source = Parquet(folder, 32)
    assert ",".join(source.class_names) == "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck"
    assert np.bincount(source.labels("train")).tolist() == [5000] * 10
    assert np.bincount(source.labels("test")).tolist() == [1000] * 10
    images = np.stack([image.pixels for image in source.images("test")])
    assert images.shape == (10_000, 32, 32, 3)
    # published means of the red, green and blue channels of CIFAR-10 (training part): 125.3, 123.0, 113.9
    np.testing.assert_allclose(images.mean(axis=(0, 1, 2)), [125.3, 123.0, 113.9], atol=2)
