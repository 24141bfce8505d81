"""What the methods share that predict one view's embedding from the other's."""

from __future__ import annotations

from typing import Any

from models.heads import head
from models.methods.base import Method, Setup


class PredictingMethod(Method):
    """A method with a second head on the projections: `p` predicts what the other view's projection is.

    Beside `MomentumMethod` it comes first among a class's bases.

    Options: `prediction` (a head as wide as the projection, or none: then `p` is `z`), `symmetric` (both ways).
    """

    def __init__(self, setup: Setup):
        super().__init__(setup)
        options = setup.options
        width = options["projection"]["width"]
        wanted = options["prediction"]
        self.prediction_head = head("prediction_head", width, **wanted) if wanted else None
        self.symmetric = bool(options["symmetric"])

    def embed(self, views, features) -> dict[str, Any]:
        """Projections `z`, predictions `p` of them, and what another base adds."""
        outputs = super().embed(views, features)
        z = outputs["z"]
        return {**outputs, "p": z if self.prediction_head is None else self.prediction_head(z, training=True)}
