"""A few steps of a method with its batch in sub-batches and whole.

    KERAS_BACKEND=jax python tests/helpers/sub_batch_numbers.py [DEVICES]

compares all methods on one backend, and prints how many there were; with DEVICES one of them, whose sub-batches are
shared out over so many.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from components.shared.training.backend import start_backend

start_backend()

import keras  # noqa: E402
import numpy as np  # noqa: E402

from components.shared.training.devices import on_devices  # noqa: E402
from models.kernels import fuse  # noqa: E402
from models.training import jit  # noqa: E402
from tests.helpers.method_cases import FILES, batch, build, options  # noqa: E402

STEPS, ROWS = 2, 8


def trained(file, sub_batches, eagerly=True, **changes):
    """Name → array: all variables, momentum's, queues and metrics among them, after some steps of SGD."""
    if "freeze_prototypes" in options(file):
        changes["freeze_prototypes"] = 0.0
    if "learnable_temperature" in options(file):
        changes["learnable_temperature"] = True
    model = build(file, sub_batches=sub_batches, **changes)
    fuse(model)
    # a step that is large enough for a wrong gradient to show
    model.compile(optimizer=keras.optimizers.SGD(0.05), run_eagerly=eagerly, jit_compile=not eagerly and jit())
    for step in range(STEPS):
        model.train_on_batch(*batch(step, rows=ROWS))
    # a metric counts what comes first, and rounding decides between equals
    counted = {id(variable) for variable in model.metrics_variables}
    return {
        # names of layers count how many there were
        f"{index} {variable.path.split('/')[-1]}": np.asarray(keras.ops.convert_to_numpy(variable))
        for index, variable in enumerate(model.variables)
        if id(variable) not in counted
    }


def assert_alike(found, expected, tolerance=1e-4):
    """All arrays differ by no more than a fraction of each one's largest entry."""
    assert list(found) == list(expected)
    for name, array in expected.items():
        largest = max(np.abs(array).max(initial=0), 1e-2)
        np.testing.assert_allclose(found[name], array, rtol=0, atol=tolerance * largest, err_msg=name)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        whole = trained("moco", 1, eagerly=False, normalized=False)
        with on_devices("numbers", int(sys.argv[1]), ROWS, "ROWS"):
            assert_alike(trained("moco", 2, eagerly=False, normalized=False), whole)
        print("compared", 1)
        sys.exit()
    for chosen in FILES:
        eager = chosen != "simclr"
        assert_alike(trained(chosen, 4, eager, normalized=False), trained(chosen, 1, eager, normalized=False))
    print("compared", len(FILES))
