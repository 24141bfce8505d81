"""The temperature of a contrastive softmax, fixed or learned."""

from __future__ import annotations

import math

import keras
from keras import ops

LOWEST = 0.01


class Temperature(keras.layers.Layer):
    """A number > 0; where it is learned, its logarithm is a weight and it stays at or above 0.01.

    Args:
        initial: > 0.
        learnable: train it with the network.

    Source: Radford et al. 2021, arXiv:2103.00020, section 2.5.
    """

    def __init__(self, initial: float, learnable: bool = False):
        super().__init__(name="temperature", dtype="float32")
        self.initial = float(initial)
        self.logarithm = None
        if learnable:
            self.logarithm = self.add_weight(
                name="logarithm", shape=(), initializer=keras.initializers.Constant(math.log(initial))
            )
        self.built = True

    def value(self):
        """A float, or a scalar tensor where it is learned."""
        return self.initial if self.logarithm is None else ops.maximum(ops.exp(self.logarithm), LOWEST)
