"""The ingest step: what `dataset/` holds, that it is the same for the same seed, and that it is whole or absent."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

import components.ingest
from components.ingest import ingest, sample_grid
from components.shared.artifacts import SPLITS, Dataset, save_array
from components.shared.errors import UserError
from components.shared.params.composing import compose_params, write_params
from components.shared.params.schema import select
from components.shared.sources.pixels import content_digest
from tests.helpers.image_trees import encode, pack_tar, pack_zip, picture, write_tree
from tests.helpers.repository import ROOT

SIZE = 12
CLASSES = {"bus": 20, "car": 30, "van": 15}

pytestmark = pytest.mark.usefixtures("in_tmp")


def params(path, *overrides):
    fixed = ("data=folder", f"data.path={path}", f"data.image_size={SIZE}", "data.name=tests")
    return select(compose_params((*fixed, *overrides))[0], "ingest")


def digest(path, *overrides, out="dataset"):
    return ingest(Path(out), params(path, *overrides)).digest


def origins(dataset, split, root):
    """Names of the files that the images of a split come from."""
    names = {encode(picture(str(f.relative_to(root)), SIZE)): f for f in root.rglob("*.png")}
    pixels = {picture(str(f.relative_to(root)), SIZE).tobytes(): str(f.relative_to(root)) for f in names.values()}
    return [pixels[image.tobytes()] for image in dataset.images(split)]


@pytest.fixture
def tree(tmp_path, tracking_uri):
    return write_tree(tmp_path / "images", CLASSES)


@pytest.fixture(scope="module")
def ingested(tmp_path_factory, tracking_uri):
    """One run with a budget of 10 labels a class: folder of the images, dataset, what was printed."""
    folder = tmp_path_factory.mktemp("ingested")
    tree = write_tree(folder / "images", CLASSES)
    printed = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
        ingest(Path("dataset"), params(tree, "data.labels_per_class=10"))
    return tree, Dataset(folder / "dataset"), printed.getvalue()


def test_arrays_and_manifest_agree(ingested):
    tree, dataset, _ = ingested
    manifest = dataset.manifest
    assert manifest.class_names == ["bus", "car", "van"]
    assert manifest.counts == {"unlabelled": 25, "train": 24, "validation": 6, "test": 10}
    assert manifest.class_counts == {
        "unlabelled": [0, 0, 0],
        "train": [8, 8, 8],
        "validation": [2, 2, 2],
        "test": [3, 4, 3],
    }
    assert (manifest.labels_per_class, manifest.image_size, manifest.seed) == (10, SIZE, 0)
    assert manifest.source == str(tree)
    assert manifest.params["data"]["split"] == {"validation": 0.2, "test": 0.2}
    for split in SPLITS:
        images, labels = dataset.images(split), dataset.labels(split)
        assert (images.dtype, images.flags.c_contiguous) == (np.uint8, True)
        assert labels.dtype == np.int64
        assert images.shape == (manifest.counts[split], SIZE, SIZE, 3)
        classes = [Path(name).parent.name for name in origins(dataset, split, tree)]
        if split == "unlabelled":
            assert set(labels.tolist()) == {-1}
        else:
            assert [manifest.class_names[label] for label in labels] == classes
    expected = {f"{split}.{kind}.npy" for split in SPLITS for kind in ("images", "labels")}
    assert {path.name for path in dataset.folder.glob("*.npy")} == expected


def test_the_last_line_says_what_there_is(ingested):
    assert ingested[2].splitlines()[-1] == (
        "dataset: 25 unlabelled, 24 train, 6 validation, 10 test images of 3 classes, 12×12 pixels"
    )


def test_every_image_is_in_exactly_one_split(ingested):
    tree, dataset, _ = ingested
    names = [name for split in SPLITS for name in origins(dataset, split, tree)]
    assert len(names) == len(set(names)) == sum(CLASSES.values())


def test_without_unlabelled_images_that_split_is_empty(tree):
    manifest = ingest(Path("dataset"), params(tree))
    assert manifest.counts["unlabelled"] == 0
    assert Dataset(Path("dataset")).images("unlabelled").shape == (0, SIZE, SIZE, 3)
    assert Dataset(Path("dataset")).labels("unlabelled").shape == (0,)


def test_same_seed_same_digest_other_seed_other_split(tree):
    first = ingest(Path("a"), params(tree))
    again = ingest(Path("b"), params(tree))
    other = ingest(Path("c"), params(tree, "data.seed=1"))
    assert (first.digest, first.test_digest) == (again.digest, again.test_digest)
    assert first.digest != other.digest
    assert first.test_digest != other.test_digest
    assert first.source_digest == other.source_digest


def test_the_budget_of_labels_leaves_the_test_split_alone(tree):
    all_labels, few = (
        ingest(Path(o), params(tree, f"data.labels_per_class={n}")) for o, n in [("a", "null"), ("b", 5)]
    )
    assert all_labels.test_digest == few.test_digest
    assert all_labels.digest != few.digest


def test_the_digest_sees_a_pixel_a_class_name_and_nothing_else(tree):
    before = digest(tree)
    (tree / "bus").rename(tree / "bike")
    renamed = digest(tree)
    (tree / "bike").rename(tree / "bus")
    assert digest(tree) == before != renamed
    pixels = picture("bus/0000.png", SIZE)
    pixels[0, 0, 0] ^= 1
    (tree / "bus/0000.png").write_bytes(encode(pixels))
    assert digest(tree) not in (before, renamed)


def test_folder_and_archives_give_the_same_dataset(tree, tmp_path):
    folder = digest(tree)
    assert digest(pack_zip(tree, tmp_path / "images.zip", "photos/")) == folder
    assert digest(pack_tar(tree, tmp_path / "images.tar.gz", "w:gz")) == folder


def test_the_list_of_files_tells_where_each_row_is_from(ingested):
    tree, dataset, _ = ingested
    for split in SPLITS:
        files = dataset.files(split)
        assert files["row"].tolist() == list(range(dataset.manifest.counts[split]))
        assert files["label"].tolist() == dataset.labels(split).tolist()
        assert files["path"].tolist() == origins(dataset, split, tree)
        assert files["digest"].tolist() == [content_digest(image) for image in dataset.images(split)]
        assert set(files["width"]) == set(files["height"]) == {SIZE}
        assert files["group"].isna().all()


def test_images_that_are_added_or_renamed_leave_the_test_split_as_it_is(tree):
    ingest(Path("before"), params(tree))
    write_tree(tree, {"car": 60, "bus": 25, "van": 40})
    for file in sorted((tree / "van").iterdir()):
        file.rename(file.with_name(f"z{1000 - int(file.stem)}.png"))
    ingest(Path("after"), params(tree))
    before, after = ({s: set(Dataset(Path(f)).files(s)["digest"]) for s in SPLITS} for f in ("before", "after"))
    for split in ("train", "validation", "test"):
        assert before[split] < after[split]


def test_copies_go_to_the_same_split(tree):
    for file in sorted((tree / "car").iterdir()):
        (tree / f"car/copy of {file.name}").write_bytes(
            encode(picture(f"car/{file.name}", SIZE), "WEBP", lossless=True)
        )
    ingest(Path("dataset"), params(tree))
    files = pd.concat(Dataset(Path("dataset")).files(split) for split in SPLITS)
    cars = files[files["path"].str.startswith("car/")]
    assert (cars.groupby("digest").size() == 2).all()
    assert (cars.groupby("digest")["split"].nunique() == 1).all()


@pytest.mark.parametrize("name", ["test.images.npy", "train.labels.npy", "files.parquet", "near_copies.parquet"])
def test_a_file_that_is_replaced_after_ingest_is_named(tree, name):
    ingest(Path("dataset"), params(tree))
    dataset = Dataset(Path("dataset"))
    dataset.check_digests()
    content = bytearray((dataset.folder / name).read_bytes())
    content[-1] ^= 1
    (dataset.folder / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"^dataset/{name}: is not what manifest.json says was ingested; run"):
        dataset.check_digests()
    (dataset.folder / name).unlink()
    with pytest.raises(UserError, match=rf"^dataset/{name}: is not what manifest.json says"):
        dataset.check_digests()


def test_a_dataset_of_an_earlier_version_is_to_be_ingested_again(tree):
    ingest(Path("dataset"), params(tree))
    record = json.loads(Path("dataset/manifest.json").read_text())
    del record["files"]
    Path("dataset/manifest.json").write_text(json.dumps(record))
    with pytest.raises(
        UserError, match=r"manifest.json: files: field required; run the step that writes dataset/ again"
    ):
        Dataset(Path("dataset"))


def test_the_run_is_tracked(ingested):
    manifest = ingested[1].manifest
    run = mlflow.get_run(manifest.mlflow_run_id)
    assert run.info.status == "FINISHED"
    assert mlflow.get_experiment(run.info.experiment_id).name == "contrastive-tests"
    assert run.data.metrics["images/train"] == manifest.counts["train"]
    assert run.data.params["class_names"] == "bus, car, van"
    assert run.data.params["data.seed"] == "0"
    (logged,) = run.inputs.dataset_inputs
    assert (logged.dataset.name, logged.dataset.digest) == ("tests", manifest.digest[:36])
    files = {file.path for file in mlflow.MlflowClient().list_artifacts(manifest.mlflow_run_id)}
    assert files >= {"manifest.json", "samples.png"}


def test_the_picture_shows_every_class_with_its_name(ingested):
    dataset = ingested[1]
    figure = sample_grid(dataset)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["bus", "car", "van", "unlabelled"]
    # the first one in the row of cars
    (shown,) = (one.get_array() for one in axes.images if [int(at) for at in one.get_extent()[::3]] == [0, 1])
    np.testing.assert_array_equal(shown, dataset.images("train")[dataset.labels("train") == 1][0])


def cut_short(tree, *names):
    for name in names:
        (tree / name).write_bytes((tree / name).read_bytes()[:60])


def test_damaged_images_are_all_told_and_leave_the_earlier_dataset_as_it_was(tree, capsys):
    before = digest(tree)
    cut_short(tree, "bus/0001.png", "car/0003.png", "van/0000.png")
    with pytest.raises(UserError) as caught:
        ingest(Path("dataset"), params(tree))
    assert str(caught.value) == (
        f"{tree}: 3 of 65 images can't be read (bus/0001.png, car/0003.png, van/0000.png), as told above; repair "
        "or remove them, or set data.on_bad_image=skip to go on without"
    )
    told = [line for line in capsys.readouterr().err.splitlines() if "can't be read as an image" in line]
    assert [line.split(":")[1] for line in told] == [
        f" {tree}/{name}" for name in ("bus/0001.png", "car/0003.png", "van/0000.png")
    ]
    assert Dataset(Path("dataset")).manifest.digest == before
    assert not list(Path().glob(".dataset*"))


def test_damaged_images_are_skipped_and_listed_if_one_says_so(tree, capsys):
    for name in ("bus/0001.png", "car/0003.png"):
        (tree / name).rename(tree.parent / Path(name).name)
    without = digest(tree, out="without")
    for name in ("bus/0001.png", "car/0003.png"):
        (tree.parent / Path(name).name).rename(tree / name)
    cut_short(tree, "bus/0001.png", "car/0003.png")
    (tree / "bus/notes.txt").write_text("stray")
    (tree / "LICENSE").write_text("free")
    manifest = ingest(Path("dataset"), params(tree, "data.on_bad_image=skip"))
    assert manifest.digest == without
    assert (manifest.bad_images, manifest.left_out) == (2, {"bad PNG": 2, ".txt": 1, "no ending": 1})
    assert "ingest: left out 4 files: 2 bad PNG, 1 no ending, 1 .txt; all are in dataset/left_out.parquet\n" in (
        capsys.readouterr().out
    )
    table = pd.read_parquet("dataset/left_out.parquet")
    assert table[["path", "split", "class_name", "kind"]].to_numpy().tolist() == [
        ["bus/0001.png", "train", "bus", "bad PNG"],
        ["car/0003.png", "train", "car", "bad PNG"],
        ["LICENSE", "", "", "no ending"],
        ["bus/notes.txt", "", "", ".txt"],
    ]
    assert table["reason"].tolist()[2:] == ["no image"] * 2
    assert (table["reason"].str.len() > 5).all()
    Dataset(Path("dataset")).check_digests()


def test_too_many_damaged_images_are_refused_all_the_same(tree):
    cut_short(tree, "bus/0001.png", "car/0003.png")
    with pytest.raises(UserError, match=r"2 of 65 images can't be read .*, more than data.max_bad_fraction = 0.02"):
        ingest(Path("dataset"), params(tree, "data.on_bad_image=skip", "data.max_bad_fraction=0.02"))


def test_a_class_whose_images_are_all_damaged_is_named(tree):
    cut_short(tree, *(f"van/{number:04d}.png" for number in range(15)))
    with pytest.raises(UserError, match=r"train: no labelled images of class 'van'"):
        ingest(Path("dataset"), params(tree, "data.on_bad_image=skip", "data.max_bad_fraction=0.5"))


def test_dark_and_light_pictures_of_16_bits_keep_their_relative_brightness(tree, capsys):
    for number, highest in ((0, 900), (1, 4095)):
        (tree / f"bus/{number:04d}.png").write_bytes(encode(np.full((SIZE, SIZE), highest, np.uint16)))
    manifest = ingest(Path("dataset"), params(tree))
    assert manifest.grey_bits == 12
    dataset = Dataset(Path("dataset"))
    found = {}
    for split in SPLITS:
        files = dataset.files(split)
        for row in np.flatnonzero(files["bits"].notna()):
            found[files["path"].iloc[row]] = (int(dataset.images(split)[row].max()), files["bits"].iloc[row])
    assert found == {"bus/0000.png": (round(900 / 4095 * 255), 10), "bus/0001.png": (255, 12)}
    assert "2 images of 16-bit grey hold values of at most 12 bits: 4,095 becomes white (data.grey_bits)" in (
        capsys.readouterr().out
    )
    assert ingest(Path("dataset"), params(tree, "data.grey_bits=16")).digest != manifest.digest


def test_what_the_folders_were_taken_for_is_printed(tmp_path, tracking_uri, capsys):
    folders = {f"{split}/{name}": 6 for split in ("Training", "Testing") for name in ("Bus", "bus", "car")}
    ingest(Path("dataset"), params(write_tree(tmp_path / "images", folders)))
    printed = capsys.readouterr().out
    assert f"ingest: {tmp_path}/images: splits test (Testing), train (Training)\n" in printed
    assert f"ingest: {tmp_path}/images: 3 classes: Bus, bus, car\n" in printed
    assert "ingest: warning: the classes 'Bus', 'bus' differ in upper and lower case alone; put them tog" in printed


def test_a_class_name_with_a_blank_too_many_is_refused(tmp_path, tracking_uri):
    root = write_tree(tmp_path / "images", {"cat": 9, "cat ": 9})
    with pytest.raises(UserError, match=r"the class name 'cat ' differs from 'cat' in white space alone"):
        ingest(Path("dataset"), params(root))


FULL_DEVICE = Path("/dev/full")


def no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


FULL = {
    "before it begins": (shutil, "disk_usage", lambda path: SimpleNamespace(free=1000)),
    "while images are written": (components.ingest, "_read_images", no_space),
    "while labels are written": (
        components.ingest,
        "save_array",
        lambda path, array: save_array(Path("/dev/full"), array),
    ),
    "while files are listed": (pd.DataFrame, "to_parquet", no_space),
}


@pytest.mark.skipif(not FULL_DEVICE.exists(), reason="needs a device that is always full")
@pytest.mark.parametrize(("where", "name", "full"), FULL.values(), ids=FULL)
def test_a_full_disk_is_one_line_and_nothing_is_left(tree, monkeypatch, where, name, full):
    monkeypatch.setattr(where, name, full)
    with pytest.raises(UserError) as caught:
        ingest(Path("dataset"), params(tree))
    assert re.fullmatch(
        r"dataset: the disk is too small: 1,1\d\d,\d{3} bytes \(2 MiB\) are needed while it is written, "
        r"and [\d,]+ are free; make room and run again \(nothing is left\)",
        str(caught.value),
    )
    assert not Path("dataset").exists()
    assert not list(Path().glob(".dataset*"))


BAD = {
    "a budget larger than the class": (
        ["data.labels_per_class=13"],
        "data.labels_per_class = 13: class 'van' has only 12 labelled training images; choose at most 12",
    ),
    "a missing path": (
        ["data.path=gone"],
        "data.path = gone: nothing there; put your images there, or run `dvc pull` if a DVC remote of yours",
    ),
    "a fraction above one": (["data.split.test=1.5"], "params.yaml: data.split.test = 1.5: "),
}


@pytest.mark.parametrize(("changes", "expected"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line_exit_code_2_and_nothing_written(tree, tmp_path, changes, expected):
    values = compose_params(["data=folder", f"data.path={tree}", "data.image_size=12"])[1]
    for change in changes:
        key, _, value = change.partition("=")
        *sections, field = key.split(".")
        section = values
        for name in sections:
            section = section[name]
        section[field] = yaml.safe_load(value)
    write_params(values, tmp_path / "params.yaml")
    before = sorted(Path().iterdir())
    done = run_step(tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(Path().iterdir()) == before


COMMAND = (sys.executable, "-m", "components.ingest", "--params", "params.yaml", "--out", "dataset")


def run_step(folder, **options):
    return subprocess.run(COMMAND, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=120, **options)


def begin(folder):
    return subprocess.Popen(
        COMMAND,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def written(partial):
    """Number of bytes of training images so far."""
    with contextlib.suppress(OSError):
        return (partial / "train.images.npy").stat().st_size
    return 0


MOMENTS = {
    "as the folder appears": lambda partial: partial.exists(),
    "in the middle of the images": lambda partial: written(partial) > 700 * 64 * 64 * 3,
    "as the labels are written": lambda partial: (partial / "train.labels.npy").exists(),
    "as the record is written": lambda partial: (partial / "manifest.json").exists(),
}


@pytest.mark.slow
def test_killed_at_any_moment_it_leaves_nothing_that_looks_finished(tmp_path, tracking_uri):
    root = tmp_path / "images"
    for label in range(4):
        (root / str(label)).mkdir(parents=True)
        for index in range(700):
            (root / f"{label}/{index:04d}.png").write_bytes(encode(picture(f"{label}/{index}", 8)))
    pack_zip(root, tmp_path / "images.zip")
    write_params(
        compose_params(["data=folder", "data.path=images.zip", "data.image_size=64"])[1], tmp_path / "params.yaml"
    )
    out, partial = tmp_path / "dataset", tmp_path / ".dataset.partial"
    killed: list[str] = []
    for name, reached in MOMENTS.items():
        process = begin(tmp_path)
        deadline = time.monotonic() + 60
        while not reached(partial) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        if process.wait() == -signal.SIGKILL:
            killed.append(name)
        # the last moment is so near the end that the step may be done
        assert not out.exists() or Dataset(out).manifest.counts["train"] > 0
        assert partial.exists() != out.exists()
    assert killed[:3] == list(MOMENTS)[:3]
    assert run_step(tmp_path, check=True).returncode == 0
    after_kills = Dataset(out).manifest
    assert not list(tmp_path.glob(".dataset*"))
    assert after_kills.digest == ingest(tmp_path / "whole", params("images.zip", "data.image_size=64")).digest


def four_channels(name):
    return np.dstack([picture(name, SIZE), picture(f"{name} 4", SIZE)[..., 0]])


def write_four(tree):
    """Make the tree's images ones of four channels."""
    for file in tree.rglob("*.png"):
        file.write_bytes(encode(four_channels(str(file.relative_to(tree)))))
    return tree


