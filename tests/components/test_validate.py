"""The data check as a step: what it leaves behind of a good dataset and of one that fails."""

from __future__ import annotations

import errno
import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import great_expectations
import mlflow
import numpy as np
import pandas as pd
import pytest

from components.shared.artifacts import Dataset, Result, read_record
from components.shared.checks.drift import DATASET_STATISTICS, TEST_IMAGES, TRAINING_IMAGES, dataset_statistics
from components.shared.errors import UserError
from components.shared.evaluation.predictions import image_digests
from components.shared.evaluation.wording import provable_in_words
from components.shared.params.composing import compose_params
from components.shared.params.schema import select
from components.shared.registry.ledger import RegistryLedger
from components.shared.sources.pixels import content_digest
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
    assert verdict["findings"] == []
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


def test_data_docs_tell_what_each_expectation_is_for_beside_its_result(step):
    docs = step.out / "docs"
    assert len(list((docs / "validations").rglob("dataset-*.html"))) == 4
    pages = "".join(html.unescape(path.read_text()) for path in (docs / "expectations").glob("*.html"))
    index = html.unescape((docs / "index.html").read_text())
    for entry in json.loads((step.out / "schema.json").read_text())["expectations"]:
        assert f"{entry['expectation']}: {entry['meaning']}" in pages
        row = next(row for row in index.split("<tr>") if f">{entry['expectation']}<" in row)
        assert entry["meaning"] in row and entry["expected"] in row and "✓" in row


def test_data_docs_ask_no_other_server(step):
    docs = step.out / "docs"
    files = [path for path in docs.rglob("*") if path.is_file()]
    assert len(files) == 9 and {path.suffix for path in files} == {".html"}
    for path in files:
        text = path.read_text()
        links = re.findall(r"""(?:src|href)=["']?([^"' >]+)|url\(["']?([^"')]+)""", text)
        away = [link for pair in links for link in pair if re.match("https?:|//", link)]
        assert away == [] and "greatexpectations.io" not in text
        # each link leads to a page that is there
        for link, _ in links:
            target = link.partition("#")[0]
            assert link.startswith("data:") or not target or (path.parent / target).exists(), link


def test_data_docs_look_as_they_should_in_a_browser_without_a_network(step, tmp_path):
    browser = shutil.which("chromium") or pytest.skip("no chromium")
    (table,) = (step.out / "docs" / "validations" / "splits").rglob("*.html")
    for page, style in ((step.out / "docs" / "index.html", "page"), (table, "card")):
        text = page.read_text().replace(
            "</body>",
            f"""<script>
            const look = getComputedStyle(document.querySelector(".{style}"));
            document.title = [look.maxWidth, look.borderTopWidth, getComputedStyle(document.body).marginTop];
            </script></body>""",
        )
        probe = tmp_path / f"{style}.html"
        probe.write_text(text)
        options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
        offline = ["--proxy-server=127.0.0.1:9", "--virtual-time-budget=2000", "--dump-dom", probe.as_uri()]
        seen = subprocess.run([browser, *options, *offline], capture_output=True, text=True, timeout=60, check=True)
        width, border, margin = re.findall(r"<title>([^<]*)</title>", seen.stdout)[0].split(",")
        assert margin == "0px"
        assert (width if style == "page" else border) == ("1152px" if style == "page" else "1px")


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
        "docs/findings",
        "pictures/class_means.png",
    } <= names


