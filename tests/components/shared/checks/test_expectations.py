"""Each planted fault in a dataset is found, told with place, value and bound, and nothing else is."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import numpy as np
import pytest

from components.shared.artifacts import Dataset, save_array
from components.shared.checks.checker import Checker
from components.shared.checks.findings import find_images
from components.shared.checks.image_table import class_means, image_table, read_images, split_table
from components.shared.errors import UserError
from components.shared.params.composing import compose_params
from components.validate import examine
from tests.helpers.datasets import PATTERNS, make_arrays, write_dataset

COUNTS = {"unlabelled": 45, "train": 30, "validation": 12, "test": 30}
NAMES = list(PATTERNS)[:3]


@pytest.fixture(scope="module")
def good_arrays():
    return make_arrays(COUNTS, image_size=16)


@pytest.fixture
def arrays(good_arrays):
    """Arrays of a good dataset to plant a fault in."""
    return {split: (images.copy(), labels.copy()) for split, (images, labels) in good_arrays.items()}


@functools.cache
def bounds(*changed):
    return compose_params([f"validation.{change}" for change in changed])[0].validation


def findings(folder, *changed):
    """Name → finding of each expectation that fails, with some bounds changed."""
    outcomes, tables = examine(Dataset(folder), bounds(*changed), Checker(folder.parent / "docs", "tiny"))
    return {o.expectation.name: find_images(o, tables) for o in outcomes if not o.success}


def failures(folder, *changed):
    """Name → severity and line of each expectation that fails, with some bounds changed."""
    found = findings(folder, *changed).items()
    return {name: (finding.outcome.expectation.severity, finding.line()) for name, finding in found}


def keep(arrays, split, rows):
    arrays[split] = (arrays[split][0][rows], arrays[split][1][rows])


def copy_image(arrays, origin, row, split, rows):
    arrays[split][0][rows] = arrays[origin][0][row]


def same_class(arrays, row, split="test", count=1):
    """The first training images of a test image's class."""
    return np.flatnonzero(arrays["train"][1] == arrays[split][1][row])[:count]


def other_class(arrays):
    labels = arrays["train"][1]
    return np.flatnonzero(labels != labels[0])[0]


def fill(arrays, split, rows, value):
    arrays[split][0][rows] = value


def relabel(arrays, split, rows, label):
    arrays[split][1][rows] = label


def keep_two_of_the_last_class(arrays):
    labels = arrays["train"][1]
    keep(arrays, "train", np.flatnonzero((labels != 2) | (np.cumsum(labels == 2) <= 2)))


def empty(arrays, *splits):
    for split in splits:
        keep(arrays, split, np.zeros(COUNTS[split], bool))


