"""SimCLR as a user of Keras writes it from the published example: its layers, its encoder, a plain training step.

Source of the recipe: Béres, "Semi-supervised image classification using contrastive pretraining with SimCLR",
keras.io, 2021. The text is the project's own.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from benchmarks.speed.turns import serve, work
from benchmarks.speed.views import over_batches

asked = work()
size, batch, rows, width = asked["size"], asked["batch"], asked["rows"], asked["width"]
images = np.random.default_rng(0).integers(0, 256, (rows, size, size, 3), "uint8")
keras.utils.set_random_seed(0)


class RandomColorAffine(layers.Layer):
    """Each image's colours times one random matrix, near the unit matrix."""

    def call(self, values, training=True):
        count = tf.shape(values)[0]
        scale = 1.0 + tf.random.uniform((count, 1, 1, 1), -0.6, 0.6)
        jitter = tf.random.uniform((count, 1, 3, 3), -0.2, 0.2)
        matrix = tf.eye(3, batch_shape=[count, 1]) * scale + jitter
        return tf.clip_by_value(tf.matmul(values, matrix), 0.0, 1.0)


augmenter = keras.Sequential(
    [
        keras.Input((size, size, 3)),
        layers.Rescaling(1 / 255),
        layers.RandomFlip("horizontal"),
        layers.RandomTranslation(0.25, 0.25),
        layers.RandomZoom((-0.5, 0.0), (-0.5, 0.0)),
        RandomColorAffine(),
    ]
)
encoder = keras.Sequential(
    [
        keras.Input((size, size, 3)),
        *(layers.Conv2D(width, 3, strides=2, activation="relu") for _ in range(4)),
        layers.Flatten(),
        layers.Dense(width, activation="relu"),
    ]
)
head = keras.Sequential([keras.Input((width,)), layers.Dense(width, activation="relu"), layers.Dense(width)])


class SimCLR(keras.Model):
    """Both directions of the cross entropy between two views."""

    def __init__(self):
        super().__init__()
        self.encoder, self.head = encoder, head
        self.loss_mean = keras.metrics.Mean(name="contrastive_loss")
        self.accuracy = keras.metrics.SparseCategoricalAccuracy(name="contrastive_accuracy")

    @property
    def metrics(self):
        return [self.loss_mean, self.accuracy]

    def train_step(self, data):
        views = [augmenter(data, training=True) for _ in range(2)]
        with tf.GradientTape() as tape:
            first, second = (tf.math.l2_normalize(self.head(self.encoder(view)), axis=1) for view in views)
            similarities = tf.matmul(first, second, transpose_b=True) / 0.1
            labels = tf.range(tf.shape(first)[0])
            losses = [
                keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
                for logits in (similarities, tf.transpose(similarities))
            ]
            loss = tf.reduce_mean(losses)
        weights = self.encoder.trainable_weights + self.head.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        self.loss_mean.update_state(loss)
        self.accuracy.update_state(labels, similarities)
        return {metric.name: metric.result() for metric in self.metrics}


def augmentation():
    """Two views of each image, and nothing else."""
    return over_batches(lambda data: [augmenter(data, training=True) for _ in range(2)], images, batch)


def pretraining():
    """`fit` over tf.data, shuffled and prefetched as in the example."""
    model = SimCLR()
    model.compile(optimizer=keras.optimizers.Adam())

    def train(steps):
        data = tf.data.Dataset.from_tensor_slices(images[: steps * batch])
        data = data.shuffle(steps * batch).batch(batch).prefetch(tf.data.AUTOTUNE)
        model.fit(data, verbose=0)

    return train


serve(augmentation() if asked["what"] == "augmentation" else pretraining())
