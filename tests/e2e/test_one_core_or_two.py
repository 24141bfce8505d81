"""With `runtime.threads` a result is the same wherever it is trained: on one core, or side by side on two."""

from __future__ import annotations

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from components.shared.training.side_by_side import cores
from tests.helpers.datasets import make_dataset
from tests.helpers.repository import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.skipif(len(cores()) < 2, reason="needs two cores")]

FAST = (
    *("runtime.threads=1", "runtime.replicates=[3,4]", "runtime.epochs=2", "encoder.width=8", "method=simclr"),
    *("supervised.search.epochs=[4]", "supervised.search.weight_decays=[0.0001]"),
    *("supervised.search.learning_rates=[0.003]", "supervised.search.augmentations=[weak]"),
    "probe.label_budgets=[1]",
)
# the steps that learn, in a process that may use some cores
PROGRAM = """
import os, sys
from pathlib import Path
os.sched_setaffinity(0, [int(core) for core in sys.argv[3:]])
from benchmarks.whole_runs import run
# the baseline trains as fine-tuning does
given = {"dataset": Path(sys.argv[1]), "validation": Path(), "baseline": Path()}
run(sys.argv[2].split(" "), Path.cwd(), given, until="finetune")
"""


def trained(folder, dataset, on):
    """What they write."""
    folder.mkdir()
    subprocess.run(
        [sys.executable, "-c", PROGRAM, str(dataset), " ".join(FAST), *map(str, on)],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True,
    )  # fmt: skip
    return folder


def test_one_core_and_two_train_the_same_models(tmp_path):
    dataset = make_dataset(tmp_path / "dataset", image_size=16)
    here = sorted(cores())
    one, two = (trained(tmp_path / name, dataset, on) for name, on in (("one", here[:1]), ("two", here[:2])))
    for name in ("search/baseline.json", "search/finetune.json", "search/probe.json", "encoder/curves.csv"):
        assert (one / name).read_text() == (two / name).read_text(), name
    for seed in (3, 4):
        for model in (f"encoder/{seed}/encoder.keras", f"finetune/{seed}/classifier.keras"):
            weights = (keras.models.load_model(folder / model).get_weights() for folder in (one, two))
            for found, expected in zip(*weights, strict=True):
                np.testing.assert_array_equal(found, expected)
    for name in ("search/finetune.npz", "probe/predictions.npz"):
        with np.load(one / name) as found, np.load(two / name) as expected:
            for array in expected.files:
                np.testing.assert_array_equal(found[array], expected[array])
