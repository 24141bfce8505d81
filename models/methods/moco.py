"""MoCo: the other view's key comes from a momentum encoder, the negatives from a queue of earlier keys."""

from __future__ import annotations

from functools import partial
from typing import Any

from keras import ops

from models.heads import head
from models.losses import moco, moco_v3
from models.methods.base import Setup, both_ways, halves
from models.methods.momentum import MomentumMethod
from models.queue import Queue
from models.temperature import Temperature


class MoCo(MomentumMethod):
    """Version 2: Chen et al. 2020, arXiv:2003.04297; version 3: Chen et al. 2021, arXiv:2104.02057.

    Options: those of `MomentumMethod`, `temperature` (> 0), `learnable_temperature`, `version`, and
    version 2: `queue_size` and `symmetric` (published: only first views ask);
    version 3: `prediction` (a head on the queries); the keys of the batch are the candidates, both ways.
    """

    def __init__(self, setup: Setup):
        super().__init__(setup)
        options = setup.options
        width = options["projection"]["width"]
        self.temperature = Temperature(options["temperature"], options["learnable_temperature"])
        self.queue = self.prediction_head = None
        if options["version"] == 2:
            self.queue = Queue(options["queue_size"], width, setup.seed)
        else:
            self.prediction_head = head("prediction_head", width, **options["prediction"])
        self.symmetric = options["version"] == 3 or bool(options["symmetric"])

    def embed(self, views, features) -> dict[str, Any]:
        """Embeddings `z`, `queries` (predictions of them in version 3) and the keys: `targets`."""
        outputs = super().embed(views, features)
        z = outputs["z"]
        return {**outputs, "queries": z if self.prediction_head is None else self.prediction_head(z, training=True)}

    def contrastive_loss(self, outputs, labels):
        """Queries against keys; in version 2 the queue takes the keys after."""
        queries, keys = halves(outputs["queries"]), halves(outputs["targets"])
        temperature = self.temperature.value()
        if self.queue is None:
            # the sum of both directions, as published
            return 2.0 * both_ways(partial(moco_v3, temperature=temperature), queries, keys)
        loss = partial(moco, queue=ops.convert_to_tensor(self.queue.rows), temperature=temperature)
        found = both_ways(loss, queries, keys, self.symmetric)
        self.queue.enqueue(outputs["targets"] if self.symmetric else keys[1])
        return found
