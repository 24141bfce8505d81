"""What a step cost: measured, added up, told, and in nothing that must be equal between runs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from components.shared.artifacts import Result, input_digest, read_record
from components.shared.cost import Cost, Meter, in_words, read_cost, total
from components.shared.errors import UserError

ONE = Cost(cpu_seconds=7200, gpu_seconds=90, peak_mebibytes=512, watt_hours=27.5)


def test_a_meter_counts_this_process_and_those_that_it_started():
    meter, nothing = Meter("register"), Meter("register").read().cpu_seconds
    subprocess.run([sys.executable, "-c", "sum(range(3_000_000)); x = bytearray(64 << 20)"], check=True)
    cost = meter.read()
    assert cost.cpu_seconds > nothing + 0.01
    assert cost.gpu_seconds == 0 and cost.peak_mebibytes > 64
    assert cost.watt_hours == pytest.approx(cost.cpu_seconds * 10 / 3600, abs=1e-3)


def test_graphics_cards_count_for_the_steps_that_are_given_them(monkeypatch):
    import components.shared.training.devices  # noqa: F401

    monkeypatch.setattr("components.shared.training.devices.count_cards", lambda: 2)
    monkeypatch.setenv("WATTS_PER_GPU", "3600")
    monkeypatch.setenv("WATTS_PER_CPU", "0")
    now = [0.0]
    monkeypatch.setattr("components.shared.cost.time.monotonic", lambda: now[0])
    meters = {step: Meter(step) for step in ("pretrain", "evaluate")}
    monkeypatch.setattr("components.shared.training.devices.peak_bytes", lambda: 3 << 20)
    now[0] = 10.0
    cost = meters["pretrain"].read()
    assert (cost.gpu_seconds, cost.watt_hours, cost.device_peak_mebibytes) == (20, 20, 3)
    assert cost.model_dump()["device_peak_mebibytes"] == 3
    of_none = meters["evaluate"].read()
    assert of_none.gpu_seconds == 0 and of_none.device_peak_mebibytes is None
    assert "device_peak_mebibytes" not in of_none.model_dump()


@pytest.mark.parametrize("name", ["WATTS_PER_CPU", "WATTS_PER_GPU"])
@pytest.mark.parametrize("text", ["-1", "many", "nan", "1e9"])
def test_watts_are_checked_before_the_work(monkeypatch, name, text):
    monkeypatch.setenv(name, text)
    with pytest.raises(UserError, match=f"{name} = {text}: must be watts, 0 to 10,000"):
        Meter("pretrain")


def test_costs_are_added_up_and_told():
    other = Cost(cpu_seconds=30, gpu_seconds=0, peak_mebibytes=2048, watt_hours=0.1)
    both = total([ONE, None, other])
    assert both == Cost(cpu_seconds=7230, gpu_seconds=90, peak_mebibytes=2048, watt_hours=27.6)
    assert total([None]) is None
    assert in_words(both) == "2.0 h of a processor core, 1.5 min of a GPU, 2,048 MiB at most, some 27.6 Wh"
    assert in_words(other) == "0.5 min of a processor core, 2,048 MiB at most, some 0.1 Wh"
    assert read_cost(ONE.model_dump()) == ONE
    cards = [ONE.model_copy(update={"device_peak_mebibytes": peak}) for peak in (1500.0, 0.0)]
    assert [total([both, *cards]).device_peak_mebibytes, total(cards[1:]).device_peak_mebibytes] == [1500, 0]
    assert in_words(cards[0]).endswith("1.5 min of a GPU, 512 MiB at most, of a GPU 1,500 MiB, some 27.5 Wh")
    assert read_cost(cards[0].model_dump()) == cards[0]
    assert read_cost(None) is read_cost({"cpu_seconds": 1}) is None


def test_a_record_without_a_cost_is_read_and_no_digest_knows_of_it(tmp_path):
    record = dict(step="probe", params={}, params_digest="p", inputs={}, seconds=1.0, mlflow_run_id="r")
    digests = set()
    for name, more in (("older", {}), ("newer", {"cost": ONE.model_dump()})):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "classifier.keras").write_text("weights")
        (folder / "result.json").write_text(json.dumps({**record, **more, "dataset_digest": "d", "metrics": {}}))
        assert read_record(folder, Result).cost == (ONE if more else None)
        digests.add(input_digest(folder))
    assert len(digests) == 1