# fault, how it is planted, severity, the one expectation that fails, and what its line says
FAULTS = [
    (
        "a test image in train",
        lambda a: copy_image(a, "test", 7, "train", same_class(a, 7)),
        (
            "critical",
            "test_images_are_new",
            "1 of 30 images: 1 in train; expected at most 0 (validation.max_test_",
        ),
    ),
    (
        "a test image in two splits counts once",
        lambda a: (copy_image(a, "test", 7, "train", same_class(a, 7)), copy_image(a, "test", 7, "unlabelled", 0)),
        ("critical", "test_images_are_new", "1 of 30 images: 1 in unlabelled, 1 in train"),
    ),
    (
        "a validation image in train",
        lambda a: copy_image(a, "validation", 0, "train", same_class(a, 0, "validation")),
        ("warning", "validation_images_are_new", "1 of 12 images: 1 in train"),
    ),
    (
        "a blank image, of one colour, though its channels differ",
        lambda a: fill(a, "train", 3, (255, 0, 0)),
        (
            "warning",
            "no_blank_images",
            "train, image 3 (train/3.png): std = 0; expected at least 1 (validation.min_pixel_std)",
        ),
    ),
    (
        "a label beyond the classes",
        lambda a: relabel(a, "train", 5, 3),
        ("critical", "labels_within_classes", "train, image 5 (train/5.png): label = 3; expected 0 to 2"),
    ),
    (
        "a label below them",
        lambda a: relabel(a, "train", 5, -2),
        ("critical", "labels_within_classes", "train, image 5 (train/5.png): label = -2; expected 0 to 2"),
    ),
    (
        "an unlabelled test image",
        lambda a: relabel(a, "test", 9, -1),
        ("critical", "labelled_images_have_labels", "test, image 9 (test/9.png): label = -1; expected not -1"),
    ),
    (
        "labels of unlabelled images",
        lambda a: relabel(a, "unlabelled", slice(2, 4), 1),
        ("critical", "unlabelled_images_have_none", "unlabelled, image 2 (unlabelled/2.png) and 1 more: label = 1"),
    ),
    (
        "a class missing from validation",
        lambda a: keep(a, "validation", a["validation"][1] != 1),
        ("critical", "class_present", "validation, class columns: images = 0; expected at least 1"),
    ),
    (
        "a split without images",
        lambda a: empty(a, "test"),
        ("critical", "class_present", "test, class rows and 2 more"),
    ),
    (
        "no images at all",
        lambda a: empty(a, *COUNTS),
        ("critical", "training_images_exist", "train: images = 0; expected at least 1"),
    ),
    (
        "repeated training images",
        lambda a: copy_image(a, "train", 0, "train", same_class(a, 0, "train", 4)),
        (
            "warning",
            "few_repeated_images",
            "train: repeated_fraction = 0.1; expected at most 0.05 (validation.max",
        ),
    ),
    (
        "the same image in two classes",
        lambda a: copy_image(a, "train", other_class(a), "train", 0),
        (
            "warning",
            "one_label_per_image",
            "labels_of_image = 2; expected at most 1; train/0.png is the same as train:",
        ),
    ),
    (
        "repeated unlabelled images",
        lambda a: copy_image(a, "unlabelled", 0, "unlabelled", slice(1, 4)),
        ("warning", "few_repeated_images", "unlabelled: repeated_fraction = 0.066667;"),
    ),
]


def test_a_good_dataset_has_no_failure(arrays, tmp_path):
    assert failures(write_dataset(tmp_path / "dataset", arrays, NAMES)) == {}


@pytest.mark.parametrize(("plant", "expected"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS])
def test_a_fault_is_found_and_nothing_else(arrays, tmp_path, plant, expected):
    plant(arrays)
    ((name, (severity, line)),) = failures(write_dataset(tmp_path / "dataset", arrays, NAMES)).items()
    assert (severity, name) == expected[:2]
    assert expected[2] in line


def test_darker_test_images_are_a_warning(arrays, tmp_path):
    arrays["test"][0][:] //= 3
    ((name, (severity, line)),) = failures(write_dataset(tmp_path / "dataset", arrays, NAMES)).items()
    assert (severity, name) == ("warning", "brightness_of_test_like_train")
    assert re.search(r"test: mean = \d+\.\d+; expected \d+\.?\d* to \d+\.?\d* \(validation\.max_brightness", line)


def test_many_blank_images_are_critical_and_not_also_duplicates(arrays, tmp_path):
    fill(arrays, "train", slice(0, 3), 128)
    fill(arrays, "test", 0, 128)
    found = failures(write_dataset(tmp_path / "dataset", arrays, NAMES))
    assert {name: severity for name, (severity, _) in found.items()} == {
        "no_blank_images": "warning",
        "few_blank_images": "critical",
    }


def test_bounds_are_the_parameters(arrays, tmp_path):
    copy_image(arrays, "test", 7, "unlabelled", 0)
    keep_two_of_the_last_class(arrays)
    folder = write_dataset(tmp_path / "dataset", arrays, NAMES)
    assert list(failures(folder)) == ["test_images_are_new"]
    assert failures(folder, f"max_test_overlap={1 / 30}") == {}
    found = failures(folder, "max_test_overlap=0.1", "max_class_imbalance=4.5", "min_images_per_class=11")
    assert list(found) == ["balanced_classes", "enough_images"]
    severity, line = found["balanced_classes"]
    assert severity == "warning" and "train: imbalance = 5; expected at most 4.5" in line
    severity, line = found["enough_images"]
    assert severity == "critical" and "train, class rings and 2 more: images = 2; expected at least 11" in line


