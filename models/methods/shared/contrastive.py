"""What the methods with a contrastive softmax share."""

from __future__ import annotations

from models.methods.shared.base import MethodOptions
from models.options import options, within
from models.temperature import LOWEST


@options
class ContrastiveOptions(MethodOptions):
    """`temperature` of the softmax; a learned one starts there."""

    temperature: float = within(gt=0)
    learnable_temperature: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.learnable_temperature and self.temperature < LOWEST:
            raise ValueError(f"temperature = {self.temperature}: must be ≥ {LOWEST} with learnable_temperature")
