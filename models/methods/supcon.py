"""SupCon: all views of all images of a class belong together."""

from __future__ import annotations

from typing import Literal

from keras import ops

from models.losses.checks import check_rows, check_temperature
from models.losses.contrastive import log_sum_exp_without
from models.losses.scaling import l2_normalize
from models.methods.shared.base import MOST_VIEWS, Method, Setup
from models.methods.shared.contrastive import ContrastiveOptions
from models.methods.shared.temperature import Temperature
from models.options import options, within


def sup_con(z, labels, temperature):
    """Supervised contrastive loss: each embedding must find all others of its class (L_out).

    Args:
        z: embeddings, shape (M, D), any scale; with several views stack them and repeat the labels.
        labels: int, shape (M,); rows labelled −1 (unlabelled) are left out, as anchors and as candidates.
        temperature: > 0; 0.05 to 0.1 is usual.

    Returns:
        Scalar float32, in nats: mean over the anchors that have a positive; 0 where none has. M equal embeddings of
        one class give log(M − 1).

    Raises:
        ValueError: temperature is not > 0, or the labels are not one for each row.

    Source: Khosla et al. 2020, arXiv:2004.11362, eq. 2 (the mean instead of the sum over anchors).
    """
    check_rows(z)
    check_temperature(temperature)
    if tuple(labels.shape) != (z.shape[0],):
        raise ValueError(f"labels must have the shape ({z.shape[0]},), not {tuple(labels.shape)}")
    z = l2_normalize(z)
    similarities = ops.matmul(z, ops.transpose(z)) / temperature
    labelled = ops.cast(labels >= 0, "float32")
    itself = ops.eye(ops.shape(z)[0])
    log_candidates = log_sum_exp_without(similarities, 1.0 - (1.0 - itself) * labelled[None, :])
    same_class = ops.cast(ops.equal(labels[:, None], labels[None, :]), "float32") * (1.0 - itself)
    positives = same_class * labelled[:, None]
    count = ops.sum(positives, axis=1)
    mean_positive = ops.sum(positives * similarities, axis=1) / ops.maximum(count, 1.0)
    anchors = ops.cast(count > 0, "float32")
    return ops.sum((log_candidates - mean_positive) * anchors) / ops.maximum(ops.sum(anchors), 1.0)


@options
class Options(ContrastiveOptions):
    """Of each image 2 `views`, as published, or more, or 1.

    `unlabelled`: `instance` lets the views of an unlabelled image belong to each other and to nothing else, as in
    SimCLR; `leave_out` takes it out of the loss.
    """

    name: Literal["supcon"]
    views: int = within(ge=1, le=MOST_VIEWS)
    unlabelled: Literal["instance", "leave_out"]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.views == 1 and self.unlabelled == "instance":
            raise ValueError("unlabelled = instance: needs 2 views or more; use leave_out with views = 1")


class SupCon(Method):
    """Supervised contrastive learning, Khosla et al. 2020, arXiv:2004.11362."""

    uses_labels = True
    advice = "lower method.optimizer.learning_rate, or raise runtime.batch_size"

    def __init__(self, setup: Setup[Options]):
        super().__init__(setup)
        options = setup.options
        self.temperature = Temperature(options.temperature, options.learnable_temperature)
        self.classes = setup.classes
        self.instances = options.unlabelled == "instance"

    def contrastive_loss(self, outputs, labels):
        """L_out over all views."""
        labels = ops.cast(labels, "int32")
        if self.instances:
            # a class of its own for each unlabelled image
            own = self.classes + ops.arange(ops.shape(labels)[0], dtype="int32")
            labels = ops.where(labels >= 0, labels, own)
        return sup_con(outputs["z"], ops.tile(labels, (self.views,)), self.temperature.value())
