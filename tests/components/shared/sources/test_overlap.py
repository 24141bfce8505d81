"""Near-copies of test images leave the dataset, and whatever is there twice is listed with its file."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmarks.near_copies import CHANGES, scenes
from components.ingest import ingest
from components.shared.artifacts import NEAR_COPIES, SPLITS, Dataset
from components.shared.errors import UserError
from components.shared.params.composing import compose_params
from components.shared.params.schema import select

SIZE = 32

pytestmark = pytest.mark.usefixtures("in_tmp", "tracking_uri")


def write_photos(root, counts, seed=0):
    """So many different made-up photographs in each folder."""
    images = iter(scenes(sum(counts.values()), 40, seed))
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            Image.fromarray(next(images)).save(root / folder / f"{index}.png")
    return root


def add_changed(root, change, origin, copy):
    CHANGES[change](Image.open(root / origin)).save(root / copy)


def run(path, *overrides, out="dataset"):
    fixed = ("data=folder", f"data.path={path}", f"data.image_size={SIZE}", "data.name=tests")
    ingest(Path(out), select(compose_params((*fixed, *overrides))[0], "ingest"))
    dataset = Dataset(Path(out))
    files = {split: dataset.files(split) for split in SPLITS}
    for split in SPLITS:
        assert len(dataset.images(split)) == len(dataset.labels(split)) == len(files[split])
    return dataset, files, pd.read_parquet(Path(out) / NEAR_COPIES)


@pytest.fixture
def photos(tmp_path):
    """Splits of its own, with near-copies of three test images in unlabelled, train and validation."""
    counts = {f"{split}/{name}": 10 for split in ("train", "validation", "test") for name in "ab"}
    root = write_photos(tmp_path / "photos", {**counts, "unlabelled": 10})
    add_changed(root, "JPEG 75", "test/a/0.png", "train/a/3 again.png")
    add_changed(root, "flip", "test/b/1.png", "unlabelled/3 mirrored.png")
    add_changed(root, "brightness +3", "test/b/2.png", "validation/b/3 brighter.png")
    return root


def test_images_that_only_look_alike_are_told_with_the_option_that_keeps_them(tmp_path, capsys):
    """Photographs of one kind of thing under one light, as of solar cells: copies can't be told from others."""
    root = write_photos(tmp_path / "cells", {"a": 20, "b": 20})
    rng, (cell,) = np.random.default_rng(0), scenes(1, 40, seed=1).astype(int)
    for index in range(120):
        noisy = (cell + rng.normal(0, 1.5, cell.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(root / "ab"[index % 2] / f"alike {index}.png")
    *_, pairs = run(root)
    assert {"removed", "kept together"} >= set(pairs["action"]) and pairs["labels_differ"].any()
    advice = "120 images are near-copies of each other, .* set data.near_copies=keep"
    assert re.search(advice, capsys.readouterr().out)
    *_, pairs = run(root, "data.near_copies=keep", out="kept")
    assert not pairs["conflict"].any()
    assert not re.search("near-copies of each other", capsys.readouterr().out)


def test_near_copies_of_test_images_leave_all_other_splits_and_are_listed(photos, capsys):
    dataset, files, table = run(photos)
    assert dataset.manifest.counts == {"unlabelled": 10, "train": 20, "validation": 20, "test": 20}
    assert not any(path.split("/")[-1].startswith("3 ") for split in SPLITS for path in files[split]["path"])
    for split in SPLITS:
        for row, path in enumerate(files[split]["path"]):
            original = np.asarray(Image.open(photos / path).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
            assert (dataset.images(split)[row] == original).all()
    table = table.set_index("path")
    assert set(table["action"]) == {"removed"} and set(table["split"]) == {"removed"} and set(table["row"]) == {-1}
    assert table["twin_path"].to_dict() == {
        "train/a/3 again.png": "test/a/0.png",
        "unlabelled/3 mirrored.png": "test/b/1.png",
        "validation/b/3 brighter.png": "test/b/2.png",
    }
    assert table["kind"].tolist() == ["mirrored", "near-copy", "near-copy"]
    twin = table.loc["train/a/3 again.png"]
    assert files["test"]["path"][twin["twin_row"]] == twin["twin_path"]
    assert "warning: 3 near-copies of test images were removed" in capsys.readouterr().out


def test_fail_names_both_files_and_keep_keeps_them(photos):
    with pytest.raises(
        UserError, match=r"near_copies = fail: \S.*3 \w+.png \(\w+\) and test/\w/\d.png \(test\)"
    ) as caught:
        run(photos, "data.near_copies=fail")
    assert "2 more pairs" in str(caught.value) and "\n" not in str(caught.value)
    assert not Path("dataset").exists()
    dataset, _, table = run(photos, "data.near_copies=keep")
    assert dataset.manifest.counts == {"unlabelled": 11, "train": 21, "validation": 21, "test": 20}
    assert set(table["action"]) == {"kept"} and len(table) == 3


def test_the_budget_of_labels_is_filled_from_what_stays(photos):
    dataset, _, _ = run(photos, "data.labels_per_class=10")
    assert dataset.manifest.class_counts["train"] == [10, 10]


def test_where_test_is_cut_near_copies_are_cut_together_and_nothing_is_lost(tmp_path):
    root = write_photos(tmp_path / "photos", {"a": 60, "b": 60})
    for index in range(60):
        add_changed(root, "crop all sides", f"a/{index}.png", f"a/{index} cropped.png")
    dataset, files, table = run(root)
    assert sum(dataset.manifest.counts.values()) == 180
    split_of = {path: split for split in SPLITS for path in files[split]["path"]}
    pairs = [(split_of[f"a/{index}.png"], split_of[f"a/{index} cropped.png"]) for index in range(60)]
    divided = [pair for pair in pairs if pair[0] != pair[1]]
    assert not divided
    assert len(set(pairs)) == 3
    assert (table["action"] == "kept together").all() and len(table) == 60


def test_what_has_no_near_copy_is_split_as_if_the_others_were_not_there(tmp_path):
    root = write_photos(tmp_path / "photos", {"a": 60, "b": 60})
    _, before, _ = run(root)
    add_changed(root, "JPEG 75", "a/7.png", "a/7 again.png")
    _, after, _ = run(root)
    moved = {path for split in SPLITS for path in set(before[split]["path"]) - set(after[split]["path"])}
    assert moved <= {"a/7.png"}


def test_unlabelled_images_lose_the_near_copies_of_a_test_split_that_is_cut(tmp_path):
    root = write_photos(tmp_path / "photos", {"train/a": 40, "train/b": 40, "unlabelled": 5})
    for index in range(40):
        add_changed(root, "JPEG 75", f"train/b/{index}.png", f"unlabelled/b{index}.png")
    dataset, files, table = run(root)
    tested = {Path(path).stem for path in files["test"]["path"] if path.startswith("train/b/")}
    removed = {Path(path).stem.removeprefix("b") for path in table.loc[table["action"] == "removed", "path"]}
    assert tested == removed and tested
    assert dataset.manifest.counts["unlabelled"] == 45 - len(removed)


@pytest.mark.parametrize("splits", [("train/",), ("train/", "validation/", "test/")])
def test_one_image_under_two_labels_is_told_once_with_both_names(tmp_path, capsys, splits):
    root = write_photos(tmp_path / "photos", {f"{split}{name}": 30 for split in splits for name in "ab"})
    (root / "train/b/other.png").write_bytes((root / "train/a/4.png").read_bytes())
    dataset, _, table = run(root)
    (pair,) = table.to_dict("records")
    assert {pair["path"], pair["twin_path"]} == {"train/a/4.png", "train/b/other.png"}
    assert pair["labels_differ"] and (pair["kind"], pair["action"]) == ("copy", "kept together")
    assert sum(dataset.manifest.counts.values()) == 60 * len(splits) + 1
    said = capsys.readouterr().out
    assert re.search("1 pair.* under two labels, such as train/./.*png and train/./.*png", said)


@pytest.mark.parametrize(("what", "conflict"), [("drop", True), ("keep", False)])
def test_near_copies_across_splits_under_two_labels_are_a_conflict_unless_the_source_stays_as_it_is(
    photos, what, conflict
):
    add_changed(photos, "JPEG 75", "test/a/5.png", "train/b/not a.png")
    add_changed(photos, "JPEG 75", "train/a/5.png", "train/b/nor this.png")
    _, _, table = run(photos, f"data.near_copies={what}")
    table = table.set_index("path")
    assert bool(table.loc["train/b/not a.png", "conflict"]) is conflict
    # within a split, or under one label, nothing is torn
    assert not table.drop("train/b/not a.png")["conflict"].any()


@pytest.mark.parametrize(("group", "name"), [("prefix", "a/obj{0}__{1}.png"), ("folder", "a/tour {0}/{1}.png")])
def test_groups_are_never_divided(tmp_path, group, name):
    root = write_photos(tmp_path / "photos", {"b": 60, "a": 1})
    (root / "a/0.png").unlink()
    for index, image in enumerate(scenes(60, 40, 5)):
        path = root / name.format(index // 3, index % 3)
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
    _, divided, _ = run(root, "data.class_folder=first", out="without")
    _, files, _ = run(root, f"data.group={group}")

    def places(found):
        return {
            number: {
                s for s in SPLITS for p in found[s]["path"] if p.startswith(name.split("{1}")[0].format(number))
            }
            for number in range(20)
        }

    assert any(len(splits) > 1 for splits in places(divided).values())
    assert all(len(splits) == 1 for splits in places(files).values())
    assert len(set().union(*places(files).values())) == 3


def test_an_unknown_group_is_refused(tmp_path):
    root = write_photos(tmp_path / "photos", {"a": 2, "b": 2})
    with pytest.raises(UserError, match=r"data.group = camera: of a folder it must be prefix or folder, or null"):
        run(root, "data.group=camera")
    with pytest.raises(UserError, match=r"data.* = .*folder.*|group = folder: images of cifar10 have no groups"):
        compose_params(("data=cifar10", "data.group=folder"))
