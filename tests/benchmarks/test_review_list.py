"""The benchmark of many versions: what it fills in is a registry that the commands take for a real one."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.review_list import COMMANDS, MODEL, fill
from tests.helpers.repository import ROOT


@pytest.mark.slow
def test_it_measures_each_command_and_writes_what_it_prints(tmp_path):
    out = tmp_path / "found.json"
    command = [
        sys.executable,
        "-m",
        "benchmarks.review_list",
        "--versions",
        "60",
        "--rounds",
        "1",
        "--out",
        str(out),
    ]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=600).stdout
    found = json.loads(out.read_text())
    assert found["versions"] == 60
    for name in COMMANDS:
        ((seconds,), (processor,)) = found[name]["seconds"], found[name]["processor_seconds"]
        assert f"| `contrastive {name}` | {seconds:.2f} to {seconds:.2f} | {processor:.2f} to" in printed


def test_the_versions_are_listed_and_the_record_agrees(tmp_path, monkeypatch, capsys, tracking_uri):
    import mlflow

    from pipelines.__main__ import main

    monkeypatch.setenv("MLFLOW_TRACKING_URI", fill(tmp_path, 51))
    try:
        main(["review", "list", "--last", "1", "--json", "--model", MODEL])
    finally:
        mlflow.set_tracking_uri(tracking_uri)
    shown = json.loads(capsys.readouterr().out)
    rows = {row["version"]: row for row in shown["versions"]}
    assert {number: row["status"] for number, row in rows.items()} == {
        **{"51": "challenger", "50": "champion", "1": "previous-champion"}
    }
    assert (rows["50"]["decision"]["action"], rows["50"]["look"], rows["50"]["gain"]) == ("approve", 1.0, 0.244)
    (note,) = shown["notes"]
    assert note.startswith("the alias previous-champion is at no version")
