"""A second copy of a network whose weights are a moving average (EMA) of the first one's."""

from __future__ import annotations

import math

import keras
from keras import ops


def ema_copy(network: keras.Model) -> keras.Model:
    """A copy with the same weights that no optimiser changes.

    Its batch normalisation works with the batch's statistics, as the network's own does in training: the variables
    are frozen, not the layers.

    Args:
        network: built of Keras's own layers.

    Returns:
        A model of its own with equal weights.
    """
    copy = keras.models.clone_model(network)
    copy.set_weights(network.get_weights())
    for variable in copy.variables:
        variable.trainable = False
    return copy


def ema_update(copy: keras.Model, network: keras.Model, momentum) -> None:
    """Move the copy towards the network: copy ← momentum · copy + (1 − momentum) · network.

    Running means and variances of batch normalisation are left alone: the copy keeps its own.

    Args:
        copy: from `ema_copy`.
        network: what it averages over the steps.
        momentum: in [0, 1]; a number or a scalar tensor.

    Source: He et al. 2019, arXiv:1911.05722, eq. 2.
    """
    for own, other in zip(copy.variables, network.variables, strict=True):
        if other.trainable:
            value = ops.stop_gradient(ops.convert_to_tensor(other))
            own.assign(momentum * ops.convert_to_tensor(own) + (1.0 - momentum) * value)


def momentum_at(done, start: float, end: float):
    """Momentum after a fraction of the training: half a cosine from `start` to `end`.

    Args:
        done: fraction of the steps, scalar tensor in [0, 1].
        start, end: in [0, 1]; 0.996 and 1 are usual with long training.

    Returns:
        Scalar float32.

    Source: Grill et al. 2020, arXiv:2006.07733, section 3.3.
    """
    return end - (end - start) * (ops.cos(math.pi * ops.cast(done, "float32")) + 1.0) / 2.0
