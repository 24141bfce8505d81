"""Compare `models.kernels` with Keras's own layers on JAX: `KERAS_BACKEND=jax python kernels_on_jax.py`."""

from __future__ import annotations

import jax
import keras
import numpy as np

from models.kernels import fuse
from models.training import precision

LAYERS = {
    "padded": lambda: keras.layers.Conv2D(5, 3, padding="same"),
    "strided": lambda: keras.layers.Conv2D(5, 3, strides=2, activation="relu"),
    "strided and padded": lambda: keras.layers.Conv2D(5, (3, 2), strides=(2, 1), padding="same", use_bias=False),
    "one pixel": lambda: keras.layers.Conv2D(5, 1, strides=2),
    "pooled": lambda: keras.layers.MaxPooling2D(2),
    # what it does not know stays Keras's own
    "dilated": lambda: keras.layers.Conv2D(6, 3, dilation_rate=2),
    "overlapping": lambda: keras.layers.MaxPooling2D(3, 2, padding="same"),
}
KNOWN = {"padded", "strided", "strided and padded", "one pixel", "pooled"}
# 7 images are a prime number of them; in 4 of 96 pixels the patches of all are too many at once
SHAPES = ((7, 9, 8, 3), (4, 96, 96, 24))


def found(make, shape, fused):
    """Outputs, and the gradients of images and weights."""
    keras.utils.set_random_seed(1)
    network = keras.Sequential([keras.Input(shape[1:]), make()])
    if fused:
        fuse(network)
    images = np.random.default_rng(0).normal(size=shape).astype("float32")
    weights = [weight.value for weight in network.weights]

    def total(weights, images):
        outputs, _ = network.stateless_call(weights, [], images, training=True)
        upstream = np.random.default_rng(2).normal(size=outputs.shape)
        return (outputs * upstream).sum(), outputs

    gradients, outputs = jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))(weights, images)
    changed = {"convolution_op", "call"} & set(vars(network.layers[0]))
    return [np.asarray(each, "float32") for each in (outputs, gradients[1], *gradients[0])], bool(changed)


compared = 0
for name, make in LAYERS.items():
    for shape in SHAPES:
        (expected, _), (ours, changed) = (found(make, shape, fused) for fused in (False, True))
        assert changed == (name in KNOWN), name
        for one, other in zip(expected, ours, strict=True):
            # of the largest value: a sum over all pixels has the rounding of its largest terms
            np.testing.assert_allclose(other, one, rtol=1e-4, atol=2e-5 * np.abs(one).max(), err_msg=name)
        compared += 1
for name in sorted(KNOWN):
    with precision("bfloat16"):
        (expected, _), (ours, _) = (found(LAYERS[name], SHAPES[0], fused) for fused in (False, True))
    for one, other in zip(expected, ours, strict=True):
        # a bfloat16 has 8 bits
        assert np.abs(other - one).max() <= np.abs(one).max() / 64, name
print("compared", compared)
