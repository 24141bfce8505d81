"""The benchmark for a graphics card keeps to its time, counts what a network costs, and runs on a processor too."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import keras
import pytest

from benchmarks.gpu import forward_operations, measured, table
from benchmarks.speed.turns import MARK
from tests.helpers.repository import ROOT, on_jax


def answers(program, seconds):
    """What a process that runs a program says in its time."""
    return list(measured([sys.executable, "-c", program], seconds, subprocess.DEVNULL))


def test_what_a_part_says_counts_also_where_it_is_ended_or_fails():
    said = f"print({MARK + json.dumps({'batch': 512})!r}, flush=True); print('chatter', flush=True); "
    start = time.perf_counter()
    assert answers(f"{said} import time; time.sleep(60)", 3) == [{"batch": 512}, {"error": "out of time"}]
    assert time.perf_counter() - start < 30
    assert answers(f"{said} raise SystemExit(3)", 60) == [{"batch": 512}, {"error": "exit code 3; see gpu.log"}]
    assert answers(said, 60) == [{"batch": 512}]


def test_operations_are_those_of_convolutions_and_dense_layers_within_networks_too():
    inner = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(5, 3, strides=2), keras.layers.Flatten()])
    outer = keras.Sequential([keras.Input((8, 8, 3)), inner, keras.layers.Dense(7)])
    assert forward_operations(outer) == 2 * (3 * 3 * 5 * 3 * 3 * 3 + 45 * 7)


def test_the_table_gives_the_share_of_the_peak_of_the_card_that_was_found():
    measured_rows = [
        {"part": "overhead", "device": "NVIDIA H100 80GB HBM3", "jax": "0.11.2"},
        {"part": "simclr", "batch": 512, "images_per_second": 51_200.0, "tflops": 98.9, "peak_mib": 2048.0},
        {"part": "torch", "error": "out of time"},
    ]
    _, _, device, simclr, torch = table(measured_rows)
    assert "device NVIDIA H100 80GB HBM3" in device
    assert simclr == "| simclr |  | 512 | 51,200 | 10 | 10.0% | 2,048 |  |"
    assert torch == "| torch |  |  |  |  |  |  | error out of time |"
    # of a card that nobody entered there is no peak
    assert "98.9" not in table(measured_rows[1:])[2]


@pytest.mark.slow
def test_it_runs_on_a_processor_at_sizes_that_tell_nothing(tmp_path):
    pytest.importorskip("jax")
    command = [sys.executable, "-m", "benchmarks.gpu"]
    subprocess.run([*command, "--prepare", str(tmp_path / "run")], cwd=ROOT, check=True, timeout=300)
    command += ["--prepared", str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--quick", "--minutes", "20"]
    command += ["--only", "overhead", "simclr", "accuracy"]
    done = subprocess.run(command, cwd=ROOT, env=on_jax(), capture_output=True, text=True, check=True, timeout=1200)
    rows = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert not [row for row in rows if "error" in row]
    assert {row.get("what") for row in rows if row["part"] == "overhead"} == {None, "whole epochs", "step by step"}
    assert [row["same"] for row in rows if "same" in row] == [True]
    assert [row["batch"] for row in rows if row["part"] == "simclr" and "tflops" in row] == [16, 32]
    assert 0 <= rows[-1]["accuracy"] <= 1
    assert all(f"| {row['part']} |" in done.stdout for row in rows)
