"""Projection and prediction heads: small perceptrons between features and embeddings."""

from __future__ import annotations

import keras

from models.options import options, within


@options
class HeadOptions:
    """Dense layers with ReLU between them.

    Args:
        hidden: units of each layer but the last.
        width: units of the last layer, the width of the embedding.
        layers: number of dense layers.
        batch_norm: normalise each hidden layer over the batch before its ReLU.
        output_norm: normalise the output over the batch too, without learned scale and shift.
        output_relu: end with a ReLU.
    """

    hidden: int = within(ge=1)
    width: int = within(ge=1)
    layers: int = within(ge=1, le=8)
    batch_norm: bool
    output_norm: bool
    output_relu: bool


def head(name: str, features: int, options: HeadOptions) -> keras.Model:
    """Dense layers with ReLU between them; the loss sees their output, and what follows training does not.

    Args:
        name: of the model.
        features: width of the input.
        options: its layers.

    Returns:
        A model from (N, features) to (N, options.width).

    Source: Chen et al. 2020, arXiv:2002.05709, section 2.1; batch normalisation: Chen and He 2020,
    arXiv:2011.10566, section 3.
    """
    stack: list[keras.layers.Layer] = [keras.Input((features,))]
    for _ in range(options.layers - 1):
        # a bias before a normalisation would be subtracted again
        stack.append(keras.layers.Dense(options.hidden, use_bias=not options.batch_norm))
        if options.batch_norm:
            stack.append(_batch_norm())
        stack.append(keras.layers.ReLU())
    stack.append(keras.layers.Dense(options.width, use_bias=not options.output_norm))
    if options.output_norm:
        stack.append(_batch_norm(center=False, scale=False))
    if options.output_relu:
        stack.append(keras.layers.ReLU())
    return keras.Sequential(stack, name=name)


def _batch_norm(**options) -> keras.layers.Layer:
    # torch's momentum of 0.1, in Keras's notation
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, **options)
