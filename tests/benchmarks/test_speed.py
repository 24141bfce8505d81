"""The benchmark of speed runs: all that is the project's own, on a network that costs nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.helpers.repository import ROOT


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "contenders"),
    [("overhead", ["recipe", "ours bf16"]), ("augmentation", ["ours f32"])],
)
def test_it_measures_each_contender_and_writes_what_it_prints(tmp_path, what, contenders):
    out = tmp_path / "speed.json"
    works = ["--works", "conv-32"] if what == "augmentation" else []
    command = [
        *(sys.executable, "-m", "benchmarks.speed", "--what", what, *works, "--contenders", *contenders),
        *("--rounds", "2", "--seconds", "0.1", "--out", str(out)),
    ]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300).stdout
    found = json.loads(out.read_text())
    rows = found["tiny" if what == "overhead" else "conv-32"]
    assert [row["contender"] for row in rows] == contenders
    assert rows[0]["ratio"] == 1.0
    for row in rows:
        low, high = row["range"]
        assert 0 < low <= row["images_per_second"] <= high
        assert len(row["rates"]) == 2
        assert f"| {row['contender']} | {row['images_per_second']:,.0f} |" in printed
    assert found["cores"] >= 1
