"""MoCo: the other view's key comes from a momentum encoder, the negatives from a queue of earlier keys."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from keras import ops

from models.losses.checks import check_pair, check_temperature
from models.losses.scaling import l2_normalize
from models.losses.views import over_pairs, split_views
from models.methods.shared.base import Setup
from models.methods.shared.contrastive import ContrastiveOptions
from models.methods.shared.heads import HeadOptions, head
from models.methods.shared.momentum import MomentumMethod, MomentumOptions
from models.methods.shared.predicting import require_same_width
from models.methods.shared.queue import Queue
from models.methods.shared.temperature import Temperature
from models.options import options, within


def moco(queries, keys, queue, temperature):
    """Each query must pick its key among its key and all entries of a queue.

    Args:
        queries: shape (N, D), any scale.
        keys: embeddings of the other views by the momentum encoder, shape (N, D), any scale.
        queue: earlier keys, shape (K, D), any scale.
        temperature: > 0; 0.07 to 0.2 is usual.

    Returns:
        Scalar float32, in nats. Uniform embeddings give log(K + 1).

    Raises:
        ValueError: temperature is not > 0, or the shapes don't fit.

    Source: He et al. 2019, arXiv:1911.05722, eq. 1.
    """
    check_pair(queries, keys, "queries and keys")
    check_temperature(temperature)
    if len(queue.shape) != 2 or queue.shape[1] != queries.shape[1]:
        raise ValueError(f"the queue must have the shape (K, {queries.shape[1]}), not {tuple(queue.shape)}")
    queries, keys, queue = l2_normalize(queries), l2_normalize(keys), l2_normalize(queue)
    positives = ops.sum(queries * keys, axis=-1, keepdims=True)
    logits = ops.concatenate([positives, ops.matmul(queries, ops.transpose(queue))], axis=1) / temperature
    return ops.mean(ops.logsumexp(logits, axis=1) - logits[:, 0])


def moco_v3(queries, keys, temperature):
    """Each query must pick its key among the keys of the batch; scaled by 2·temperature, held still.

    Args:
        queries: shape (N, D), any scale.
        keys: embeddings of the other views by the momentum encoder, shape (N, D), any scale.
        temperature: > 0; 0.2 to 1 is usual.

    Returns:
        Scalar float32. Uniform embeddings give 2·temperature·log N. The method adds the same with views swapped.

    Raises:
        ValueError: temperature is not > 0, or the shapes differ.

    Source: Chen et al. 2021, arXiv:2104.02057, algorithm 1.
    """
    check_pair(queries, keys, "queries and keys")
    check_temperature(temperature)
    similarities = ops.matmul(l2_normalize(queries), ops.transpose(l2_normalize(keys))) / temperature
    losses = ops.logsumexp(similarities, axis=1) - ops.diagonal(similarities)
    # the factor's own gradient would only ever lower a learned temperature, whatever the embeddings
    return 2.0 * ops.stop_gradient(ops.convert_to_tensor(temperature, "float32")) * ops.mean(losses)


@options
class Options(MomentumOptions, ContrastiveOptions):
    """Version 2 has a queue and may be `symmetric` (published: only the first of two views asks).

    Version 3 has `prediction`; the keys of the batch are the candidates, both ways.
    """

    name: Literal["moco"]
    version: Literal[2, 3]
    queue_size: int = within(ge=1)
    symmetric: bool
    prediction: HeadOptions

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.version == 3:
            require_same_width(self.projection, self.prediction)
            if not self.symmetric:
                raise ValueError("symmetric = false: both views ask in version 3; set it to true or take version 2")


class MoCo(MomentumMethod):
    """Version 2: Chen et al. 2020, arXiv:2003.04297; version 3: Chen et al. 2021, arXiv:2104.02057."""

    def __init__(self, setup: Setup[Options]):
        super().__init__(setup)
        options = setup.options
        width = options.projection.width
        self.temperature = Temperature(options.temperature, options.learnable_temperature)
        self.queue = self.prediction_head = None
        if options.version == 2:
            self.queue = Queue(options.queue_size, width, setup.seed)
        else:
            self.prediction_head = head("prediction_head", width, options.prediction)
        self.symmetric = options.version == 3 or options.symmetric

    def embed(self, views, features) -> dict[str, Any]:
        """Embeddings `z`, `queries` (predictions of them in version 3) and the keys: `targets`."""
        outputs = super().embed(views, features)
        z = outputs["z"]
        return {**outputs, "queries": z if self.prediction_head is None else self.prediction_head(z, training=True)}

    def contrastive_loss(self, outputs, labels):
        """Queries against keys; in version 2 the queue takes the keys after."""
        queries, keys = (split_views(outputs[name], self.views) for name in ("queries", "targets"))
        temperature = self.temperature.value()
        if self.queue is None:
            # the sum of both directions, as published
            return 2.0 * over_pairs(partial(moco_v3, temperature=temperature), queries, keys)
        loss = partial(moco, queue=ops.convert_to_tensor(self.queue.rows), temperature=temperature)
        found = over_pairs(loss, queries, keys, self.symmetric)
        # the keys that were asked for
        self.queue.enqueue(ops.concatenate(keys if self.symmetric else keys[1:], axis=0))
        return found
