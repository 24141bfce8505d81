"""What the methods with a momentum encoder share."""

from __future__ import annotations

from typing import Any

from keras import ops

from models.methods.base import Method, Setup
from models.momentum import follow, follower, momentum_at


class MomentumMethod(Method):
    """A method whose targets come from a slowly following copy of the encoder and its projection head.

    Options: `momentum` (`start` and `end`, in [0, 1]): of the copy, along half a cosine over the training.
    """

    def __init__(self, setup: Setup):
        super().__init__(setup)
        self.momentum = (float(setup.options["momentum"]["start"]), float(setup.options["momentum"]["end"]))
        self.target_encoder = follower(self.encoder)
        self.target_head = follower(self.projection_head)

    def embed(self, views, features) -> dict[str, Any]:
        """Embeddings `z`, and `targets` through which no gradient flows."""
        # at the start of a step: it then follows the weights of the step before
        self.follow(momentum_at(self.done, *self.momentum))
        targets = self.target_head(self.target_encoder(views, training=True), training=True)
        return {**super().embed(views, features), "targets": ops.stop_gradient(targets)}

    def follow(self, momentum) -> None:
        """Move each copy towards its original; a method with further copies moves them too."""
        follow(self.target_encoder, self.encoder, momentum)
        follow(self.target_head, self.projection_head, momentum)
