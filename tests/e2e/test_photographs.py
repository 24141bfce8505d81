"""A folder of photographs as somebody would find it: one command, and a page that names each oddity."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest
from PIL import Image

from benchmarks.near_copies import scenes
from tests.helpers.project import make_project

pytestmark = pytest.mark.slow

SIZES = ((640, 480), (480, 640), (320, 240), (200, 200), (90, 120))
COUNTS = {"Training/daisy": 14, "Training/rose": 12, "Testing/daisy": 6, "Testing/rose": 6}


def write_photographs(root):
    """Mixed sizes, a text file, a copy, two broken files; splits by the names that people give them."""
    pixels = iter(scenes(sum(COUNTS.values()), 160))
    for folder, count in COUNTS.items():
        (root / folder).mkdir(parents=True)
        for index in range(count):
            image = Image.fromarray(next(pixels)).resize(SIZES[index % len(SIZES)])
            image.save(root / folder / f"IMG_{index:04d}.JPG", "JPEG", quality=92)
    (root / "notes.txt").write_text("Taken in May.")
    daisies, roses = root / "Training" / "daisy", root / "Training" / "rose"
    shutil.copyfile(daisies / "IMG_0003.JPG", daisies / "IMG_0003 (1).JPG")
    whole = (roses / "IMG_0000.JPG").read_bytes()
    (roses / "cut off.jpg").write_bytes(whole[: len(whole) // 3])
    (roses / "download.jpg").write_text("<html>404 Not Found</html>")
    return root


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """After the one command."""
    project = make_project(tmp_path_factory.mktemp("photographs"))
    write_photographs(project.root / "own" / "May photos")
    given = ["data=folder", "data.name=flowers", "data.path=own/May photos", "data.on_bad_image=skip"]
    project.run("python", "-m", "pipelines", "compose", *given)
    project.done = project.tried("dvc", "repro", "validate")
    assert project.done.returncode == 0, project.done.stderr
    return project


def test_every_image_is_in_the_split_that_its_folder_names(project):
    manifest = json.loads((project.root / "dataset" / "manifest.json").read_text())
    assert manifest["class_names"] == ["daisy", "rose"]
    counts = manifest["counts"]
    assert (counts["test"], counts["unlabelled"]) == (12, 0)
    assert counts["train"] + counts["validation"] == 14 + 12 + 1


def test_the_command_tells_what_it_left_out(project):
    for name in ("cut off.jpg", "download.jpg"):
        assert name in project.done.stderr
    assert "ingest: left out 3 files: 1 bad JPEG, 1 bad file, 1 .txt; all are in dataset/left_out.parquet" in (
        project.done.stdout
    )


def test_the_page_names_each_oddity_with_its_file(project):
    docs = project.root / "validation" / "docs"
    page = (docs / "index.html").read_text()
    assert "<h1>Fit to learn from</h1>" in page
    for name in ("notes.txt", "Training/rose/cut off.jpg", "Training/rose/download.jpg"):
        assert name in page
    copies = pd.read_csv(docs / "findings" / "near_copies.csv")
    (pair,) = copies.to_dict("records")
    assert {pair["path"], pair["twin_path"]} == {f"Training/daisy/IMG_0003{end}.JPG" for end in ("", " (1)")}
    assert (pair["kind"], pair["action"]) == ("copy", "kept together")
    for path in (pair["path"], pair["twin_path"]):
        assert path in page
    left = pd.read_csv(docs / "findings" / "left_out.csv").set_index("path")
    assert sorted(left.index) == ["Training/rose/cut off.jpg", "Training/rose/download.jpg", "notes.txt"]
    assert "what became of it" in page and "kept together" in page and "image file is truncated" in page
    # nothing of it comes from another server
    assert "http://" not in page and "https://" not in page
