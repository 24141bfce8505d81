"""The data check: a good dataset passes, and each planted fault is found, told, and nothing else is."""

from __future__ import annotations

import html
import json
import re

import numpy as np
import pytest

from components.shared.artifacts import Dataset, Result, read_record, save_array
from components.shared.checks.checker import Checker
from components.shared.checks.image_table import MeanImages, image_table, split_table
from components.shared.errors import UserError
from components.shared.params.schema import ValidationParams, only
from components.validate import examine, validate
from tests.helpers.datasets import PATTERNS, make_arrays, make_dataset, write_dataset

COUNTS = {"unlabelled": 45, "train": 30, "validation": 12, "test": 30}
NAMES = list(PATTERNS)[:3]


@pytest.fixture(scope="module")
def good_arrays():
    return make_arrays(COUNTS, image_size=16)


@pytest.fixture
def arrays(good_arrays):
    """Arrays of a good dataset to plant a fault in."""
    return {split: (images.copy(), labels.copy()) for split, (images, labels) in good_arrays.items()}


@pytest.fixture
def found(tmp_path):
    """A function that writes arrays as a dataset and returns the severities and lines of what fails."""

    def _found(arrays, **bounds):
        folder = write_dataset(tmp_path / "dataset", arrays, NAMES)
        return failures(Dataset(folder), tmp_path, **bounds)

    return _found


def failures(data, tmp_path, **bounds):
    outcomes, _ = examine(data, ValidationParams(**bounds), Checker(tmp_path / "docs", "tiny"))
    return {o.expectation.name: (o.expectation.severity, o.line()) for o in outcomes if not o.success}


def keep(arrays, split, rows):
    arrays[split] = (arrays[split][0][rows], arrays[split][1][rows])


def test_a_good_dataset_has_no_failure(arrays, found):
    assert found(arrays) == {}


def test_a_test_image_in_train_is_critical(arrays, found):
    arrays["train"][0][4] = arrays["test"][0][7]
    (name, (severity, line)), *others = found(arrays).items()
    assert (name, severity, others) == ("test_images_are_new", "critical", [])
    assert "1 of 30 images: 1 in train" in line
    assert "at most 0 (validation.max_test_overlap)" in line


def test_as_many_test_images_elsewhere_as_allowed_pass(arrays, found):
    arrays["unlabelled"][0][0] = arrays["test"][0][7]
    assert found(arrays, max_test_overlap=1 / 30) == {}


def test_a_test_image_in_two_splits_counts_once(arrays, found):
    arrays["unlabelled"][0][0] = arrays["train"][0][0] = arrays["test"][0][7]
    assert "1 of 30 images: 1 in unlabelled, 1 in train" in found(arrays)["test_images_are_new"][1]


def test_validation_images_in_train_are_a_warning(arrays, found):
    arrays["train"][0][4] = arrays["validation"][0][0]
    (name, (severity, line)), *others = found(arrays).items()
    assert (name, severity, others) == ("validation_images_are_new", "warning", [])
    assert "1 of 12 images: 1 in train" in line


def test_one_blank_image_is_a_warning(arrays, found):
    arrays["train"][0][3] = (255, 0, 0)  # of one colour, though its channels differ
    (name, (severity, line)), *others = found(arrays).items()
    assert (name, severity, others) == ("no_blank_images", "warning", [])
    assert "train, image 3: std = 0; expected at least 1 (validation.min_pixel_std)" in line


def test_many_blank_images_are_critical_and_not_also_duplicates(arrays, found):
    arrays["train"][0][:3] = arrays["test"][0][0] = 128
    assert {name: severity for name, (severity, _) in found(arrays).items()} == {
        "no_blank_images": "warning",
        "few_blank_images": "critical",
    }


@pytest.mark.parametrize("label", [3, -2])
def test_a_label_without_a_class_is_critical(arrays, found, label):
    arrays["train"][1][5] = label
    (name, (severity, line)), *others = found(arrays).items()
    assert (name, severity, others) == ("labels_within_classes", "critical", [])
    assert f"train, image 5: label = {label}; expected 0 to 2" in line


def test_an_unlabelled_test_image_is_critical(arrays, found):
    arrays["test"][1][9] = -1
    (name, (severity, line)), *others = found(arrays).items()
    assert (name, severity, others) == ("labelled_images_have_labels", "critical", [])
    assert "test, image 9: label = -1; expected not -1" in line


def test_a_label_of_an_unlabelled_image_is_critical(arrays, found):
    arrays["unlabelled"][1][2:4] = 1
    (name, (severity, line)), *others = found(arrays).items()
    assert (name, severity, others) == ("unlabelled_images_have_none", "critical", [])
    assert "unlabelled, image 2 and 1 more: label = 1" in line


def test_a_class_missing_from_validation_is_critical(arrays, found):
    keep(arrays, "validation", arrays["validation"][1] != 1)
    (name, (severity, line)), *others = found(arrays).items()
    assert (name, severity, others) == ("class_present", "critical", [])
    assert "validation, class columns: images = 0; expected at least 1" in line


