"""DINO: match the momentum network's sharper, centred answer about the other view."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from models.losses import dino, sinkhorn
from models.methods.base import Setup, both_ways, halves
from models.methods.momentum import MomentumMethod
from models.momentum import follow, follower
from models.prototypes import prototypes, scores


class DINO(MomentumMethod):
    """Self-distillation without labels, Caron et al. 2021, arXiv:2104.14294, with two full-size views.

    Options: those of `MomentumMethod`, `prototypes` (their number), `temperature` (the student's) and
    `teacher_temperature` (lower), `centring`: `mean` subtracts the running mean of the teacher's scores with
    `centre_momentum` (in [0, 1]), as published; `sinkhorn` balances each batch as SwAV does (Oquab et al. 2023,
    arXiv:2304.07193, section 4), which small networks and few prototypes need. `freeze_prototypes` (fraction of the
    training during which they are held still).
    """

    advice = "set method.centring to sinkhorn, lower method.teacher_temperature, or raise method.momentum.start"

    def __init__(self, setup: Setup):
        super().__init__(setup)
        options = setup.options
        count = options["prototypes"]
        self.prototypes = prototypes(options["projection"]["width"], count)
        self.target_prototypes = follower(self.prototypes)
        self.centre = self.add_weight(
            name="centre", shape=(count,), dtype="float32", trainable=False, initializer=keras.initializers.Zeros()
        )
        self.temperatures = (float(options["temperature"]), float(options["teacher_temperature"]))
        self.balanced = options["centring"] == "sinkhorn"
        self.centre_momentum = float(options["centre_momentum"])
        self.freeze = float(options["freeze_prototypes"])

    def embed(self, views, features) -> dict[str, Any]:
        """Embeddings `z` and `targets`, and their `student` and `teacher` scores."""
        outputs = super().embed(views, features)
        student = scores(self.prototypes, outputs["z"], trained=self.done >= self.freeze)
        teacher = ops.stop_gradient(scores(self.target_prototypes, outputs["targets"]))
        return {**outputs, "student": student, "teacher": teacher}

    def contrastive_loss(self, outputs, labels):
        """Cross entropy both ways; a running centre then moves towards the teacher's mean answer."""
        running = ops.convert_to_tensor(self.centre)
        centre = self._balance(outputs["teacher"]) if self.balanced else running

        def loss(student, teacher):
            return dino(student, teacher, centre, *self.temperatures)

        found = both_ways(loss, halves(outputs["student"]), halves(outputs["teacher"]))
        mean = ops.mean(outputs["teacher"], axis=0)
        self.centre.assign(self.centre_momentum * running + (1.0 - self.centre_momentum) * mean)
        return found

    def _balance(self, teacher):
        """The centre with which the softmax of the batch uses all prototypes about equally."""
        temperature = self.temperatures[1]
        # Sinkhorn's assignment is exp(score / temperature − one number a prototype − one a row), row sums 1: the
        # softmax of centred scores. The mean over rows leaves a constant beside the centre, which changes nothing.
        logs = ops.log(ops.maximum(sinkhorn(teacher, temperature, 3), 1e-37))
        return ops.stop_gradient(ops.mean(teacher - temperature * logs, axis=0))

    def follow(self, momentum) -> None:
        """The prototypes have a copy too."""
        super().follow(momentum)
        follow(self.target_prototypes, self.prototypes, momentum)