def as_parquet(tree, folder):
    """The tree's images as `train.parquet`, class by class."""
    files = sorted(tree.rglob("*.png"))
    images = [{"bytes": file.read_bytes(), "path": str(file.relative_to(tree))} for file in files]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    labels = [list(CLASSES).index(file.parent.name) for file in files]
    folder.mkdir()
    pq.write_table(pa.table({"image": pa.array(images, kind), "label": pa.array(labels)}), folder / "train.parquet")
    return folder


@pytest.mark.parametrize("channels", [1, 4])
def test_every_source_gives_as_many_channels_as_are_asked_for(tree, tmp_path, channels):
    expected = {}
    for file in tree.rglob("*.png"):
        name = str(file.relative_to(tree))
        image = Image.fromarray(picture(name, SIZE)).convert("L")
        expected[name] = np.asarray(image)[..., None] if channels == 1 else four_channels(name)
    if channels == 4:
        write_four(tree)
    sources = {
        "folder": tree,
        "zip": pack_zip(tree, tmp_path / "images.zip"),
        "tar": pack_tar(tree, tmp_path / "images.tar.gz", "w:gz"),
        "parquet": as_parquet(tree, tmp_path / "parquet"),
    }
    for kind, path in sources.items():
        asked = [f"data={'parquet' if kind == 'parquet' else 'folder'}", f"data.path={path}", "data.name=tests"]
        asked += [f"data.image_size={SIZE}", f"data.channels={channels}", "augmentation=any_channels"]
        manifest = ingest(Path(f"dataset {kind}"), select(compose_params(asked)[0], "ingest"))
        dataset = Dataset(Path(f"dataset {kind}"))
        dataset.check_digests()
        assert (manifest.channels, manifest.image_shape) == (channels, (SIZE, SIZE, channels))
        found = [image for split in SPLITS for image in dataset.images(split)]
        assert sorted(image.tobytes() for image in found) == sorted(image.tobytes() for image in expected.values())
        if kind != "parquet":
            for split in SPLITS:
                for image, path in zip(dataset.images(split), dataset.files(split)["path"], strict=True):
                    np.testing.assert_array_equal(image, expected[path])


