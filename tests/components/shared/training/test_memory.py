"""Sub-batches that are equal, and batches that fit into memory."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace

import pytest

from components.shared.errors import UserError
from components.shared.params.composing import compose_params
from components.shared.training import memory
from components.shared.training.memory import free_bytes, require_memory, step_bytes, sub_batches
from models import methods
from tests.helpers.options import method, network


def runtime(batch_size, sub_batch):
    size = "null" if sub_batch is None else sub_batch
    return compose_params([f"runtime.batch_size={batch_size}", f"runtime.sub_batch={size}"])[0].runtime


@pytest.mark.parametrize(
    ("batch_size", "sub_batch", "images", "parts"),
    [(512, None, 9000, 1), (512, 128, 9000, 4), (512, 512, 9000, 1), (512, 600, 9000, 1), (512, 100, 300, 3)],
)
def test_a_step_is_cut_into_equal_parts(batch_size, sub_batch, images, parts):
    assert sub_batches(runtime(batch_size, sub_batch), images) == parts


@pytest.mark.parametrize(
    ("images", "devices", "message"),
    [
        (9000, 1, "a step's 512 images can't be cut into equal parts of it; set 64"),
        # the dataset is smaller than the batch
        (300, 1, "a step's 300 images can't be cut into equal parts of it; set 100"),
        (9000, 8, "a step's 512 images can't be cut into equal parts of it, shared out over 8 devices; set 64"),
    ],
)
def test_other_parts_are_refused_with_those_that_would_do(monkeypatch, images, devices, message):
    monkeypatch.setattr(memory, "devices", lambda: devices)
    with pytest.raises(UserError, match=r"^runtime\.sub_batch = 112: ") as error:
        sub_batches(runtime(512, 112), images)
    assert str(error.value) == f"runtime.sub_batch = 112: {message}"


@pytest.fixture(scope="module")
def model():
    """SimCLR with the conv encoder of width 128, on images of 32 pixels."""
    return methods.build(network("conv", 32, width=128), method("simclr"), 10, seed=0)


def test_a_step_takes_about_what_was_measured(model):
    # docs/performance.md: 3,068 MiB above the process at rest, and 793 for a quarter of the batch
    for batch, measured in ((4096, 3068), (1024, 793)):
        assert memory.SURE < measured / (step_bytes(model, (32, 32, 3), batch, 1) / 2**20) < 1 / memory.SURE


def test_a_batch_that_does_not_fit_is_refused_with_what_does(model, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 2 * 2**30)
    require_memory(model, (32, 32, 3), 2048)
    with pytest.raises(UserError) as error:
        require_memory(model, (32, 32, 3), 4096)
    assert re.fullmatch(
        r"runtime\.batch_size = 4096: a step takes some 3\.\d GiB, and 2\.0 GiB are free; "
        r"set runtime\.batch_size = 2048, or runtime\.sub_batch = 1024",
        str(error.value),
    )
    monkeypatch.setattr(memory, "free_bytes", lambda: 2**20)
    with pytest.raises(UserError, match="set a smaller encoder"):
        require_memory(model, (32, 32, 3), 4096)
    # nothing tells how much there is
    monkeypatch.setattr(memory, "free_bytes", lambda: None)
    require_memory(model, (32, 32, 3), 10**9)


def test_free_memory_is_the_least_that_machine_and_container_have(tmp_path):
    assert free_bytes(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal:  9000 kB\nMemAvailable:    4000 kB\n")
    assert free_bytes(tmp_path) == 4000 * 1024
    group = tmp_path / "sys" / "fs" / "cgroup"
    group.mkdir(parents=True)
    (group / "memory.stat").write_text("anon 1000000\nfile 700000\n")
    (group / "memory.max").write_text("max\n")
    assert free_bytes(tmp_path) == 4000 * 1024
    (group / "memory.max").write_text("3000000\n")
    # what only lies in the cache can be given back
    assert free_bytes(tmp_path) == 2_000_000
    (group / "memory").mkdir()
    (group / "memory" / "memory.limit_in_bytes").write_text("1500000\n")
    (group / "memory" / "memory.stat").write_text("rss 1\ntotal_rss 1200000\n")
    assert free_bytes(tmp_path) == 300_000


def test_of_a_graphics_card_jax_tells_its_own_memory(monkeypatch):
    card = SimpleNamespace(memory_stats=lambda: {"bytes_limit": 80, "bytes_in_use": 30})
    monkeypatch.setattr(memory, "count_cards", lambda: 1)
    assert free_bytes() is None
    monkeypatch.setattr(memory.keras.backend, "backend", lambda: "jax")
    monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(local_devices=lambda: [card]))
    assert free_bytes() == 50
