"""What the tests of the losses share: values and gradients on the current backend, and made-up embeddings."""

from __future__ import annotations

import keras
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from keras import ops

few = settings(max_examples=20, deadline=None)
SEED = st.integers(0, 2**32 - 1)
TEMPERATURE = st.floats(0.05, 5)


def value(loss, *inputs, **options):
    """A loss of NumPy arrays, as a float."""
    return float(loss(*(ops.convert_to_tensor(x) for x in inputs), **options))


def as_numpy(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def gradients(loss, *inputs, dtype="float32", **options):
    """A loss and its gradients by the floating-point inputs, in their order; an unused one's is 0."""
    inputs = [ops.cast(x, dtype) if np.asarray(x).dtype.kind == "f" else ops.convert_to_tensor(x) for x in inputs]
    places = [i for i, x in enumerate(inputs) if keras.backend.standardize_dtype(x.dtype) == dtype]

    def of(*varied):
        full = list(inputs)
        for i, x in zip(places, varied, strict=True):
            full[i] = x
        return loss(*full, **options)

    found, slopes = GRADIENTS[keras.backend.backend()](of, [inputs[i] for i in places])
    return float(found), [as_numpy(slope) for slope in slopes]


def _tensorflow(of, inputs):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(inputs)
        loss = of(*inputs)
    return loss, tape.gradient(loss, inputs, unconnected_gradients="zero")


def _jax(of, inputs):
    import jax

    return jax.value_and_grad(of, argnums=tuple(range(len(inputs))))(*inputs)


def _torch(of, inputs):
    import torch

    inputs = [x.detach().requires_grad_() for x in inputs]
    loss = of(*inputs)
    if not loss.requires_grad:
        return loss, [torch.zeros_like(x) for x in inputs]
    return loss.detach(), torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)


GRADIENTS = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}


def central_differences(of, *inputs, step=1e-5):
    """Gradients of a float64 function by each of its arrays: (f(x + h) − f(x − h)) / 2h, entry by entry."""
    inputs = [np.asarray(x, float) for x in inputs]
    slopes = []
    for place, x in enumerate(inputs):
        slope = np.zeros_like(x)
        for index in np.ndindex(x.shape):
            moved = [[*inputs[:place], x.copy(), *inputs[place + 1 :]] for _ in range(2)]
            moved[0][place][index] += step
            moved[1][place][index] -= step
            slope[index] = (of(*moved[0]) - of(*moved[1])) / (2 * step)
        slopes.append(slope)
    return slopes


def assert_same_gradients(found, expected):
    """To a thousandth, or to float32's rounding of terms about 1 where they cancel."""
    scale = max(1.0, *(float(np.abs(slope).max()) for slope in expected))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * scale)


def rounded(x, dtype):
    """What is left of an array in a narrower type, in float64 for the transcription."""
    return np.asarray(as_numpy(ops.cast(x, dtype)), float)


def normal(rng, *shape):
    return rng.standard_normal(shape).astype("float32")


def two_views(n, width, seed, noise=0.5):
    rng = np.random.default_rng(seed)
    z1 = normal(rng, n, width)
    return z1, z1 + np.float32(noise) * normal(rng, n, width)


def rotation(width, seed):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((width, width)))[0].astype("float32")


def scales(n, seed):
    """One factor for each row, from 1e-6 to 1e6."""
    return 10 ** np.random.default_rng(seed).uniform(-6, 6, (n, 1)).astype("float32")
