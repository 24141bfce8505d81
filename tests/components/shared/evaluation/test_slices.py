"""Which slices there are of a dataset's test images."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from components.shared.artifacts import FILES, Dataset
from components.shared.evaluation.slices import find_slices
from tests.helpers.datasets import make_dataset


@pytest.fixture
def data(tmp_path):
    return Dataset(make_dataset(tmp_path / "dataset", image_size=16, test=60))


def change_files(data, **columns):
    files = pd.read_parquet(data.folder / FILES)
    for name, values in columns.items():
        files.loc[files["split"] == "test", name] = values
    files.to_parquet(data.folder / FILES)


def named(data, kind):
    return {part.name: part.images for part in find_slices(data) if part.kind == kind}


def test_classes_and_quarters_of_brightness_are_all_images_once(data):
    assert list(named(data, "class")) == data.manifest.class_names
    quarters = named(data, "brightness")
    assert list(quarters) == ["darkest quarter", "darker quarter", "brighter quarter", "brightest quarter"]
    assert [len(images) for images in quarters.values()] == [15] * 4
    means = np.asarray(data.images("test")).mean(axis=(1, 2, 3))
    tops = [means[images].max() for images in quarters.values()]
    bottoms = [means[images].min() for images in quarters.values()]
    assert all(top < bottom for top, bottom in zip(tops[:-1], bottoms[1:], strict=True))
    for kind in ("class", "brightness"):
        assert sorted(np.concatenate(list(named(data, kind).values()))) == list(range(60))


def test_images_of_one_size_or_folder_are_no_slices_of_it(data):
    assert named(data, "size") == named(data, "folder") == {}


def test_sizes_are_those_before_scaling_and_equal_ones_stay_together(data):
    change_files(data, width=[16] * 40 + [64] * 20, height=16)
    sizes = named(data, "size")
    assert [(name, len(images)) for name, images in sizes.items()] == [
        ("smallest quarter", 40),
        ("larger quarter", 20),
    ]


def test_folders_are_slices_below_those_of_the_classes(data):
    labels, names = data.labels("test"), data.manifest.class_names
    change_files(data, path=[f"test/{names[label]}/{row}.png" for row, label in enumerate(labels)])
    assert named(data, "folder") == {}
    change_files(data, path=[f"{names[label]}/camera{row % 2}/{row}.png" for row, label in enumerate(labels)])
    folders = named(data, "folder")
    assert {name: len(images) for name, images in folders.items()} == {"camera0": 30, "camera1": 30}
    assert (folders["camera1"] % 2 == 1).all()
    change_files(data, path=[f"camera{row % 2}/{row}.png" for row in range(60)])
    assert list(named(data, "folder")) == ["camera0", "camera1"]
