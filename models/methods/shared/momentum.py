"""What the methods with a momentum encoder share: a second network whose weights are a moving average (EMA)."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from models.losses.views import split_views
from models.methods.shared.base import Method, MethodOptions, Setup
from models.options import options, within


@options
class Momentum:
    """Of the copy's moving average: from `start` to `end` along half a cosine over the training."""

    start: float = within(ge=0, le=1)
    end: float = within(ge=0, le=1)


@options
class MomentumOptions(MethodOptions):
    """How slowly the momentum encoder changes."""

    momentum: Momentum


class MomentumMethod(Method):
    """A method whose targets come from a moving average (EMA) of the encoder and its projection head."""

    # of how many views of each image there are targets; None: of all
    target_views: int | None = None

    def __init__(self, setup: Setup[MomentumOptions]):
        super().__init__(setup)
        self.momentum = setup.options.momentum
        self.target_encoder = ema_copy(self.encoder)
        self.target_head = ema_copy(self.projection_head)

    def embed(self, views, features) -> dict[str, Any]:
        """Embeddings `z`, and `targets` (of the first `target_views`) through which no gradient flows."""
        # at the start of a step: with the weights of the step before
        self.update_targets(momentum_at(self.done, self.momentum.start, self.momentum.end))
        seen = views
        if self.target_views is not None and self.views > self.target_views:
            seen = ops.concatenate(split_views(views, self.views)[: self.target_views], axis=0)
        targets = self.target_head(self.encode(self.target_encoder, seen), training=True)
        return {**super().embed(views, features), "targets": ops.stop_gradient(targets)}

    def update_targets(self, momentum) -> None:
        """Move each copy towards its original; a method with further copies moves them too."""
        ema_update(self.target_encoder, self.encoder, momentum)
        ema_update(self.target_head, self.projection_head, momentum)


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