@pytest.mark.parametrize(
    ("fault", "name", "words"),
    [
        (lambda images, labels: (images.astype(np.float32), labels), "image_dtype_fits", "float32; expected uint8"),
        (lambda images, labels: (images[:, 1:], labels), "image_shape_fits", "15×16×3; expected 16×16×3"),
        (lambda images, labels: (images[1:], labels), "missing_images_fits", "= 1; expected 0"),
        (lambda images, labels: (images, labels.astype(np.int32)), "label_dtype_fits", "int32; expected int64"),
        (lambda images, labels: (images, labels[:, None]), "label_shape_fits", "1; expected scalar"),
        (lambda images, labels: (images, labels[:-2]), "missing_labels_fits", "= 2; expected 0"),
    ],
)
def test_an_array_unlike_the_manifest_is_critical(arrays, tmp_path, fault, name, words):
    folder = write_dataset(tmp_path / "dataset", arrays, NAMES)
    images, labels = fault(*arrays["test"])
    save_array(folder / "test.images.npy", images)
    save_array(folder / "test.labels.npy", labels)
    ((found, (severity, line)),) = failures(folder).items()
    assert (found, severity) == (name, "critical")
    assert line.startswith(f"{name}: test: ")
    assert words in line


def test_labels_changed_behind_the_manifest_are_critical(arrays, tmp_path):
    folder = write_dataset(tmp_path / "dataset", arrays, NAMES)
    labels = arrays["train"][1]
    labels[np.flatnonzero(labels == 0)[0]] = 1
    save_array(folder / "train.labels.npy", labels)
    ((name, (severity, line)),) = failures(folder).items()
    assert (name, severity) == ("class_counts_fit", "critical")
    assert "train, class rows and 1 more: missing_images = 1" in line


def test_images_are_measured(arrays, tmp_path, monkeypatch):
    # a few images at a time, so that several pieces are put together
    monkeypatch.setattr("components.shared.checks.image_table.CHUNK_BYTES", 7 * 16 * 16 * 3)
    data = Dataset(write_dataset(tmp_path / "dataset", arrays, NAMES))
    table = image_table(data, 1.0)
    assert len(table) == sum(COUNTS.values())
    row = table[(table["split"] == "test") & (table["row"] == 20)].iloc[0]
    image, label = arrays["test"][0][20].astype(float), arrays["test"][1][20]
    assert row["class_name"] == NAMES[label]
    assert row[["mean", "red", "green", "blue"]].tolist() == pytest.approx(
        [image.mean(), *image.mean(axis=(0, 1))], abs=1e-3
    )
    assert row["std"] == pytest.approx(image.std(axis=(0, 1)).max(), abs=1e-3)
    assert table["digest"].is_unique
    images, labels = arrays["validation"]
    _, (_, validation, _) = class_means(data, 3)[1]
    np.testing.assert_allclose(validation, images[labels == 1].mean(axis=0) / 255)
    splits = split_table(table).set_index("split")
    assert splits.loc["unlabelled", "images"] == 45
    assert splits.loc["train", "mean"] == pytest.approx(arrays["train"][0].mean(), abs=1e-3)


def test_every_image_of_a_finding_is_named_with_its_copies(arrays, tmp_path):
    own = same_class(arrays, 7)[0]
    copy_image(arrays, "test", 7, "train", own)
    copy_image(arrays, "test", 7, "unlabelled", slice(0, 2))
    found = findings(write_dataset(tmp_path / "dataset", arrays, NAMES))["test_images_are_new"]
    assert found.images["path"].tolist() == ["test/7.png"]
    name = NAMES[arrays["test"][1][7]]
    (same,) = found.images["same_as"]
    assert same == f"unlabelled: unlabelled/0.png; unlabelled: unlabelled/1.png; train: train/{own}.png as {name}"
    assert found.line().endswith(f"such as test/7.png, the same as {same}")