def test_the_pixels_of_three_channels_do_not_depend_on_the_option(tree, capsys):
    arrays = {"train.images.npy", "test.images.npy"}
    found = [ingest(Path("dataset"), params(tree, *more)).files for more in ((), ("data.channels=3",))]
    assert {name: found[0][name] for name in arrays} == {name: found[1][name] for name in arrays}
    assert "12×12 pixels\n" in capsys.readouterr().out
    grey = ingest(Path("dataset"), params(tree, "data.channels=1", "augmentation=any_channels"))
    assert grey.files["train.images.npy"] != found[0]["train.images.npy"]
    assert "12×12 pixels, grey\n" in capsys.readouterr().out


def test_a_file_that_lacks_the_fourth_channel_is_a_bad_image(tree):
    write_four(tree)
    (tree / "car" / "0003.png").write_bytes(encode(picture("rgb", SIZE)))
    asked = params(tree, "data.channels=4", "augmentation=any_channels")
    with pytest.raises(UserError, match=r"1 of 65 images .*car/0003.png: .*it has 3 channels \(RGB\), and four"):
        ingest(Path("dataset"), asked)


def test_a_manifest_without_channels_is_one_of_rgb(ingested, tmp_path):
    folder = tmp_path / "dataset"
    shutil.copytree(ingested[1].folder, folder)
    record = json.loads((folder / "manifest.json").read_text())
    assert record.pop("channels") == 3
    (folder / "manifest.json").write_text(json.dumps(record))
    dataset = Dataset(folder)
    assert dataset.manifest.image_shape == (SIZE, SIZE, 3) == dataset.images("train").shape[1:]
