"""Whether a step of pretraining fits into memory, and how its images are cut where it is to take less."""

from __future__ import annotations

import importlib
import math
import re
from pathlib import Path
from typing import Any

import keras

from components.shared.errors import UserError
from components.shared.params.schema import RuntimeParams
from components.shared.training.devices import count_cards
from models.layers import layers_of
from models.methods import Method
from models.training import devices

# What a step takes at the least, as a fraction of `step_bytes`, whose error docs/performance.md tells: what may fit
# is not refused.
SURE = 0.7
# a container's limit, and the name of what can't be given back, by Linux's control groups: version 2, and version 1
GROUPS = (
    ("memory.max", "memory.stat", "anon"),
    ("memory/memory.limit_in_bytes", "memory/memory.stat", "total_rss"),
)


def sub_batches(runtime: RuntimeParams, images: int) -> int:
    """In how many parts a step's images go through the encoder.

    Args:
        runtime: how large.
        images: to train on.

    Raises:
        UserError: the parts would not be equal, or could not be shared out over the devices.
    """
    batch, size = min(runtime.batch_size, images), runtime.sub_batch
    if size is None or size >= batch:
        return 1
    if batch % size == 0 and size % devices() == 0:
        return batch // size
    fitting = [n for n in range(devices(), batch + 1, devices()) if batch % n == 0]
    nearest = max((n for n in fitting if n <= size), default=fitting[0])
    shared = f", shared out over {devices()} devices" if devices() > 1 else ""
    raise UserError(
        f"runtime.sub_batch = {size}: a step's {batch} images can't be cut into equal parts of it{shared}; "
        f"set {nearest}"
    )


def require_memory(model: Method, image_shape: tuple[int, ...], batch: int) -> None:
    """Refuse a batch whose step can't fit.

    Args:
        model: built, with its optimiser.
        image_shape: height, width and channels.
        batch: images of a step.

    Raises:
        UserError: tells what would fit. Not where the estimate may be wrong, or free memory is not known.
    """
    free = free_bytes()
    needed = step_bytes(model, image_shape, batch, model.sub_batches)
    if free is None or needed * SURE <= free:
        return
    sizes = [devices() * 2**power for power in range(batch.bit_length())]
    whole = max((n for n in sizes if n < batch and step_bytes(model, image_shape, n, 1) <= free), default=0)
    cut = max(
        (n for n in sizes if batch % n == 0 and step_bytes(model, image_shape, batch, batch // n) <= free),
        default=0,
    )
    fitting = [f"runtime.batch_size = {whole}"] * (whole > 1) + [f"runtime.sub_batch = {cut}"] * (cut > 0)
    raise UserError(
        f"runtime.batch_size = {batch}: a step takes some {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are "
        f"free; set {', or '.join(fitting) or 'a smaller encoder'}"
    )


def step_bytes(model: Method, image_shape: tuple[int, ...], batch: int, parts: int) -> int:
    """An estimate of what a step takes on each device, beside the model and its optimiser's state.

    Counted are the outputs of the encoder's layers that have weights, which the gradient needs, two more of the
    largest, the views, the similarities of all embeddings and the gradients. What is between, kernels overwrite.

    Args:
        model: built.
        image_shape: height, width and channels.
        batch: images of a step.
        parts: of them, that go through the encoder one after another.
    """
    # told for the images, where views have another size
    area = ((model.policy.size or image_shape[0]) / image_shape[0]) ** 2
    layers = layers_of(model.encoder)
    kept = area * sum(math.prod(layer["output"]) for layer in layers if layer["weights"])
    largest = area * max(math.prod(layer["output"]) for layer in layers)
    size = 2 if "16" in model.encoder.compute_dtype else 4
    views = model.views * batch
    per_device = -(-views // devices())
    activations = -(-per_device // parts) * (kept + 2 * largest) * size
    gradients = sum(math.prod(variable.shape) for variable in model.trainable_variables)
    return int(activations + 4 * (3 * per_device * (area * math.prod(image_shape) + views) + gradients))


def free_bytes(root: Path = Path("/")) -> int | None:
    """Memory that a training may still take: of a graphics card where there is one, else of the processor.

    Args:
        root: where Linux tells it.

    Returns:
        The least that the machine and the container have; None where nothing tells it.
    """
    if count_cards():
        # TensorFlow does not tell how much a card has
        if keras.backend.backend() != "jax":
            return None
        jax: Any = importlib.import_module("jax")
        told = jax.local_devices()[0].memory_stats() or {}
        return int(told["bytes_limit"] - told["bytes_in_use"]) if "bytes_limit" in told else None
    found = []
    machine = re.search(r"^MemAvailable:\s+(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    if machine:
        found.append(int(machine[1]) * 1024)
    for limit, used, name in GROUPS:
        most = _text(root / "sys/fs/cgroup" / limit).strip()
        taken = re.search(rf"^{name} (\d+)", _text(root / "sys/fs/cgroup" / used), re.MULTILINE)
        if most.isdigit() and taken:
            found.append(max(0, int(most) - int(taken[1])))
    return min(found, default=None)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
