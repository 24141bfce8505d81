"""A large batch through a network in sub-batches: the whole batch's gradient in a sub-batch's memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from models.kernels import leaves


def in_sub_batches(network: keras.Model, rows, count: int):
    """What a network gives in training, computed for a part of the rows at a time.

    Nothing within the network is kept: each part goes through it once more when the gradient comes back. So the
    loss sees all rows at once, and the gradient is that of the whole batch, to rounding. Batch normalisation alone
    tells the difference: it sees each part by itself, and its moving statistics take one step, by the mean of the
    parts'.

    Args:
        network: of layers that draw no random numbers; its trained variables get their gradient, `rows` none.
        rows: shape (count · M, …).
        count: number of parts. A part is every `count`-th row, so that all views of an image are in the same one,
            where `rows` are views as in `split_views` and `count` divides the number of images.

    Returns:
        Shape (count · M, D), in the order of the rows.

    Source: Gao et al. 2021, arXiv:2101.06983, section 3.2 (GradCache), written as checkpointing: Chen et al. 2016,
    arXiv:1604.06174.
    """
    trained = [each for each in network.variables if each.trainable]
    # as they are now: a momentum network's weights have just moved
    others = [(each, ops.convert_to_tensor(each)) for each in network.variables if not each.trainable]
    moving = [
        statistic
        for layer in leaves(network)
        if isinstance(layer, keras.layers.BatchNormalization)
        for statistic in (layer.moving_mean, layer.moving_variance)
    ]

    def part(rows, weights):
        """Features, and the moving statistics after them."""
        with keras.StatelessScope([*zip(trained, weights, strict=True), *others]) as scope:
            features = network(rows, training=True)
        return features, [ops.convert_to_tensor(scope.get_current_value(statistic)) for statistic in moving]

    weights = [ops.convert_to_tensor(variable) for variable in trained]
    parts = ops.moveaxis(ops.reshape(rows, (-1, count, *rows.shape[1:])), 1, 0)
    if keras.backend.backend() == "tensorflow":
        features, states = _one_by_one(part, parts, weights)
    else:
        recomputed = keras.remat(part)
        features, states = ops.map(lambda rows: recomputed(rows, weights), parts)
    for statistic, values in zip(moving, states, strict=True):
        statistic.assign(ops.mean(values, axis=0))
    return ops.reshape(ops.moveaxis(features, 0, 1), (-1, features.shape[-1]))


def _one_by_one(part: Callable[..., Any], parts, weights) -> tuple[Any, list[Any]]:
    """As `ops.map` of a recomputed `part`, which TensorFlow can't derive, and of which it would run ten at once."""
    import tensorflow as tf

    def flat(rows, weights):
        features, state = part(rows, weights)
        return [features, *state]

    def forwards(*weights):
        kinds = [tf.TensorSpec.from_tensor(tensor) for tensor in flat(parts[0], weights)]
        return tf.map_fn(lambda rows: flat(rows, weights), parts, fn_output_signature=kinds, parallel_iterations=1)

    @tf.custom_gradient
    def derived(*weights):
        def gradient(upstream, *_):
            def add(sums, taken):
                rows, of_features = taken
                with tf.GradientTape() as tape:
                    tape.watch(weights)
                    features, _ = part(rows, weights)
                found = tape.gradient(features, weights, of_features, unconnected_gradients="zero")
                return [total + one for total, one in zip(sums, found, strict=True)]

            zeros = [tf.zeros_like(weight) for weight in weights]
            return tf.foldl(add, (parts, upstream), zeros, parallel_iterations=1)

        return forwards(*weights), gradient

    # as values: it asks for a gradient of its own for each variable that it sees; a momentum network has none
    weights = [tf.convert_to_tensor(weight) for weight in weights]
    features, *states = derived(*weights) if weights else forwards()
    return features, states
