"""Whole runs in a folder that is worked in again."""

from __future__ import annotations

import json

from benchmarks.whole_runs import adopt
from components.shared.artifacts import Dataset
from tests.helpers.datasets import make_dataset


def test_encoders_are_taken_over_again_where_they_were_before(tmp_path):
    dataset = make_dataset(tmp_path / "dataset", image_size=16)
    (tmp_path / "pretrained").mkdir()
    (tmp_path / "pretrained" / "result.json").write_text('{"dataset_digest": "another", "seed": 3}')
    for _ in range(2):
        out = adopt(tmp_path / "pretrained", dataset, tmp_path / "encoder")
    digest = Dataset(dataset).manifest.digest
    assert json.loads((out / "result.json").read_text()) == {"dataset_digest": digest, "seed": 3}
