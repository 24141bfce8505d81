"""What the methods with a momentum encoder share."""

from __future__ import annotations

from typing import Any

from keras import ops

from models.methods.shared.base import Method, MethodOptions, Setup
from models.momentum import ema_copy, ema_update, momentum_at
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

    def __init__(self, setup: Setup[MomentumOptions]):
        super().__init__(setup)
        self.momentum = setup.options.momentum
        self.target_encoder = ema_copy(self.encoder)
        self.target_head = ema_copy(self.projection_head)

    def embed(self, views, features) -> dict[str, Any]:
        """Embeddings `z`, and `targets` through which no gradient flows."""
        # at the start of a step: with the weights of the step before
        self.update_targets(momentum_at(self.done, self.momentum.start, self.momentum.end))
        targets = self.target_head(self.target_encoder(views, training=True), training=True)
        return {**super().embed(views, features), "targets": ops.stop_gradient(targets)}

    def update_targets(self, momentum) -> None:
        """Move each copy towards its original; a method with further copies moves them too."""
        ema_update(self.target_encoder, self.encoder, momentum)
        ema_update(self.target_head, self.projection_head, momentum)
