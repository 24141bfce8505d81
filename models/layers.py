"""What a network is made of, as a table."""

from __future__ import annotations

from typing import Any

import keras


def layers_of(network: keras.Model) -> list[dict[str, Any]]:
    """A row for each layer of a network, those of networks within it in their place.

    Args:
        network: functional or sequential.

    Returns:
        `kind` (the layer's class), `output` (its shape without the batch; None is any size) and `weights` (how many
        numbers, those that no optimiser changes among them), in the order of computation. Inputs are left out, and
        names, which Keras numbers anew in each process.
    """
    rows: list[dict[str, Any]] = []
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            rows += layers_of(layer)
        elif not isinstance(layer, keras.layers.InputLayer):
            rows.append(
                {
                    "kind": type(layer).__name__,
                    "output": list(layer.output.shape[1:]),
                    "weights": int(layer.count_params()),
                }
            )
    return rows
