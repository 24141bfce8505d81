"""The data check as a step: what it leaves behind of a good dataset and of one that fails."""

from __future__ import annotations

import html
import json
import re

import mlflow
import numpy as np
import pytest

from components.shared.artifacts import Dataset, Result, read_record
from components.shared.errors import UserError
from components.shared.evaluation.predictions import image_digests
from components.shared.evaluation.wording import provable_in_words
from components.shared.params.composing import compose_params
from components.shared.params.schema import select
from components.shared.registry.ledger import RegistryLedger
from components.validate import validate
from tests.helpers.datasets import PATTERNS, make_arrays, make_dataset, write_dataset

COUNTS = {"unlabelled": 45, "train": 30, "validation": 12, "test": 30}
NAMES = list(PATTERNS)[:3]


class Step:
    """The step in a folder of its own, with a good dataset and one that fails."""

    def __init__(self, root):
        self.root, self.out, self.failed = root, root / "validation", root / "validation.failed"
        self.params = select(compose_params([])[0], "validate")
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


def test_mlflow_has_docs_statistics_and_a_picture(step):
    client = mlflow.MlflowClient()
    run = step.result.mlflow_run_id
    names = {entry.path for folder in (None, "pictures", "docs") for entry in client.list_artifacts(run, folder)}
    assert {
        "result.json",
        "statistics.json",
        "verdict.json",
        "schema.json",
        "docs/index.html",
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
    with pytest.raises(UserError, match=r"validation\.failed: exists and was not written by a step"):
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
    with pytest.raises(UserError, match=r"train\.images\.npy: is not what manifest\.json says was ingested"):
        validate(folder, tmp_path / "validation", step.params)
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]


def test_test_images_that_were_replaced_are_refused(tmp_path, step):
    folder = make_dataset(tmp_path / "dataset", image_size=16)
    easier = np.load(folder / "test.images.npy")
    easier[0] = 0
    np.save(folder / "test.images.npy", easier)
    with pytest.raises(UserError, match=r"test\.images\.npy: is not what manifest\.json says was ingested"):
        validate(folder, tmp_path / "validation", step.params)


def test_it_says_what_the_test_images_can_prove_at_this_look(tmp_path, step, tracking_uri, capsys):
    make_dataset(tmp_path / "dataset", image_size=16, test=60, seed=3)
    data = Dataset(tmp_path / "dataset")
    verdicts = []
    for place in (1, 2):
        result = validate(data.folder, tmp_path / "validation", step.params)
        said = provable_in_words(60, 3, 0.05, place)
        assert result.details["provable"] == said
        assert capsys.readouterr().out.splitlines()[-1] == f"validate: {said}"
        verdicts.append((tmp_path / "validation" / "verdict.json").read_bytes())
        RegistryLedger().claim("a look", image_digests(data, "test"), {})
    # trainings wait for the verdict, and must not run again because of a look
    assert verdicts[0] == verdicts[1]


def test_without_an_answer_of_the_ledger_it_assumes_the_first_look(tmp_path, step, monkeypatch):
    def away(*_):
        raise UserError("MLflow at here: experiment contrastive-looks: may not do this (403)")

    monkeypatch.setattr(RegistryLedger, "expected", away)
    make_dataset(tmp_path / "dataset", image_size=16)
    said = validate(tmp_path / "dataset", tmp_path / "validation", step.params).details["provable"]
    assert said.startswith(provable_in_words(30, 3, 0.05))
    assert said.endswith(
        "(assumed: the first look; MLflow at here: experiment contrastive-looks: may not do this (403))"
    )
