"""A processor's own kernels for layers that Keras writes out in many small operations: the same mathematics."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import MethodType

import keras


def fuse(network: keras.Model) -> None:
    """Let the layers of a network that is only trained here, and not saved, compute with fused operations.

    Batch normalisation and GELU pass over their values a dozen times in Keras's version, forwards and backwards: a
    quarter of a training step of the `fast` encoder or of ResNet-18 in bfloat16. Layers, weights and configuration
    stay as they are, so that a copy made from the configuration has Keras's own version. Does nothing where a
    graphics card, or another backend's compiler, fuses operations by itself.

    Args:
        network: built; its layers are changed in place, those of the networks within it too.
    """
    if keras.backend.backend() != "tensorflow" or keras.distribution.list_devices("gpu"):
        return
    for layer in _leaves(network):
        if type(layer) is keras.layers.BatchNormalization and _fits(layer):
            layer.call = MethodType(_batch_normalization, layer)
        elif type(layer) is keras.layers.Activation and layer.activation is keras.activations.gelu:
            layer.call = _gelu


def _leaves(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    if not hasattr(layer, "layers"):
        yield layer
        return
    for part in layer.layers:
        yield from _leaves(part)


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