def test_a_failure_is_told_in_one_line_and_kept_until_the_next_success(step, capsys):
    verdict = (step.out / "verdict.json").read_bytes()
    with pytest.raises(UserError) as caught:
        step.run("leaking")
    message = str(caught.value)
    assert "\n" not in message
    assert "test_images_are_new: test: copied_fraction = 1 of 30 images: 1 in train; expected at most 0" in message
    assert "such as test/0.png, the same as train: train/0.png" in message
    assert message.endswith(f"see {step.failed}/docs/index.html")
    assert "validate: warning: no_blank_images: train, image 1 (train/1.png): std = 0" in capsys.readouterr().out
    index = (step.failed / "docs" / "index.html").read_text()
    assert "critical: test_images_are_new" in index and "test_images_are_new: test: copied_fraction" in index
    assert "warning: no_blank_images" in index and "no_blank_images: train, image 1 (train/1.png)" in index
    # the image and its copy side by side, named
    figure = index[index.index('id="test_images_are_new"') :].split("<figure>")[1].split("</figure>")[0]
    assert figure.count("data:image/webp") == 2 and "test/0.png" in figure and "= train/0.png" in figure
    listed = pd.read_csv(step.failed / "docs" / "findings" / "test_images_are_new.csv")
    assert listed[["split", "row", "path"]].values.tolist() == [["test", 0, "test/0.png"]]
    name = NAMES[Dataset(step.root / "leaking").labels("train")[0]]
    assert listed["same_as"].tolist() == [f"train: train/0.png as {name}"]
    assert not (step.failed / "digest.txt").exists()
    failed = json.loads((step.failed / "verdict.json").read_text())
    assert failed["passed"] is False
    found = {finding["expectation"]: finding for finding in failed["findings"]}
    new, blank = found["test_images_are_new"], found["no_blank_images"]
    assert (new["severity"], new["images"], new["files"]) == ("critical", 1, ["test/0.png"])
    assert new["line"] in message
    assert (blank["severity"], blank["images"], blank["files"]) == ("warning", 1, ["train/1.png"])
    assert blank["meaning"] == "An image of a single colour shows nothing to learn from."
    assert (step.out / "verdict.json").read_bytes() == verdict

    step.run("good")
    assert not step.failed.exists()
    assert (step.out / "verdict.json").read_bytes() == verdict
    assert (step.out / "digest.txt").read_text().strip() == Dataset(step.root / "good").manifest.digest
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
        said = provable_in_words(60, 4, 0.05, place)
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
    assert said.startswith(provable_in_words(30, 4, 0.05))
    assert said.endswith(
        "(assumed: the first look; MLflow at here: experiment contrastive-looks: may not do this (403))"
    )


def test_what_else_ingest_tells_of_files_is_shown_and_asked_about(tmp_path, step, capsys):
    folder = make_dataset(tmp_path / "dataset", image_size=16)
    left = [{"path": f"notes/{number}.txt", "why": "is no image"} for number in range(25)]
    pd.DataFrame(left).to_parquet(folder / "left_out.parquet", index=False)
    near = {"split": "train", "row": 4, "path": "train/4.png", "label": 1, "twin_split": "test", "twin_row": 3}
    near |= {"twin_path": "test/3.png", "twin_label": 0, "kind": "mirrored", "similarity": 0.98}
    near |= {"labels_differ": True, "action": "kept", "conflict": False}
    pd.DataFrame([near]).to_parquet(folder / "near_copies.parquet")
    validate(folder, tmp_path / "validation", step.params)
    docs = tmp_path / "validation" / "docs"
    index = (docs / "index.html").read_text()
    assert "Files that were left out: 25" in index and "notes/19.txt" in index and "notes/20.txt" not in index
    assert len(pd.read_csv(docs / "findings" / "left_out.csv")) == 25
    figure = index[index.index('id="near_copies"') :].split("<figure>")[1].split("</figure>")[0]
    assert figure.count("data:image/webp") == 2 and "test/3.png" in figure and "train/4.png" in figure
    out = capsys.readouterr().out
    pair = "train: train/4.png and test/3.png (test): "
    assert f"warning: near_copies_have_one_label: {pair}labels_differ = True; expected False" in out
    assert f"warning: near_copies_lie_in_one_split: {pair}action = kept; expected not kept" in out

    pd.DataFrame([near | {"conflict": True}]).to_parquet(folder / "near_copies.parquet")
    with pytest.raises(UserError, match=r"near_copies_across_splits_have_one_label: train: train/4\.png and test/"):
        validate(folder, tmp_path / "validation", step.params)


@pytest.fixture
def drifting(tmp_path, step):
    """A function that validates a dataset after a champion that was trained on the good one."""
    accepted = tmp_path / "accepted"
    accepted.mkdir()
    statistics = dataset_statistics(Dataset(step.root / "good"))
    (accepted / DATASET_STATISTICS).write_text(statistics.model_dump_json())

    def _drifting(model, arrays, class_names=NAMES, sides=None):
        for name, images in (sides or {}).items():
            digests = [int(content_digest(image)[:16], 16) for image in images]
            np.save(accepted / name, np.array(sorted(digests), "uint64"))
        client = mlflow.MlflowClient()
        client.create_registered_model(model)
        version = client.create_model_version(model, accepted.as_uri()).version
        client.set_registered_model_alias(model, "champion", version)
        folder = write_dataset(tmp_path / "dataset", arrays, class_names)
        params = select(compose_params([f"registry.model_name={model}"])[0], "validate")
        return validate(folder, tmp_path / "validation", params)

    return _drifting


