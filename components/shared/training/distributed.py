"""One training by several processes, such as the nodes of a Kubeflow Trainer job: who is who, and who writes.

A job tells each process its rank in three variables of the environment: `JAX_COORDINATOR_ADDRESS` (host:port of
process 0), `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`. Without them there is one process.
"""

from __future__ import annotations

import os
from functools import cache

from components.shared.errors import UserError

COUNT, RANK, ADDRESS = "JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "JAX_COORDINATOR_ADDRESS"


def rank_and_count() -> tuple[int, int]:
    """This process's number, from 0, and how many there are.

    Raises:
        UserError: the environment names no such numbers.
    """
    count = _number(COUNT, "1", "a whole number ≥ 1", least=1)
    if count == 1:
        return 0, 1
    return _number(RANK, "", f"a whole number from 0 to {count - 1}, as {COUNT} = {count}", most=count - 1), count


def is_chief() -> bool:
    """Whether this process is the one that writes and tracks."""
    return rank_and_count()[0] == 0


def require_single(step: str) -> None:
    """Refuse that several processes do a step's work.

    Raises:
        UserError: there are several.
    """
    count = rank_and_count()[1]
    if count > 1:
        raise UserError(f"{COUNT} = {count}: only pretrain runs in several processes; run {step} in one")


@cache
def initialize() -> None:
    """Join the other processes once, before Keras computes anything; waits until all are there.

    Raises:
        UserError: Keras runs on another backend than JAX, or the address is missing.
    """
    index, count = rank_and_count()
    if count == 1:
        return
    # imported here: every step asks whether it is alone, and most learn nothing
    import keras

    backend, address = keras.backend.backend(), os.environ.get(ADDRESS, "")
    if backend != "jax":
        raise UserError(f"{COUNT} = {count}: Keras on {backend} trains in one process; set KERAS_BACKEND=jax")
    if ":" not in address:
        raise UserError(f"{ADDRESS} = {address!r}: must be host:port of process 0, as {COUNT} = {count}")
    # a seed that is set keeps Keras from agreeing on one; each training sets its own
    keras.utils.set_random_seed(0)
    keras.distribution.initialize(address, count, index)


def all_gather(value: int) -> list[int]:
    """The values of all processes; each must ask."""
    if rank_and_count()[1] == 1:
        return [value]
    import numpy as np
    from jax.experimental import multihost_utils

    return [int(found) for found in np.ravel(multihost_utils.process_allgather(np.array(value)))]


def _number(name: str, default: str, allowed: str, least: int = 0, most: int = 2**31) -> int:
    text = os.environ.get(name, default)
    if not text.isdecimal() or not least <= int(text) <= most:
        raise UserError(f"{name} = {text!r}: must be {allowed}")
    return int(text)
