"""The temperature of a contrastive softmax, fixed or learned."""

from __future__ import annotations

import math

import keras
from keras import ops

LOWEST = 0.01


class Temperature(keras.layers.Layer):
    """A number > 0; where it is learned, its logarithm is a weight and it stays at or above 0.01.

    Args:
        initial: > 0; ≥ 0.01 where it is learned.
        learnable: train it with the network.

    Raises:
        ValueError: it would be learned from below its bound.

    Source: Radford et al. 2021, arXiv:2103.00020, section 2.5.
    """

    def __init__(self, initial: float, learnable: bool = False):
        super().__init__(name="temperature", dtype="float32")
        self.initial = float(initial)
        self.logarithm = None
        if learnable:
            if initial < LOWEST:
                raise ValueError(f"temperature = {initial}: must be ≥ {LOWEST} where it is learned")
            # The weight itself is kept in its range, after each step. With a bound in `value` no gradient would
            # reach a weight below it, which could never come back.
            self.logarithm = self.add_weight(
                name="logarithm",
                shape=(),
                initializer=keras.initializers.Constant(math.log(initial)),
                constraint=_not_below,
            )
        self.built = True

    def value(self):
        """A float, or a scalar tensor where it is learned."""
        return self.initial if self.logarithm is None else ops.exp(self.logarithm)


def _not_below(logarithm):
    # a little above, so that rounding does not put the temperature below
    return ops.maximum(logarithm, math.log(LOWEST) + 2e-6)
