"""Optimisers and learning rates of pretraining."""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import ops

from models.options import options, within


@options
class OptimizerOptions:
    """An optimiser that leaves biases and normalisation out of the weight decay.

    Args:
        name: `sgd` is with momentum.
        learning_rate: after the warm-up.
        weight_decay: decoupled from the gradient except in `lars`, whose trust ratio includes it. `adam` has none.
            PyTorch's SGD adds it to the gradient before the momentum: its value is to be divided by 1 − momentum
            here.
        momentum: of `sgd` and `lars`.
        schedule: `constant`, or `cosine` from the learning rate to `final_fraction` of it.
        warmup_epochs: rising from 0, before the schedule begins.
        final_fraction: where the cosine ends.
    """

    name: Literal["adam", "adamw", "sgd", "lars"]
    learning_rate: float = within(gt=0)
    weight_decay: float = within(ge=0)
    momentum: float = within(ge=0, lt=1)
    schedule: Literal["constant", "cosine"]
    warmup_epochs: int = within(ge=0)
    final_fraction: float = within(ge=0, le=1)

    def __post_init__(self) -> None:
        require_no_decay(self.name, self.weight_decay)


def require_no_decay(optimizer: str, weight_decay: float) -> None:
    """Refuse a weight decay with `adam`, which has none.

    Raises:
        ValueError: names the weight decay.
    """
    if optimizer == "adam" and weight_decay:
        raise ValueError(f"weight_decay = {weight_decay}: adam has none; set it to 0 or take adamw")


def build(options: OptimizerOptions, epochs: int, epoch_steps: int) -> keras.optimizers.Optimizer:
    """Build an optimiser whose variables are not built yet; call `exclude_vectors` once they are known.

    Args:
        options: which one, and its learning rate over the training.
        epochs: of the training.
        epoch_steps: steps per epoch.
    """
    decay, momentum = options.weight_decay, options.momentum
    rate = _schedule(options, options.warmup_epochs * epoch_steps, epochs * epoch_steps)
    if options.name == "adam":
        return keras.optimizers.Adam(rate)
    if options.name == "adamw":
        return keras.optimizers.AdamW(rate, weight_decay=decay)
    if options.name == "sgd":
        return keras.optimizers.SGD(rate, momentum=momentum, weight_decay=decay or None)
    return LARS(rate, momentum=momentum, decay=decay)


def exclude_vectors(optimizer: keras.optimizers.Optimizer, variables: list[Any]) -> None:
    """Keep the weight decay from biases, normalisation and other vectors and scalars; before the first step.

    Source: Chen et al. 2020, arXiv:2002.05709, appendix B.6 and the authors' code.
    """
    optimizer.exclude_from_weight_decay(var_list=[v for v in variables if is_vector(v)])


def is_vector(variable: Any) -> bool:
    """Whether a variable is a bias, a normalisation's scale or shift, or another vector or scalar."""
    return len(variable.shape) <= 1


class AdamW(keras.optimizers.AdamW):
    """AdamW whose weight decay is a variable, so that one compiled training serves several decays."""

    def build(self, variables):
        """Create the moments and the decay, which is 0 until somebody assigns it."""
        if self.built:
            return
        super().build(variables)
        self.weight_decay = self.add_variable((), name="weight_decay")


class LARS(keras.optimizers.Optimizer):
    """Momentum SGD whose step for each matrix is proportional to the matrix's own norm.

    For a matrix w with gradient g:

        v ← momentum · v + rate · trust · ‖w‖ / ‖g + decay · w‖ · (g + decay · w),   w ← w − v

    Vectors (biases, normalisation) get plain momentum SGD without decay. Meant for batches of thousands.

    Args:
        learning_rate: number or schedule; 0.3 · batch / 256 is usual.
        momentum: in [0, 1).
        decay: weight decay ≥ 0, e.g. 1e-6.
        trust: the coefficient η.
        name, options: as of any Keras optimiser, such as `clipnorm`.

    Source: You et al. 2017, arXiv:1708.03888, algorithm 1; with the decay inside the norm, and the exclusions, of
    Chen et al. 2020, arXiv:2002.05709, and the authors' code.
    """

    def __init__(
        self,
        learning_rate=1.0,
        momentum: float = 0.9,
        decay: float = 0.0,
        trust: float = 0.001,
        name="lars",
        **options,
    ):
        super().__init__(learning_rate=learning_rate, name=name, **options)
        self.momentum, self.decay, self.trust = momentum, decay, trust

    def build(self, variables):
        """Create a velocity for each variable."""
        if self.built:
            return
        super().build(variables)
        self.velocities = [self.add_variable_from_reference(v, name="velocity") for v in variables]

    def update_step(self, gradient, variable, learning_rate):
        """One step of one variable, as in the class's formula."""
        rate = ops.cast(learning_rate, variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        if not is_vector(variable):
            gradient = gradient + self.decay * variable
            length, slope = _length(variable), _length(gradient)
            moving = ops.logical_and(length > 0, slope > 0)
            # a matrix of zeros, or one without a gradient, has no proportion to keep
            safe = ops.where(slope > 0, slope, ops.ones_like(slope))
            rate = rate * ops.where(moving, self.trust * length / safe, ops.ones_like(length))
        velocity = self.velocities[self._get_variable_index(variable)]
        self.assign(velocity, self.momentum * velocity + rate * gradient)
        self.assign_sub(variable, velocity)

    def get_config(self):
        """What a saved optimiser needs to be made again."""
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "decay": self.decay,
            "trust": self.trust,
        }


def _length(weights: Any) -> Any:
    # keras.ops.norm takes matrices at most, and a convolution's kernel has four axes
    return ops.sqrt(ops.sum(ops.square(weights)))


def _schedule(options: OptimizerOptions, warmup_steps: int, steps: int) -> Any:
    rate = options.learning_rate
    if options.schedule == "constant":
        if not warmup_steps:
            return rate
        # a cosine that ends where it starts
        return keras.optimizers.schedules.CosineDecay(
            0.0, 1, alpha=1.0, warmup_target=rate, warmup_steps=warmup_steps
        )
    if steps <= warmup_steps:
        return keras.optimizers.schedules.CosineDecay(0.0, 1, warmup_target=rate, warmup_steps=warmup_steps)
    return keras.optimizers.schedules.CosineDecay(
        0.0 if warmup_steps else rate,
        steps - warmup_steps,
        alpha=options.final_fraction,
        warmup_target=rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )
