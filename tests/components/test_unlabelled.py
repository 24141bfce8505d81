"""Images without any label: they are ingested, checked, pretrained on and embedded; what needs labels says so."""

from __future__ import annotations

import shutil

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.baseline import baseline
from components.evaluate import evaluate
from components.finetune import finetune
from components.ingest import ingest
from components.pretrain import pretrain
from components.probe import probe
from components.search import search
from components.shared.artifacts import Dataset, Manifest, read_record
from components.shared.errors import UserError
from components.shared.params.composing import compose_params
from components.shared.params.schema import select
from components.validate import validate
from pipelines.inference.embed import embed_files
from tests.helpers.image_trees import encode, picture, write_tree

SMALL = (
    "data=folder", "data.image_size=12", "encoder=fast", "encoder.width=8", "method.projection.hidden=16",
    "method.projection.width=8", "runtime.batch_size=16", "runtime.epochs=2", "monitor.every=1",
)  # fmt: skip
REFUSED = r"dataset: no image has a label, so no classifier can be trained or measured; .*contrastive embed"


def params(step, path, *overrides):
    return select(compose_params([*SMALL, f"data.path={path}", *overrides])[0], step)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("images"), {"unlabelled/one": 20, "unlabelled/two": 12})


@pytest.fixture(scope="module")
def run(images, tmp_path_factory, tracking_uri):
    """A folder with `dataset/`, `validation/` and `encoder/`."""
    root = tmp_path_factory.mktemp("run")
    ingest(root / "dataset", params("ingest", images))
    validate(root / "dataset", root / "validation", params("validate", images))
    pretrain(root / "dataset", root / "encoder", params("pretrain", images), 0, root / "checkpoints")
    return root


def test_the_dataset_has_images_and_no_classes(run):
    manifest = read_record(run / "dataset", Manifest)
    assert manifest.counts == {"unlabelled": 32, "train": 0, "validation": 0, "test": 0}
    assert manifest.class_names == []
    assert set(Dataset(run / "dataset").files("unlabelled")["label"]) == {-1}


def test_what_is_checked_is_about_images_alone(run, images, capsys):
    validate(run / "dataset", run / "again", params("validate", images))
    said = capsys.readouterr().out
    assert "none critical fails" in said
    assert "without labels nothing can be proven" in said
    assert (run / "again" / "docs" / "index.html").exists()


def test_blank_unlabelled_images_still_stop_the_pipeline(tmp_path, images, tracking_uri):
    shutil.copytree(images, tmp_path / "images")
    for number in range(20):
        path = tmp_path / "images" / "unlabelled" / "one" / f"{number:04d}.png"
        path.write_bytes(encode(picture("x") * 0 + number))
    ingest(tmp_path / "dataset", params("ingest", tmp_path / "images"))
    with pytest.raises(UserError, match="few_blank_images"):
        validate(tmp_path / "dataset", tmp_path / "validation", params("validate", images))


def test_an_encoder_is_trained_and_embeds(run, images):
    curves = pd.read_csv(run / "encoder" / "curves.csv")
    assert curves["contrastive_loss"].notna().all()
    # a probe without labels has no accuracy, not one of 0
    assert not [name for name in curves.columns if name.startswith("probe_")]
    out = run / "features.parquet"
    assert embed_files([str(images)], str(run / "encoder" / "encoder.keras"), out) == 0
    features = pd.read_parquet(out)["features"]
    assert len(features) == 32
    assert {len(row) for row in features} == {len(features[0])}


def test_what_needs_labels_says_so_in_one_line(run, images, tmp_path):
    dataset, encoder, other = run / "dataset", run / "encoder", tmp_path / "none"
    steps = {
        "search": lambda given: search(dataset, encoder, tmp_path / "out", given, 0),
        "probe": lambda given: probe(dataset, encoder, other, tmp_path / "out", given, 0),
        "baseline": lambda given: baseline(dataset, other, tmp_path / "out", given, 0),
        "finetune": lambda given: finetune(dataset, encoder, other, tmp_path / "out", given, 0),
        "evaluate": lambda given: evaluate(dataset, *[other] * 6, tmp_path / "out", given),
    }
    for name, step in steps.items():
        with pytest.raises(UserError, match=REFUSED) as caught:
            step(params(name, images))
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_method_that_learns_from_labels_is_refused(run, images, tmp_path):
    with pytest.raises(UserError, match=r"method.name = supcon: learns from labels, and no image has one"):
        pretrain(run / "dataset", tmp_path / "encoder", params("pretrain", images, "method=supcon"), 0, tmp_path)


def test_a_budget_of_labels_is_refused(tmp_path, images):
    with pytest.raises(UserError, match=r"data.labels_per_class = 3: no image has a label; use null"):
        ingest(tmp_path / "dataset", params("ingest", images, "data.labels_per_class=3"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["unlabelled", "train"])
def test_parquet_without_labels(tmp_path, tracking_uri, name):
    rows = [{"bytes": encode(picture(str(i))), "path": None} for i in range(8)]
    columns = {"image": rows} | ({"label": [-1] * 8} if name == "train" else {})
    pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
    given = params("ingest", tmp_path, "data=parquet", "data.image_size=12")
    assert ingest(tmp_path / "dataset", given).counts["unlabelled"] == 8


def test_half_labelled_is_still_refused(tmp_path, images):
    shutil.copytree(images, tmp_path / "images")
    write_tree(tmp_path / "images", {"test/a": 3, "test/b": 3})
    with pytest.raises(UserError, match="no train/"):
        ingest(tmp_path / "dataset", params("ingest", tmp_path / "images"))
