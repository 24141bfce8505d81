"""The table of a network's layers."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from models import encoders
from models.classifier import softmax_head
from models.layers import layers_of
from models.methods.shared.heads import head, up_to_layer
from tests.helpers.options import head as options
from tests.helpers.options import network


def test_a_small_network_is_listed_layer_by_layer():
    layers = keras.layers
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(5, use_bias=False), layers.BatchNormalization()])
    images = keras.Input((None, None, 3))
    outer = keras.Model(images, inner(layers.GlobalAveragePooling2D()(layers.Conv2D(6, 3)(images))))
    assert layers_of(outer) == [
        {"kind": "Conv2D", "output": [None, None, 6], "weights": 3 * 3 * 3 * 6 + 6},
        {"kind": "GlobalAveragePooling2D", "output": [6], "weights": 0},
        {"kind": "Dense", "output": [5], "weights": 6 * 5},
        # scale, shift, and both statistics
        {"kind": "BatchNormalization", "output": [5], "weights": 4 * 5},
    ]


@pytest.mark.parametrize("option", ["fast", "conv_small", "resnet18"])
def test_no_weight_of_a_whole_classifier_is_missing_or_counted_twice(option, tmp_path):
    encoder = network(option, 32)
    on_head = up_to_layer(encoder, options(batch_norm=True, layers=3), 1)
    whole = encoders.deployable(on_head, softmax_head(np.zeros((options().hidden, 3)), np.zeros(3)))
    rows = layers_of(whole)
    assert sum(row["weights"] for row in rows) == whole.count_params()
    assert rows[-1] == {"kind": "Dense", "output": [3], "weights": 3 * options().hidden + 3}
    # the parts that a report shows
    assert rows[-1:] == layers_of(whole.layers[-1])
    assert layers_of(encoder) == layers_of(network(option, 32))
    assert [row["kind"] for row in layers_of(head("h", 6, options()))] == ["Dense", "ReLU", "Dense"]
    # and as a file says it
    whole.save(tmp_path / "whole.keras")
    assert layers_of(keras.saving.load_model(tmp_path / "whole.keras")) == rows
