"""On a graphics card JAX trains an epoch in one call: the same mathematics, order and views as step by step."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from models import whole_epochs
from models.batches import Batches
from models.whole_epochs import fits_on_card
from tests.helpers.repository import ROOT, on_jax


def test_whole_epochs_end_where_single_steps_do_and_go_on_bit_by_bit(tmp_path):
    pytest.importorskip("jax")
    script = ROOT / "tests" / "helpers" / "whole_epochs_on_jax.py"
    # its labels, its queue and its second network: all that a method keeps
    done = subprocess.run(
        [sys.executable, str(script), "moco"], capture_output=True, text=True, timeout=600,
        env=on_jax(tmp_path / "compiled", devices=1),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["moco"]


@pytest.mark.parametrize(
    ("device", "shared", "room", "fits"),
    [
        ("gpu:0", False, 4 * 96, True),
        ("gpu:0", False, 4 * 96 - 4, False),
        ("gpu:0", True, 4 * 96, False),
        ("cpu:0", False, 4 * 96, False),
    ],
)
def test_images_lie_on_the_card_where_one_has_room_for_them(monkeypatch, device, shared, room, fits):
    jax = pytest.importorskip("jax")

    class Card:
        def memory_stats(self):
            return {"bytes_limit": room}

    monkeypatch.setattr(whole_epochs.keras.distribution, "list_devices", lambda: [device])
    monkeypatch.setattr(whole_epochs.keras.distribution, "distribution", lambda: object() if shared else None)
    monkeypatch.setattr(jax, "devices", lambda: [Card()])
    # 96 bytes, and a quarter of the card is for images
    batches = Batches([(np.zeros((8, 2, 2, 3), "uint8"), np.zeros(8, "int64"))], 2, 0)
    assert batches.nbytes == 96
    assert fits_on_card(batches) is fits
