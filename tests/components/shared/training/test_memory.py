"""Sub-batches that are equal, and batches that fit into memory."""

from __future__ import annotations

import pytest

from components.shared.errors import UserError
from components.shared.params.composing import compose_params
from components.shared.training import memory
from components.shared.training.memory import sub_batches


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
