"""A processor's own kernels for layers that Keras writes out in many small operations: the same mathematics."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import MethodType

import keras

# float32 values that patches may fill at a time: 2 MiB, what a core's cache holds
_PATCHES = 2**19


def fuse(network: keras.Model) -> None:
    """Let the layers of a network that is only trained here, and not saved, compute as suits a processor.

    On TensorFlow batch normalisation and GELU pass over their values a dozen times in Keras's version, forwards and
    backwards: a quarter of a training step of the `fast` encoder or of ResNet-18 in bfloat16. JAX's compiler fuses
    those by itself, but the gradients of convolutions take it two to four times as long as the matrix products that
    they are. Layers, weights and configuration stay as they are, so that a copy made from the configuration has
    Keras's own version. Does nothing where there is a graphics card, on another backend, or where JAX shares out a
    batch.

    Args:
        network: built; its layers are changed in place, those of the networks within it too.
    """
    backend = keras.backend.backend()
    if backend not in ("tensorflow", "jax") or (backend == "jax" and keras.distribution.distribution() is not None):
        return
    if not all(device.startswith("cpu") for device in keras.distribution.list_devices()):
        return
    for layer in leaves(network):
        if backend == "jax":
            if type(layer) is keras.layers.Conv2D and _is_plain(layer):
                layer.convolution_op = MethodType(_convolution, layer)
            elif type(layer) is keras.layers.MaxPooling2D and _halving(layer):
                layer.call = MethodType(_max_pooling, layer)
        elif type(layer) is keras.layers.BatchNormalization and _fits(layer):
            layer.call = MethodType(_batch_normalization, layer)
        elif type(layer) is keras.layers.Activation and layer.activation is keras.activations.gelu:
            layer.call = _gelu


def leaves(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    """The layers that a network is made of, those of the networks within it in their place."""
    if not hasattr(layer, "layers"):
        yield layer
        return
    for part in layer.layers:
        yield from leaves(part)


def _fits(layer: keras.layers.BatchNormalization) -> bool:
    """Whether the kernel knows what the layer asks for: a channel axis that is the last of four."""
    plain = layer.scale and layer.center and not layer.renorm and not layer.synchronized
    return plain and len(layer.input_spec.axes) == 1 and layer.input_spec.ndim == 4 and layer.axis in (-1, 3)


def _batch_normalization(layer, inputs, training=None, mask=None):
    """As `keras.layers.BatchNormalization.call`."""
    if not training or not layer.trainable or mask is not None:
        return keras.layers.BatchNormalization.call(layer, inputs, training=training, mask=mask)
    import tensorflow as tf

    gamma, beta = (tf.cast(tf.convert_to_tensor(weight), "float32") for weight in (layer.gamma, layer.beta))
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=inputs, scale=gamma, offset=beta, mean=[], variance=[], epsilon=layer.epsilon, is_training=True
    )
    # the kernel's variance is the sample's; Keras keeps that of the batch
    count = tf.cast(tf.size(inputs) // inputs.shape[-1], "float32")
    variance *= (count - 1.0) / count
    for moving, value in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        moving.assign(moving * layer.momentum + value * (1.0 - layer.momentum))
    return outputs


def _gelu(inputs):
    """As `keras.activations.gelu`, exact, with a gradient that takes over what was computed forwards."""
    import tensorflow as tf

    @tf.custom_gradient
    def gelu(x):
        # in full precision: a processor takes twice as long for the error function in half precision
        values = tf.cast(x, "float32")
        below = 0.5 + 0.5 * tf.math.erf(values * math.sqrt(0.5))

        def gradient(upstream):
            density = tf.exp(-0.5 * tf.square(values)) * (1.0 / math.sqrt(2.0 * math.pi))
            return upstream * tf.cast(below + values * density, x.dtype)

        return tf.cast(values * below, x.dtype), gradient

    return gelu(inputs)


def _is_plain(layer: keras.layers.Conv2D) -> bool:
    return layer.groups == 1 and set(layer.dilation_rate) == {1} and layer.data_format == "channels_last"


def _convolution(layer, inputs, kernel):
    """As `keras.layers.Conv2D.convolution_op`, by matrix products over patches of a few images.

    XLA's own gradient of the kernel reaches an eighth of what a processor core can do, and that of the images too
    where strides leave pixels out; there its way forwards takes twice as long too, and without strides it is the
    faster one. The patches of all images at once would have to go through memory.
    """
    import jax
    import jax.numpy as jnp

    kernel = keras.ops.convert_to_tensor(kernel)
    height, width, channels, _ = kernel.shape
    strides = layer.strides
    pads = jax.lax.padtype_to_pads(inputs.shape[1:3], (height, width), strides, layer.padding.upper())
    rows, columns = (
        (size + sum(pad) - side) // stride + 1
        for size, pad, side, stride in zip(inputs.shape[1:3], pads, (height, width), strides, strict=True)
    )
    count = _divisor(len(inputs), max(1, _PATCHES // (rows * columns * height * width * channels)))

    def in_parts(values):
        return values.reshape(-1, count, *values.shape[1:])

    def forwards(images, kernel):
        if max(strides) == 1:
            return keras.layers.Conv2D.convolution_op(layer, images, kernel)
        outputs = jax.lax.map(lambda part: product(part, kernel), in_parts(images))
        return outputs.reshape(len(images), *outputs.shape[2:])

    def product(images, kernel):
        images = jnp.pad(images, ((0, 0), *pads, (0, 0)))
        patches = [
            images[
                :, row : row + strides[0] * rows : strides[0], column : column + strides[1] * columns : strides[1]
            ]
            for row in range(height)
            for column in range(width)
        ]
        flat = jnp.concatenate(patches, axis=-1).reshape(-1, height * width * channels)
        return (flat @ kernel.reshape(flat.shape[-1], -1)).reshape(-1, rows, columns, kernel.shape[-1])

    def gradients(taken, upstream):
        images, kernel = taken

        def step(total, part):
            _, gradient = jax.vjp(product, part[0], kernel)
            of_images, of_kernel = gradient(part[1])
            return total + of_kernel, of_images

        parts = [in_parts(values) for values in (images, upstream)]
        of_kernel, of_images = jax.lax.scan(step, jnp.zeros(kernel.shape, "float32"), parts)
        return of_images.reshape(images.shape), of_kernel.astype(kernel.dtype)

    convolution = jax.custom_vjp(forwards)
    convolution.defvjp(lambda *taken: (forwards(*taken), taken), gradients)
    return convolution(inputs, kernel)


def _divisor(number: int, most: int) -> int:
    """The largest divisor of a number that is at most `most`."""
    return next(each for each in range(min(number, most), 0, -1) if number % each == 0)


def _halving(layer: keras.layers.MaxPooling2D) -> bool:
    return (
        layer.pool_size == layer.strides == (2, 2)
        and layer.padding == "valid"
        and layer.data_format == "channels_last"
    )


def _max_pooling(layer, inputs):
    """As `keras.layers.MaxPooling2D.call`: of equal values the first has the gradient."""
    height, width = (size // 2 * 2 for size in inputs.shape[1:3])

    def larger(one, other):
        return keras.ops.where(other > one, other, one)

    above, below = (
        larger(inputs[:, row:height:2, 0:width:2], inputs[:, row:height:2, 1:width:2]) for row in (0, 1)
    )
    return larger(above, below)
