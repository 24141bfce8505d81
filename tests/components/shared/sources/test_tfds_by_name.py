"""`data=tfds`: any image classification set by its name, through small builders in a temporary folder."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow_datasets as tfds

from components.ingest import ingest
from components.shared.artifacts import UNLABELLED, Dataset
from components.shared.errors import UserError
from components.shared.params.composing import compose_params
from components.shared.sources import open_source

COUNTS = {"train": 40, "test": 20}


def pixels(count, shape, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


class _Small(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    SHAPE, KEYS, SPLITS, LABELS = (12, 10, 3), ("image", "label"), COUNTS, {}

    def _info(self):
        image, label = self.KEYS
        features = {
            image: tfds.features.Image(shape=self.SHAPE),
            label: tfds.features.ClassLabel(names=["ant", "bee"]),
            "id": tfds.features.Text(),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), supervised_keys=self.KEYS
        )

    def _split_generators(self, dl_manager):
        return {split: self._examples(split, count) for split, count in self.SPLITS.items()}

    def _generate_examples(self):
        raise NotImplementedError

    def _examples(self, split, count):
        image, label = self.KEYS
        for i, values in enumerate(pixels(count, self.SHAPE, len(split))):
            yield i, {image: values, label: self.LABELS.get(split, i % 2), "id": f"{split}-{i}"}


class SmallColour(_Small):
    pass


class SmallGrey(_Small):
    SHAPE, SPLITS = (12, 10, 1), {"train": 40}


class SmallPhotos(_Small):
    KEYS, SPLITS = ("photo", "species"), {"train": 40, "valid": 12, "extra": 3, "test": 5}
    LABELS = {"test": -1}  # noqa: RUF012


class SmallUnlabelled(_Small):
    SPLITS = {"train": 40, "test": 20, "unlabeled": 7}  # noqa: RUF012
    LABELS = {"unlabeled": -1}  # noqa: RUF012


class SmallTestOnly(_Small):
    SPLITS = {"test": 5}  # noqa: RUF012


class SmallTexts(_Small):
    def _info(self):
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict({"id": tfds.features.Text()}))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def params(name, *overrides):
    return compose_params(["data=tfds", f"data.name={name}", "data.image_size=12", *overrides])[0]


def test_a_set_is_found_by_its_name_and_ingested(tmp_path, cache, tracking_uri):
    manifest = ingest(tmp_path / "dataset", params("small_colour"))
    assert manifest.name == "small_colour"
    assert manifest.class_names == ["ant", "bee"]
    assert manifest.counts["test"] == COUNTS["test"]
    assert manifest.counts["train"] + manifest.counts["validation"] == COUNTS["train"]
    files = Dataset(tmp_path / "dataset").files("test")
    assert files[["width", "height"]].drop_duplicates().values.tolist() == [[10, 12]]


def test_pixels_and_labels_belong_together_and_a_prepared_set_is_read_again(cache):
    truth = {image.tobytes(): i % 2 for i, image in enumerate(pixels(40, (12, 10, 3), len("train")))}
    for _ in range(2):
        source = open_source(params("small_colour", "data.image_size=10").data)
        labels = source.labels("train")
        assert len(labels) == 40
        # 12×10 is cut to 10×10 without resampling
        cut = {np.frombuffer(k, np.uint8).reshape(12, 10, 3)[1:11].tobytes(): v for k, v in truth.items()}
        found = [cut[picture.pixels.tobytes()] for picture in source.images("train")]
        assert found == labels.tolist()
    digest = source.digest()
    next(cache.rglob("*.tfrecord*")).write_bytes(b"other")
    assert source.digest() != digest


def test_a_grey_set_without_a_test_split_has_one_cut(tmp_path, cache, tracking_uri):
    manifest = ingest(tmp_path / "dataset", params("small_grey"))
    assert sum(manifest.counts.values()) == 40
    assert min(manifest.counts[split] for split in ("train", "validation", "test")) > 2
    image = Dataset(tmp_path / "dataset").images("test")[0]
    assert (image == image[..., :1]).all()


def test_other_names_of_features_and_splits(cache, capsys):
    source = open_source(params("small_photos").data)
    assert {split: len(source.labels(split)) for split in ("train", "validation", "test", "unlabelled")} == {
        "train": 40,
        "validation": 12,
        "test": 0,
        "unlabelled": 0,
    }
    said = capsys.readouterr().out
    assert "its split extra is left out" in said
    assert "its split test has no labels, and is left out" in said


def test_an_unlabelled_split(cache):
    source = open_source(params("small_unlabelled").data)
    assert source.labels("unlabelled").tolist() == [UNLABELLED] * 7
    assert len(list(source.images("unlabelled"))) == 7


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("small_test_only", r"its splits are test; one called train is needed"),
        ("small_texts", r"is no set of images with one class each, but of id; .*data=folder or data=parquet"),
        ("cifar1000", r"data.name = cifar1000: TensorFlow Datasets has no such set \(did you mean cifar100"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(cache, name, message):
    with pytest.raises(UserError, match=message) as caught:
        open_source(params(name).data)
    assert "\n" not in str(caught.value)


def test_without_a_name_it_says_what_is_missing():
    with pytest.raises(UserError, match=r"data=tfds: data\.name must be given"):
        compose_params(["data=tfds"])
