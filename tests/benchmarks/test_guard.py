"""The guard of the default run: what passes, and what is told."""

from __future__ import annotations

import json

import keras
import pytest

from benchmarks import guard
from models.encoders import deployable
from tests.helpers.gate import make_result, make_truth

SIZE = 24


@pytest.fixture
def finished(tmp_path):
    """A project's folder after a run, as far as the guard looks: its encoder has 4,608 + 4,608 operations."""
    accuracies = {name: [least, least + 0.02] for name, least in guard.LEAST.items()}
    steps = {
        "encoder": {"epochs": 18, "images": 4090},
        "baseline": {"optimisation_steps": 700},
        "finetune": {"optimisation_steps": 700},
    }
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "test.json").write_text(json.dumps({"accuracies": accuracies}))
    for name, details in steps.items():
        (tmp_path / name).mkdir()
        record(tmp_path, name, details)
    network = keras.Sequential([keras.Input((SIZE, SIZE, 3)), keras.layers.Conv2D(4, 1, use_bias=False)])
    pooled = keras.Sequential([network, keras.layers.GlobalAveragePooling2D()])
    pooled.build((None, SIZE, SIZE, 3))
    deployable(keras.Model(pooled.inputs, pooled.outputs)).save(tmp_path / "encoder" / "encoder.keras")
    return tmp_path


def record(folder, name, details):
    (folder / name / "result.json").write_text(make_result(name, make_truth(30), details=details).model_dump_json())


def test_the_operations_of_a_convolution_are_counted(finished):
    # 24 × 24 pixels, 3 channels to 4, a multiplication and an addition each; and the mean
    convolution = SIZE * SIZE * 3 * 4 * 2
    found = guard.operations(finished / "encoder" / "encoder.keras", SIZE)
    assert convolution <= found < 1.2 * convolution


def test_what_is_as_good_and_as_cheap_passes(finished):
    assert list(guard.worse(finished)) == []


def test_what_is_worse_or_dearer_is_told(finished, monkeypatch):
    (finished / "evaluation" / "test.json").write_text(
        json.dumps({"accuracies": {"probe": [0.8, 0.84], "finetune": [0.9], "baseline": [0.9]}})
    )
    record(finished, "finetune", {"optimisation_steps": 701})
    record(finished, "encoder", {"epochs": 19, "images": 4090})
    monkeypatch.setattr(guard, "MOST_OPERATIONS", 10)
    lines = list(guard.worse(finished))
    assert [line.split(":")[0] for line in lines] == ["probe", "encoder", "finetune", "encoder"]
    assert lines[0] == "probe: 82.0 % of the test images right; at least 83.0 % is asked for"
    assert lines[2] == "finetune: 701 optimisation steps; at most 700 are asked for"


def test_a_closed_test_set_is_worse(finished):
    (finished / "evaluation" / "test.json").unlink()
    assert any("stayed closed" in line for line in guard.worse(finished))