def test_a_dataset_like_the_champions_has_not_drifted(drifting, capsys):
    result = drifting("drift-none", make_arrays(COUNTS, image_size=16, seed=1))
    assert result.metrics["warnings"] == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "since drift-none version 1" in line]
    assert len(said) == 4


def test_what_changed_since_the_champion_is_told_in_words(drifting, tmp_path, capsys):
    arrays = make_arrays(COUNTS | {"unlabelled": 300}, image_size=16, seed=1)
    for split in ("unlabelled", "train", "validation", "test"):
        arrays[split][0][:] = arrays[split][0] * 0.8
    result = drifting("drift-some", arrays)
    failed = {found["expectation"] for found in result.details["expectations"] if not found["success"]}
    assert failed == {"as_many_images_as_before", "brightness_as_before"}
    out = capsys.readouterr().out
    said = r"since drift-some version 1: unlabelled: 60 → 300 images; brightness \d+ → \d+ of 255 \(\d\.\d standard"
    assert re.search(f"validate: {said}", out)
    assert "warning: as_many_images_as_before: unlabelled: images_ratio = 60 → 300 images; expected 0.5 to 2" in out
    assert "since drift-some version 1" in (tmp_path / "validation" / "docs" / "index.html").read_text()


def test_a_lost_class_is_critical_and_named(drifting, tmp_path):
    with pytest.raises(
        UserError, match=r"no_class_lost: .*: lost_classes = new: cubes; lost: rings; expected at most 0"
    ):
        drifting("drift-lost", make_arrays(COUNTS, image_size=16, seed=1), [*NAMES[:2], "cubes"])
    assert not (tmp_path / "validation").exists()


def test_images_that_change_sides_between_test_and_the_rest_are_critical_and_named(drifting):
    arrays = make_arrays(COUNTS, image_size=16, seed=1)
    test, train = arrays["test"][0], arrays["train"][0]
    # one of test was learned from and one is learned from now; a copy that was on both sides has not moved
    sides = {TRAINING_IMAGES: [test[4], test[7], train[3]], TEST_IMAGES: [test[7], train[6], *test[8:]]}
    said = (
        "test_images_stay: test: moved = 1 learned from, now in test, such as test/4.png; "
        "1 in test, now learned from, such as train/6.png; expected at most 0"
    )
    with pytest.raises(UserError, match=re.escape(said)):
        drifting("drift-moved", arrays, sides=sides)


def test_without_an_answer_of_the_registry_nothing_is_compared(tmp_path, step, monkeypatch):
    def away(*_):
        raise UserError("MLflow at here: does not answer")

    monkeypatch.setattr("components.shared.registry.accepted_dataset.find_champion", away)
    make_dataset(tmp_path / "dataset", image_size=16)
    result = validate(tmp_path / "dataset", tmp_path / "validation", step.params)
    assert result.details["drift"] == ["not compared: MLflow at here: does not answer"]


def test_a_page_that_did_not_fit_on_the_disk_is_one_line(tmp_path, step, monkeypatch):
    """Great Expectations logs it and goes on."""
    store = great_expectations.data_context.store.tuple_store_backend.TupleFilesystemStoreBackend
    written = store._set

    def full(self, key, value, **arguments):
        page = Path(written(self, key, value, **arguments))
        if page.parent.parent.parent.name == "images":
            page.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "_set", full)
    make_dataset(tmp_path / "dataset", image_size=16)
    with pytest.raises(UserError, match="validation: No space left on device; nothing is left; make room"):
        validate(tmp_path / "dataset", tmp_path / "validation", step.params)
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_channels_are_measured_and_shown(step, channels):
    kind = {1: "grey", 4: "4 channels"}[channels]
    folder = make_dataset(step.root / kind, image_size=16, channels=channels)
    out = step.root / f"validation {channels}"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(step.root)
        assert validate(folder, out, step.params).metrics["critical"] == 0
    assert json.loads((out / "schema.json").read_text())["image"]["shape"] == [16, 16, channels]
    images = Dataset(folder).images("train")
    statistics = json.loads((out / "statistics.json").read_text())["train"]
    assert statistics["mean"] == pytest.approx(images.mean(), abs=1e-3)
    page = (out / "docs" / "index.html").read_text()
    assert f"16×16 pixels, {kind}" in page and "data:image/webp;base64," in page
    assert (out / "class_means.png").stat().st_size > 1000
