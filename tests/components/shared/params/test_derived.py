"""What follows from other options, for us and for DVC alike: the name of data, and the size of views."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import yaml

from components.shared.params.composing import CONF, compose_params
from components.shared.params.derived import name_of, three_quarters
from components.shared.params.schema import DataParams
from tests.helpers.repository import ROOT

NAMES = {
    "own/photos": "photos",
    "own/photos/": "photos",
    "./photos.zip": "photos",
    "own/photos.tar.gz": "photos",
    "own/photos.TGZ": "photos",
    "own/photos.v2": "photos.v2",
    "data/photos/train.parquet": "train",
    "/mnt/My photos, 2026.zip": "My-photos-2026",
    "own/.hidden": "hidden",
    "own/фото.zip": "images",
    "..": "images",
    "https://user:secret@example.org/a/photos.zip?version=3": "photos",
    "https://example.org/my%20photos.zip": "my-photos",
    "s3://bucket/shards/": "shards",
    "gs://bucket": "bucket",
    "n" * 300: "n" * 100,
}


@pytest.mark.parametrize(("path", "name"), NAMES.items(), ids=[path[:40] for path in NAMES])
def test_a_name_is_the_last_part_of_the_path_as_far_as_a_name_can_hold_it(path, name):
    assert name_of(path) == name
    assert re.fullmatch(DataParams.model_fields["name"].metadata[0].pattern, name)


@pytest.mark.parametrize("data", ["folder", "parquet"])
def test_data_is_named_after_its_path_unless_told(data):
    params, _ = compose_params([f"data={data}", "data.path=own/my photos.zip"])
    assert (params.data.name, params.registry.model_name) == ("my-photos", "contrastive-my-photos")
    assert compose_params([f"data={data}", "data.path=own/photos.zip", "data.name=x"])[0].data.name == "x"


def test_dvc_composes_the_same(tmp_path):
    """As `dvc exp run -S` does, in a process that knows neither this project nor its command line."""
    asked = ["data=folder", "data.path=own/photos.zip"]
    program = (
        "import sys; from dvc.utils.hydra import compose_and_dump; "
        "conf, plugins, out, *asked = sys.argv[1:]; compose_and_dump(out, conf, None, 'config', plugins, asked)"
    )
    # DVC joins the repository and `hydra.plugins_path`, which is not set
    command = [sys.executable, "-P", "-c", program, str(CONF), f"{ROOT}/", str(tmp_path / "params.yaml"), *asked]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load((tmp_path / "params.yaml").read_text()) == compose_params(asked)[1]


@pytest.mark.parametrize(("images", "views"), [(96, 72), (32, 24), (24, 18), (22, 16), (20, None), (9, None)])
def test_views_have_three_quarters_of_the_images_side_where_enough_is_left(images, views):
    assert three_quarters(images) == views
    params, _ = compose_params(["data=folder", "data.path=own", f"data.image_size={images}"])
    assert params.method.augmentation.size == views


def test_networks_for_one_size_and_those_who_ask_have_views_as_large_as_the_images():
    for other in ("encoder=conv", "encoder=resnet18", "method.augmentation.size=null"):
        params, _ = compose_params(["data=folder", "data.path=own", other])
        assert params.method.augmentation.size is None