def test_too_few_images_to_learn_a_class_are_critical(arrays, found):
    (name, (severity, line)), *others = found(arrays, min_images_per_class=11).items()
    assert (name, severity, others) == ("enough_images", "critical", [])
    assert "train, class rows and 2 more: images = 10; expected at least 11" in line


def test_imbalance_is_a_warning(arrays, found):
    labels = arrays["train"][1]
    keep(arrays, "train", np.flatnonzero((labels != 2) | (np.cumsum(labels == 2) <= 2)))
    (name, (severity, line)), *others = found(arrays, max_class_imbalance=4.5).items()
    assert (name, severity, others) == ("balanced_classes", "warning", [])
    assert "train: imbalance = 5; expected at most 4.5" in line


@pytest.mark.parametrize("split", ["unlabelled", "train"])
def test_repeated_images_are_a_warning(arrays, found, split):
    arrays[split][0][1:4] = arrays[split][0][0]
    (name, (severity, line)), *others = found(arrays).items()
    assert (name, severity, others) == ("few_repeated_images", "warning", [])
    assert f"{split}: repeated_fraction = {round(3 / COUNTS[split], 6)};" in line
    assert "expected at most 0.05 (validation.max_duplicate_fraction)" in line


def test_darker_test_images_are_a_warning(arrays, found):
    arrays["test"][0][:] //= 3
    (name, (severity, line)), *others = found(arrays).items()
    assert (name, severity, others) == ("brightness_of_test_like_train", "warning", [])
    assert re.search(r"test: mean = \d+\.\d+; expected \d+\.?\d* to \d+\.?\d* \(validation\.max_brightness", line)


def test_a_split_without_images_misses_its_classes(arrays, found):
    keep(arrays, "test", np.zeros(30, bool))
    (name, (severity, line)), *others = found(arrays).items()
    assert (name, severity, others) == ("class_present", "critical", [])
    assert "test, class rows and 2 more" in line


def test_a_dataset_without_training_images_is_critical(arrays, found):
    for split in COUNTS:
        keep(arrays, split, np.zeros(COUNTS[split], bool))
    (name, (severity, line)), *others = found(arrays).items()
    assert (name, severity, others) == ("training_images_exist", "critical", [])
    assert "train: images = 0; expected at least 1" in line


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
    ((found, (severity, line)),) = failures(Dataset(folder), tmp_path).items()
    assert (found, severity) == (name, "critical")
    assert line.startswith(f"{name}: test: ")
    assert words in line


def test_labels_changed_behind_the_manifest_are_critical(arrays, tmp_path):
    folder = write_dataset(tmp_path / "dataset", arrays, NAMES)
    labels = arrays["train"][1]
    labels[np.flatnonzero(labels == 0)[0]] = 1
    save_array(folder / "train.labels.npy", labels)
    ((name, (severity, line)),) = failures(Dataset(folder), tmp_path).items()
    assert (name, severity) == ("class_counts_fit", "critical")
    assert "train, class rows and 1 more: missing_images = 1" in line


def test_images_are_measured(arrays, tmp_path, monkeypatch):
    # a few images at a time, so that several pieces are put together
    monkeypatch.setattr("components.shared.checks.image_table.CHUNK_BYTES", 7 * 16 * 16 * 3)
    data = Dataset(write_dataset(tmp_path / "dataset", arrays, NAMES))
    means, read = MeanImages(3, 16), []
    table = image_table(data, 1.0, means, read.append)
    assert sum(read) == len(table) == sum(COUNTS.values())
    assert max(read) == 7
    row = table[(table["split"] == "test") & (table["row"] == 20)].iloc[0]
    image, label = arrays["test"][0][20].astype(float), arrays["test"][1][20]
    assert row["class_name"] == NAMES[label]
    assert row[["mean", "red", "green", "blue"]].tolist() == pytest.approx(
        [image.mean(), *image.mean(axis=(0, 1))], abs=1e-3
    )
    assert row["std"] == pytest.approx(image.std(axis=(0, 1)).max(), abs=1e-3)
    assert table["digest"].is_unique
    images, labels = arrays["validation"]
    _, (_, validation, _) = means.rows(NAMES)[1]
    np.testing.assert_allclose(validation, images[labels == 1].mean(axis=0) / 255)
    splits = split_table(table).set_index("split")
    assert splits.loc["unlabelled", "images"] == 45
    assert splits.loc["train", "mean"] == pytest.approx(arrays["train"][0].mean(), abs=1e-3)


class Step:
    """The step in a folder of its own, with a good dataset and one that fails."""

    def __init__(self, root):
        from components.shared.params.composing import compose

        self.root, self.out, self.failed = root, root / "validation", root / "validation.failed"
        self.params = only(compose([])[0], "validate")
        make_dataset(root / "good", image_size=16)
        leaking = make_arrays(COUNTS, image_size=16)
        leaking["train"][0][0] = leaking["test"][0][0]
        leaking["train"][0][1] = 0
        write_dataset(root / "leaking", leaking, NAMES)

    def run(self, name):
        return validate(self.root / name, self.out, self.params)


