"""Projection and prediction heads: small perceptrons between features and embeddings."""

from __future__ import annotations

import keras

from models.options import options, within

# the name of an encoder with the first layers of a head on it
WITH_LAYERS = "encoder_and_head"


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

    def layers_up_to(self, hidden: int) -> int:
        """Keras layers that so many hidden layers are made of."""
        return hidden * (3 if self.batch_norm else 2)


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
    stack = [keras.Input((features,)), *_hidden(options, options.layers - 1)]
    stack.append(keras.layers.Dense(options.width, use_bias=not options.output_norm))
    if options.output_norm:
        stack.append(_batch_norm(center=False, scale=False))
    if options.output_relu:
        stack.append(keras.layers.ReLU())
    return keras.Sequential(stack, name=name)


def up_to_layer(encoder: keras.Model, options: HeadOptions, layers: int) -> keras.Model:
    """An encoder and the first hidden layers of a projection head on it, with fresh weights.

    Features of a middle layer of the head have gone through less of what makes its output blind to what views
    change, and fine-tune better than the encoder's where the head is deep and the labels are few.

    Args:
        encoder: as from `models.encoders.build`.
        options: of the whole head.
        layers: how many hidden layers of it, with their normalisation and ReLU; 1 to `options.layers` − 1.

    Returns:
        A model from the encoder's images to (N, options.hidden); its weights are the encoder's and, after them,
        those of the layers.

    Raises:
        ValueError: the head has not so many hidden layers.

    Source: Chen et al. 2020, arXiv:2006.10029 (SimCLR v2), section 2: fine-tuning from a middle layer.
    """
    if not 1 <= layers < options.layers:
        raise ValueError(
            f"layers = {layers}: a head of {options.layers} layers has {options.layers - 1} hidden ones"
        )
    middle = keras.Sequential(
        [keras.Input((encoder.output_shape[-1],)), *_hidden(options, layers)], name="projection_head"
    )
    images = keras.Input(encoder.input_shape[1:])
    return keras.Model(images, middle(encoder(images)), name=WITH_LAYERS)


def _hidden(options: HeadOptions, count: int) -> list[keras.layers.Layer]:
    stack = []
    for _ in range(count):
        # a bias before a normalisation would be subtracted again
        stack.append(keras.layers.Dense(options.hidden, use_bias=not options.batch_norm))
        if options.batch_norm:
            stack.append(_batch_norm())
        stack.append(keras.layers.ReLU())
    return stack


def _batch_norm(**options) -> keras.layers.Layer:
    # torch's momentum of 0.1, in Keras's notation
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, **options)
