"""How a step's images are cut where it is to take less memory."""

from __future__ import annotations

from components.shared.errors import UserError
from components.shared.params.schema import RuntimeParams
from models.training import devices


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
