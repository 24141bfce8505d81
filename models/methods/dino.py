"""DINO: match the momentum network's sharper, centered answer about the other view."""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import ops

from models.losses.assignment import cross_entropy, sinkhorn
from models.losses.checks import check_pair, check_temperature
from models.losses.views import over_pairs, split_views
from models.methods.shared.base import Setup
from models.methods.shared.momentum import MomentumMethod, MomentumOptions, ema_copy, ema_update
from models.methods.shared.prototypes import prototypes, scores
from models.options import options, within


def dino(student, teacher, center, student_temperature, teacher_temperature):
    """The student's softmax must match the teacher's sharper, centered one.

    Args:
        student: logits of one view, shape (N, K).
        teacher: the momentum network's logits of the other view, shape (N, K); no gradient flows into them.
        center: running mean of the teacher's logits, shape (K,), which keeps one output from winning always.
        student_temperature: > 0; 0.1 is usual.
        teacher_temperature: > 0, lower than the student's; 0.04 to 0.07 is usual.

    Returns:
        Scalar float32, in nats. Equal logits give log K.

    Raises:
        ValueError: a temperature is not > 0, or the shapes differ.

    Source: Caron et al. 2021, arXiv:2104.14294, eq. 2 and algorithm 1.
    """
    check_pair(student, teacher, "the student's and the teacher's logits")
    if tuple(center.shape) != (teacher.shape[1],):
        raise ValueError(f"the center must have the shape ({teacher.shape[1]},), not {tuple(center.shape)}")
    check_temperature(student_temperature)
    check_temperature(teacher_temperature)
    teacher = ops.stop_gradient(ops.cast(teacher, "float32"))
    targets = ops.softmax((teacher - ops.cast(center, "float32")) / teacher_temperature, axis=-1)
    return cross_entropy(targets, student, student_temperature)


@options
class Options(MomentumOptions):
    """`temperature` is the student's, `prototypes` their number.

    `centering`: `mean` subtracts the running mean of the teacher's scores with `center_momentum`, as published;
    `sinkhorn` balances each batch as SwAV does (Oquab et al. 2023, arXiv:2304.07193, section 4), which small
    networks and few prototypes need. `freeze_prototypes`: fraction of the training during which they are still.
    """

    name: Literal["dino"]
    temperature: float = within(gt=0)
    teacher_temperature: float = within(gt=0)
    prototypes: int = within(ge=2)
    centering: Literal["mean", "sinkhorn"]
    center_momentum: float = within(ge=0, le=1)
    freeze_prototypes: float = within(ge=0, le=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher_temperature > self.temperature:
            raise ValueError(
                f"teacher_temperature = {self.teacher_temperature}: must be ≤ temperature = {self.temperature}"
            )


class DINO(MomentumMethod):
    """Self-distillation without labels, Caron et al. 2021, arXiv:2104.14294, with full-size views.

    Of more than two the teacher sees the first two, as it sees the paper's two large crops (eq. 3).
    """

    target_views = 2
    advice = "set method.centering to sinkhorn, lower method.teacher_temperature, or raise method.momentum.start"

    def __init__(self, setup: Setup[Options]):
        super().__init__(setup)
        options = setup.options
        count = options.prototypes
        self.prototypes = prototypes(options.projection.width, count)
        self.target_prototypes = ema_copy(self.prototypes)
        self.center = self.add_weight(
            name="center", shape=(count,), dtype="float32", trainable=False, initializer=keras.initializers.Zeros()
        )
        self.temperatures = (options.temperature, options.teacher_temperature)
        self.balanced = options.centering == "sinkhorn"
        self.center_momentum = options.center_momentum
        self.freeze = options.freeze_prototypes

    def embed(self, views, features) -> dict[str, Any]:
        """Embeddings `z` and `targets`, and their `student` and `teacher` scores."""
        outputs = super().embed(views, features)
        student = scores(self.prototypes, outputs["z"], trained=self.done >= self.freeze)
        teacher = ops.stop_gradient(scores(self.target_prototypes, outputs["targets"]))
        return {**outputs, "student": student, "teacher": teacher}

    def contrastive_loss(self, outputs, labels):
        """Cross entropy with the other views' targets; a running center then moves towards the teacher's mean."""
        running = ops.convert_to_tensor(self.center)
        center = self._balance(outputs["teacher"]) if self.balanced else running

        def loss(student, teacher):
            return dino(student, teacher, center, *self.temperatures)

        students, teachers = outputs["student"], outputs["teacher"]
        found = over_pairs(loss, split_views(students, self.views), split_views(teachers, self.target_views))
        mean = ops.mean(outputs["teacher"], axis=0)
        self.center.assign(self.center_momentum * running + (1.0 - self.center_momentum) * mean)
        return found

    def _balance(self, teacher):
        """The center with which the softmax of the batch uses all prototypes about equally."""
        temperature = self.temperatures[1]
        # Sinkhorn's assignment is exp(score / temperature − one number a prototype − one a row), row sums 1: the
        # softmax of centered scores. The mean over rows leaves a constant beside the center, which changes nothing.
        logs = ops.log(ops.maximum(sinkhorn(teacher, temperature, 3), 1e-37))
        return ops.stop_gradient(ops.mean(teacher - temperature * logs, axis=0))

    def update_targets(self, momentum) -> None:
        """The prototypes have a copy too."""
        super().update_targets(momentum)
        ema_update(self.target_prototypes, self.prototypes, momentum)
