"""Near-copies: each usual change of an image is found, other images are not."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.near_copies import CHANGES, changed, scenes
from components.shared.checks import near_copies as search
from components.shared.checks.near_copies import near_copies

COUNT = 60


@pytest.mark.parametrize("size", [24, 32, 64])
@pytest.mark.parametrize("change", CHANGES)
def test_each_change_is_found_and_nothing_else(size, change):
    images = scenes(COUNT, size)
    others = np.concatenate([changed(images[: COUNT // 2], change), scenes(COUNT, size, seed=1)])
    pairs = near_copies(images, others)
    assert (pairs["image"] == pairs["other"]).sum() >= 0.95 * COUNT // 2
    assert (pairs["image"] == pairs["other"]).all()
    expected = {"flip": "mirrored", "upside down": "upside down"}.get(change, "")
    assert set(pairs["change"]) == {expected}


def test_either_side_may_be_the_changed_one():
    images = scenes(COUNT, 32)
    for change in CHANGES:
        assert len(near_copies(changed(images, change), images)) >= 0.95 * COUNT


def test_within_one_set_each_pair_is_there_once():
    images = scenes(60, 32)
    images[50:] = changed(images[:10], "JPEG 75")
    pairs = near_copies(images)
    assert list(zip(pairs["image"], pairs["other"], strict=True)) == [(row, row + 50) for row in range(10)]


def test_many_images_are_compared_in_blocks():
    rng = np.random.default_rng(0)
    images, others = (rng.integers(0, 256, (count, 8, 8, 3), np.uint8) for count in (1500, 5000))
    images[[3, 1400]] = others[[4999, 17]]
    pairs = near_copies(images, others)
    assert list(zip(pairs["image"], pairs["other"], strict=True)) == [(3, 4999), (1400, 17)]


def test_blank_images_are_no_copies_of_each_other():
    blank = np.full((5, 32, 32, 3), 200, np.uint8)
    assert near_copies(blank).empty
    assert near_copies(blank, blank).empty


def test_of_images_that_all_look_alike_the_most_alike_are_compared(monkeypatch):
    monkeypatch.setattr(search, "AT_LEAST", 16)
    monkeypatch.setattr(search, "ONE_IN", 100)
    images = np.repeat(scenes(1, 32), 200, axis=0) + np.arange(200, dtype=np.uint8)[:, None, None, None] % 4
    images[150] = images[10]
    pairs = near_copies(images)
    assert 0 < len(pairs) <= len(search.CHANGES) * 200 * 200 / 100


def test_grey_images_with_one_channel_are_compared():
    images = scenes(30, 32)[..., :1]
    assert len(near_copies(images, images[:10])) == 10


def test_an_empty_set_has_no_pairs():
    images = scenes(3, 32)
    assert near_copies(images, images[:0]).empty
    assert near_copies(images[:0]).empty
