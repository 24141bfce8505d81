"""The simulation of the gate: it runs, and knows a broken promise when it sees one."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.gate import LEVEL, TABLES, Images, Night, World, answer, draw_images, jobs, main, too_often


def test_simulated_answers_are_right_as_often_as_they_should_and_correlate():
    random = np.random.default_rng(0)
    right = answer(random, draw_images(random, 100_000), np.array([LEVEL, LEVEL, 0.5]))
    np.testing.assert_allclose(right.mean(axis=1), [LEVEL, LEVEL, 0.5], atol=0.006)
    assert np.corrcoef(right)[0, 1] == pytest.approx(0.47, abs=0.02)


def test_a_true_gain_is_as_many_standard_errors_as_it_says():
    world = World(400, 3, 1.0, 1.0, standard_errors=2.0)
    gains = []
    for number in range(400):
        night = Night(Images(world, world.random(number)))
        gains.append(night.test("finetune").mean() - night.test("baseline").mean())
    assert np.mean(gains) == pytest.approx(world.gain, abs=0.005)
    assert np.std(gains, ddof=1) == pytest.approx(world.gain / 2, rel=0.12)


def test_promises_broken_beyond_chance_are_found():
    row = {"table": "nights", "cases": 1000, "month": 0.05, "year": 0.06}
    assert too_often(row) == []
    assert too_often({**row, "year": 0.08}) == ["year 8.0% > 5%"]
    # one of two cases says nothing
    assert too_often({**row, "cases": 2, "month": 0.5, "year": 0.5}) == []


@pytest.mark.slow
def test_a_quick_run_prints_its_tables_last_and_writes_its_numbers(tmp_path, capsys):
    out = tmp_path / "gate.json"
    quick = ["champion", "artefact", "slices"]
    main(["--pairs", "2", "--processes", "1", "--out", str(out), "--tables", *quick])
    rows = json.loads(out.read_text())["rows"]
    assert {row["table"] for row in rows} == set(quick)
    assert len(rows) == sum(job.table in quick for job in jobs(2))
    printed = capsys.readouterr().out
    assert printed.index("cells, ") < printed.index(TABLES["champion"][0])
    assert "within Monte Carlo error" in printed


@pytest.mark.parametrize("table", ["null", "nights", "power"])
def test_every_kind_of_cell_goes_through_the_real_gate(table):
    cells = [job for job in jobs(5) if job.table == table]
    row, _ = min(cells, key=lambda job: job.arguments["world"].images * job.arguments["world"].replicates)()
    _, cell, rates = TABLES[table]
    assert set(cell) | set(rates) <= set(row)
    assert all(0 <= row[name] <= 1 for name in rates)
