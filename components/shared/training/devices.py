"""Sharing out a training over the graphics cards of one node or several: one network, each batch in equal parts."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import keras

from components.shared.errors import UserError
from components.shared.training.distributed import COUNT, rank_and_count

FIELD = "runtime.devices"
# what a processor says of itself where it multiplies in half precision
HALF_PRECISION = {"amx_bf16", "avx512_bf16"}


@contextmanager
def on_devices(step: str, wanted: int | Literal["auto"], batch: int, field: str) -> Iterator[int]:
    """Build and train models in this block on several devices at once.

    Every variable is kept on each device and each batch is shared out in equal parts. One compiled step spans them
    all, so that losses, queues and the statistics of batch normalisation see the whole batch as on one device; the
    numbers differ by the rounding of other orders of sums.

    Args:
        step: the step's name, for what is told.
        wanted: `runtime.devices`, of each node.
        batch: images of a training step, all devices together.
        field: the parameter that says so.

    Yields:
        The number of devices, of all nodes together.

    Raises:
        UserError: Keras runs on a backend that trains on one device only, there are not so many devices, or the
            batch can't be shared out equally.
    """
    nodes = rank_and_count()[1]
    count = _number(step, wanted, batch, field, nodes)
    if count * nodes == 1:
        yield 1
        return
    # in the order of the processes
    names = keras.distribution.list_devices()
    here = len(names) // nodes
    chosen = [name for first in range(0, len(names), here) for name in names[first : first + count]]
    # each process reads its own part of a batch
    with keras.distribution.DataParallel(devices=chosen, auto_shard_dataset=False).scope():
        yield len(chosen)


def _number(step: str, wanted: int | Literal["auto"], batch: int, field: str, nodes: int = 1) -> int:
    """Devices of each node."""
    if batch % nodes:
        raise UserError(
            f"{COUNT} = {nodes}: a batch of {batch} images can't be shared out equally; "
            f"set {field} = {max(1, batch // nodes) * nodes}"
        )
    batch, a_node = batch // nodes, " a node" if nodes > 1 else ""
    if wanted == 1:
        return 1
    backend = keras.backend.backend()
    there, cards = _devices(backend)
    there //= nodes
    # processors are cut into several devices for tests; nobody gains by it
    most = there if cards else 1
    if backend != "jax" and (wanted != "auto" or most > 1):
        found = f" ({there} GPUs are here)" if wanted == "auto" else ""
        raise UserError(
            f"{FIELD} = {wanted}{found}: Keras on {backend} trains on one device; "
            f"set KERAS_BACKEND=jax to use several, or {FIELD} = 1"
        )
    if wanted == "auto":
        count = _largest(most, batch)
        if count < most:
            print(
                f"{step}: {count} of {most} GPUs: a batch of {batch} images{a_node} ({field}) can't be shared out "
                "equally over more",
                flush=True,
            )
        return count
    if wanted > there:
        raise UserError(f"{FIELD} = {wanted}: there {_amount(there, cards)} here; lower it, or set it to auto")
    if batch % wanted:
        other = f"set {field} = {(batch - batch % wanted) * nodes}, or " if batch > wanted else "set "
        raise UserError(
            f"{FIELD} = {wanted}: a batch of {batch} images{a_node} can't be shared out equally; "
            f"{other}{FIELD} = {_largest(wanted, batch)}"
        )
    return wanted


def devices_here() -> int:
    """How many devices the block `on_devices` around shares a training out over; outside of one: 1."""
    distribution = keras.distribution.distribution()
    return 1 if distribution is None else int(distribution.device_mesh.devices.size)


def count_cards() -> int:
    """How many graphics cards Keras's backend has, on all nodes."""
    count, cards = _devices(keras.backend.backend())
    return count if cards else 0


def peak_bytes() -> int | None:
    """The most memory that this process ever had of one graphics card; None where none tells."""
    if not count_cards():
        return None
    backend = keras.backend.backend()
    if backend == "jax":
        jax: Any = importlib.import_module("jax")
        told = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in jax.local_devices()]
    elif backend == "tensorflow":
        import tensorflow as tf

        cards = range(len(tf.config.list_physical_devices("GPU")))
        told = [tf.config.experimental.get_memory_info(f"GPU:{card}")["peak"] for card in cards]
    else:
        torch: Any = importlib.import_module("torch")
        told = [torch.cuda.max_memory_allocated(card) for card in range(torch.cuda.device_count())]
    return max((int(peak) for peak in told if peak is not None), default=None)


def precision_here(precision: str, processor: Path = Path("/proc/cpuinfo")) -> str:
    """What a training computes in here: float32 or bfloat16.

    Args:
        precision: one of these, or `auto`: bfloat16 on a graphics card, and with TensorFlow on a processor that
            multiplies in it; elsewhere half precision gains nothing.
        processor: where Linux tells what the processor can.
    """
    if precision != "auto":
        return precision
    if count_cards():
        return "bfloat16"
    if keras.backend.backend() != "tensorflow" or not processor.exists():
        return "float32"
    found = re.search(r"^flags\s*:(.*)$", processor.read_text(), re.MULTILINE)
    able = found is not None and not HALF_PRECISION.isdisjoint(found[1].split())
    return "bfloat16" if able else "float32"


def _devices(backend: str) -> tuple[int, bool]:
    """How many devices Keras's backend has, on all nodes, and whether they are graphics cards."""
    if backend == "torch":
        torch: Any = importlib.import_module("torch")
        cards = int(torch.cuda.device_count())
        return max(1, cards), cards > 0
    if backend == "tensorflow":
        import tensorflow as tf

        # unlike Keras's list, this one does not take the cards' memory
        cards = len(tf.config.list_physical_devices("GPU"))
        return max(1, cards), cards > 0
    names = keras.distribution.list_devices()
    return len(names), not names[0].startswith("cpu")


def _largest(most: int, batch: int) -> int:
    """The largest number of devices, at most `most`, that a batch can be shared out over."""
    return next(count for count in range(most, 0, -1) if batch % count == 0)


def _amount(count: int, cards: bool) -> str:
    name = "GPU" if cards else "device"
    return f"is 1 {name}" if count == 1 else f"are {count} {name}s"
