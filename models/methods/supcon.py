"""SupCon: all views of all images of a class belong together."""

from __future__ import annotations

from keras import ops

from models.losses import sup_con
from models.methods.base import Method, Setup
from models.temperature import Temperature


class SupCon(Method):
    """Supervised contrastive learning, Khosla et al. 2020, arXiv:2004.11362.

    Options: `temperature` (> 0), `learnable_temperature`, `views`: 2, as published, or 1 of each image, and
    `unlabelled`: `instance` lets the two views of an unlabelled image belong to each other and to nothing else, as
    in SimCLR; `leave_out` takes it out of the loss.

    Raises:
        ValueError: one view of an unlabelled image would have nothing to belong to.
    """

    advice = "lower method.optimizer.learning_rate, or raise runtime.batch_size"

    def __init__(self, setup: Setup):
        super().__init__(setup)
        options = setup.options
        self.temperature = Temperature(options["temperature"], options["learnable_temperature"])
        self.views = int(options["views"])
        self.classes = setup.classes
        self.instances = options["unlabelled"] == "instance"
        if self.instances and self.views == 1:
            raise ValueError("unlabelled = instance needs views = 2")

    def contrastive_loss(self, outputs, labels):
        """L_out over all views."""
        labels = ops.cast(labels, "int32")
        if self.instances:
            # a class of its own for each unlabelled image
            own = self.classes + ops.arange(ops.shape(labels)[0], dtype="int32")
            labels = ops.where(labels >= 0, labels, own)
        return sup_con(outputs["z"], ops.tile(labels, (self.views,)), self.temperature.value())
