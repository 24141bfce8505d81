"""What the methods share that predict one view's embedding from the other's."""

from __future__ import annotations

from typing import Any

from models.heads import HeadOptions, head
from models.methods.shared.base import Method, MethodOptions, Setup
from models.options import options


@options
class PredictingOptions(MethodOptions):
    """`prediction`: a head as wide as the projection, or none; `symmetric`: both views predict, not one alone."""

    prediction: HeadOptions | None
    symmetric: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prediction is not None:
            require_same_width(self.projection, self.prediction)


def require_same_width(projection: HeadOptions, prediction: HeadOptions) -> None:
    """Refuse a prediction head that is not as wide as what it predicts.

    Raises:
        ValueError: names both widths.
    """
    if prediction.width != projection.width:
        raise ValueError(
            f"prediction.width = {prediction.width}: must equal projection.width = {projection.width}, "
            "which it predicts"
        )


class PredictingMethod(Method):
    """A method with a second head on the projections: `p` predicts what the other view's projection is.

    Without that head `p` is `z`. Beside `MomentumMethod` it comes first among a class's bases.
    """

    def __init__(self, setup: Setup[PredictingOptions]):
        super().__init__(setup)
        options = setup.options
        self.prediction_head = None
        if options.prediction is not None:
            self.prediction_head = head("prediction_head", options.projection.width, options.prediction)
        self.symmetric = options.symmetric

    def embed(self, views, features) -> dict[str, Any]:
        """Projections `z`, predictions `p` of them, and what another base adds."""
        outputs = super().embed(views, features)
        z = outputs["z"]
        return {**outputs, "p": z if self.prediction_head is None else self.prediction_head(z, training=True)}