@pytest.fixture(scope="module")
def step(tmp_path_factory, tracking_uri):
    """The step after a first run on a good dataset."""
    root = tmp_path_factory.mktemp("validate")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        step = Step(root)
        step.result = step.run("good")
        yield step


def test_a_good_dataset_leaves_a_whole_folder(step):
    assert not step.failed.exists()
    assert read_record(step.out, Result) == step.result
    assert step.result.dataset_digest == Dataset(step.root / "good").manifest.digest
    verdict = json.loads((step.out / "verdict.json").read_text())
    assert verdict["passed"] is True
    assert {e["success"] for e in verdict["expectations"]} == {True}
    count = len(verdict["expectations"])
    assert step.result.metrics == {"expectations": count, "passed": count, "warnings": 0, "critical": 0}
    schema = json.loads((step.out / "schema.json").read_text())
    assert schema["class_names"] == NAMES
    assert schema["image"]["shape"] == [16, 16, 3]
    assert [e["expectation"] for e in schema["expectations"]] == [e["expectation"] for e in verdict["expectations"]]


def test_statistics_tell_of_each_class(step):
    statistics = json.loads((step.out / "statistics.json").read_text())
    images, labels = (getattr(Dataset(step.root / "good"), kind)("train") for kind in ("images", "labels"))
    assert statistics["train"]["images"] == len(images)
    first = statistics["train"]["classes"][0]
    assert (first["class_name"], first["images"]) == (NAMES[0], int(np.sum(labels == 0)))
    assert first["mean"] == pytest.approx(images[labels == 0].mean(), abs=1e-3)


def test_data_docs_tell_what_each_expectation_is_for(step):
    assert "dataset-images" in (step.out / "docs" / "index.html").read_text()
    assert len(list((step.out / "docs" / "validations").rglob("dataset-*.html"))) == 4
    pages = "".join(html.unescape(path.read_text()) for path in (step.out / "docs" / "expectations").glob("*.html"))
    for entry in json.loads((step.out / "schema.json").read_text())["expectations"]:
        assert f"{entry['expectation']}: {entry['meaning']}" in pages


def test_data_docs_can_be_read_without_a_network(step):
    docs = step.out / "docs"
    index = re.sub(r"<script.*?</script>", "", (docs / "index.html").read_text(), flags=re.DOTALL)
    for table in ("arrays", "images", "splits", "classes"):
        (link,) = re.findall(rf'<li><a href="([^"]+)">{table}</a> <span class="text-success">✓</span>', index)
        page = (docs / link).read_text()
        assert 'class="fas fa-check-circle' in page
        assert page.index(".fa-check-circle::before") < page.index('<link rel="stylesheet"')


def test_mlflow_has_docs_statistics_and_pictures(step):
    import mlflow

    client = mlflow.MlflowClient()
    run = step.result.mlflow_run_id
    names = {entry.path for folder in (None, "pictures", "docs") for entry in client.list_artifacts(run, folder)}
    assert {
        "result.json",
        "statistics.json",
        "verdict.json",
        "schema.json",
        "docs/index.html",
        "pictures/class_counts.png",
        "pictures/class_means.png",
    } <= names


def test_a_failure_is_told_in_one_line_and_kept_until_the_next_success(step, capsys):
    verdict = (step.out / "verdict.json").read_bytes()
    with pytest.raises(UserError) as caught:
        step.run("leaking")
    message = str(caught.value)
    assert "\n" not in message
    assert "test_images_are_new: test: copied_fraction = 1 of 30 images: 1 in train; expected at most 0" in message
    assert message.endswith(f"see {step.failed}/docs/index.html")
    assert "validate: warning: no_blank_images: train, image 1: std = 0" in capsys.readouterr().out
    index = (step.failed / "docs" / "index.html").read_text()
    assert '<span class="text-danger">✗</span> critical: test_images_are_new: test: copied_fraction' in index
    assert '<span class="text-danger">✗</span> warning: no_blank_images: train, image 1' in index
    assert json.loads((step.failed / "verdict.json").read_text())["passed"] is False
    assert (step.out / "verdict.json").read_bytes() == verdict

    step.run("good")
    assert not step.failed.exists()
    assert (step.out / "verdict.json").read_bytes() == verdict
    assert sorted(path.name for path in step.root.iterdir() if "validation" in path.name) == ["validation"]


def test_a_folder_in_the_way_is_left_alone(step):
    step.failed.mkdir()
    (step.failed / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match=r"validation\.failed: exists and was not written by this step"):
        step.run("good")
    assert (step.failed / "mine.txt").read_text() == "mine"
    (step.failed / "mine.txt").unlink()
    step.failed.rmdir()


def test_a_dataset_that_is_not_there_is_one_line(tmp_path, step):
    with pytest.raises(UserError, match=r"manifest\.json: missing"):
        validate(tmp_path / "nothing", tmp_path / "validation", step.params)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_array_is_one_line(tmp_path, step):
    folder = make_dataset(tmp_path / "dataset", image_size=16)
    (folder / "train.images.npy").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"train\.images\.npy: not a NumPy array"):
        validate(folder, tmp_path / "validation", step.params)
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]