def test_all_failing_images_are_listed_not_only_the_first_ones(arrays, tmp_path):
    fill(arrays, "unlabelled", slice(3, 43), 9)
    found = findings(write_dataset(tmp_path / "dataset", arrays, NAMES))
    paths = [f"unlabelled/{row}.png" for row in range(3, 43)]
    assert found["no_blank_images"].images["path"].tolist() == paths
    assert found["few_blank_images"].images["path"].tolist() == paths


def test_an_owner_adds_expectations_of_great_expectations_by_name(arrays, tmp_path):
    folder = write_dataset(tmp_path / "dataset", arrays, NAMES)
    mine = "+validation.expectations.png_only={type:expect_column_values_to_match_regex,table:images,column:path,"
    mine += "regex:'^train.*png$',splits:[train,test],severity:critical,meaning:Only PNG files are ours.}"
    outcomes, tables = examine(
        Dataset(folder), compose_params([mine])[0].validation, Checker(tmp_path / "docs", "tiny")
    )
    (failed,) = (outcome for outcome in outcomes if not outcome.success)
    assert find_images(failed, tables).images["path"].tolist() == [f"test/{row}.png" for row in range(30)]
    line = failed.line()
    assert line.startswith(
        "png_only: test, image 0 (test/0.png) and 29 more: path = test/0.png; expected column values"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "type=expect_column_values_to_be_betwen",
            "betwen: Great Expectations has none (did you mean expect_",
        ),
        ("column=stdd", "no_blank_images.column = stdd: no such column (did you mean std?)"),
        ("min_value=min_pixel_sdt", "min_pixel_sdt: no such bound (did you mean min_pixel_std?)"),
        ("type=expect_column_values_to_be_unique", "expect_column_values_to_be_unique: min_value: extra fields"),
    ],
)
def test_an_expectation_that_cant_be_asked_is_one_line(arrays, tmp_path, change, message):
    folder = write_dataset(tmp_path / "dataset", arrays, NAMES)
    with pytest.raises(UserError, match=re.escape(message)):
        failures(folder, f"expectations.no_blank_images.{change}")


def test_an_expectation_can_be_left_out_and_its_severity_changed(arrays, tmp_path):
    fill(arrays, "train", 3, 0)
    folder = write_dataset(tmp_path / "dataset", arrays, NAMES)
    ((severity, _),) = failures(folder, "expectations.no_blank_images.severity=critical").values()
    assert severity == "critical"
    params, _ = compose_params(["validation.expectations.no_blank_images=null"])
    outcomes, _ = examine(Dataset(folder), params.validation, Checker(tmp_path / "docs2", "tiny"))
    assert all(outcome.success for outcome in outcomes)


def test_images_are_read_by_row(arrays, tmp_path):
    folder = write_dataset(tmp_path / "dataset", arrays, NAMES)
    images = read_images(Dataset(folder), "test", [5, 2])
    np.testing.assert_array_equal(images, arrays["test"][0][[5, 2]])


def test_memory_does_not_grow_with_the_dataset(tmp_path):
    counts = {"unlabelled": 0, "train": 5000, "validation": 0, "test": 0}
    arrays = {
        split: (np.zeros((count, 64, 64, 3), np.uint8), np.arange(count) % 3) for split, count in counts.items()
    }
    data = Dataset(write_dataset(tmp_path / "dataset", arrays, NAMES))
    arrays.clear()

    def mapped():
        """Mebibytes of mapped files that count as this process's memory."""
        (line,) = re.findall(r"RssFile:\s+(\d+)", Path("/proc/self/status").read_text())
        return int(line) / 1024

    before = mapped()
    assert len(image_table(data)) == 5000
    class_means(data, 3)
    assert mapped() - before < 20  # of 59
