"""Epochs of one call on a graphics card with JAX: the images lie on the card, and batches are row numbers.

Step by step, the host gathers each batch, moves it and starts the step: with a small network the card waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

if TYPE_CHECKING:
    from models.batches import Batches

# of the card's memory: the rest is for the network and what a step computes
SHARE = 0.25


class WholeEpochs(keras.utils.PyDataset):
    """One item an epoch: all images, their labels and the rows of each batch, in the order of the batches.

    Args:
        batches: what the training reads; their order counts, also when it is shuffled later.
    """

    def __init__(self, batches: Batches):
        super().__init__()
        import jax

        images, labels = batches.whole()
        # 32 bits, as JAX would make of them
        self._data = jax.device_put({"images": images, "labels": labels.astype("int32")})
        self._batches = batches

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> dict[str, Any]:
        rows = np.stack([self._batches.rows(step) for step in range(len(self._batches))])
        return {**self._data, "rows": rows.astype("int32")}


def fits_on_card(batches: Batches) -> bool:
    """Whether JAX trains on one graphics card, with room for all images."""
    if keras.distribution.distribution() is not None or keras.distribution.list_devices()[0].startswith("cpu"):
        return False
    import jax

    room = (jax.devices()[0].memory_stats() or {}).get("bytes_limit", 0)
    return batches.nbytes <= SHARE * room


def train_epoch(step: Callable[[Any, Any], tuple[Any, Any]], state: Any, data: dict[str, Any]) -> tuple[Any, Any]:
    """All steps of an epoch in one loop on the card.

    Args:
        step: Keras's training step on JAX: from the state of all variables and a batch to its logs and the state
            after it.
        state: before the first step.
        data: an item of `WholeEpochs`.

    Returns:
        The logs of the last step, which are means over the epoch, and the state after it.
    """
    import jax

    def one(state, rows):
        logs, state = step(state, (data["images"][rows], data["labels"][rows]))
        return state, logs

    state, logs = jax.lax.scan(one, state, data["rows"])
    return jax.tree.map(lambda values: values[-1], logs), state
