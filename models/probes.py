"""Linear probe: multinomial logistic regression on frozen features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.batches import check_labels
from models.training import cosine


@dataclass(frozen=True)
class LinearProbe:
    """A trained probe: kernel (D, classes) and bias (classes,) on raw features."""

    kernel: np.ndarray
    bias: np.ndarray

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Class probabilities of features (N, D): float32, shape (N, classes)."""
        return softmax(features @ self.kernel + self.bias)


def fit_linear_probe(
    features: np.ndarray, labels: np.ndarray, classes: int, l2: float, steps: int, seed: int
) -> LinearProbe:
    """Fit a linear classifier by full-batch Adam on standardised features.

    The standardisation is folded into the returned weights.

    Args:
        features: float32, shape (N, D).
        labels: int64, shape (N,), in [0, classes).
        classes: number of classes.
        l2: penalty on the squared weights, times one half; ≥ 0.
        steps: optimisation steps; the learning rate falls along half a cosine.
        seed: decides the initial weights.

    Returns:
        The probe.

    Raises:
        ValueError: there is no image, or a label outside [0, classes).
    """
    check_labels(labels, classes)
    # in float32 the mean of a constant is off by a rounding, which would pass for a spread
    mean = features.mean(axis=0, dtype="float64")
    spread = features.std(axis=0, dtype="float64")
    # a feature that never changes carries nothing, and must not be divided by its spread
    spread = np.where(spread > 1e-6, spread, 1.0)
    x = ((features - mean) / spread).astype("float32")
    y = np.eye(classes, dtype="float32")[labels]
    kernel = np.random.default_rng(seed).normal(0, 0.01, (x.shape[1], classes)).astype("float32")
    bias = np.zeros(classes, "float32")
    adam = Adam([kernel, bias])
    for step in range(steps):
        error = (softmax(x @ kernel + bias) - y) / len(x)
        adam.update([x.T @ error + l2 * kernel, error.sum(axis=0)], cosine(0.05, step / steps))
    folded = kernel / spread[:, None]
    return LinearProbe(folded.astype("float32"), (bias - mean @ folded).astype("float32"))


class Adam:
    """Adam on NumPy arrays, updated in place.

    Source: Kingma and Ba 2014, arXiv:1412.6980, algorithm 1.
    """

    def __init__(self, parameters: list[np.ndarray]):
        self._parameters = parameters
        self._first = [np.zeros_like(p) for p in parameters]
        self._second = [np.zeros_like(p) for p in parameters]
        self._step = 0

    def update(self, gradients: list[np.ndarray], learning_rate: float) -> None:
        """One step along the gradients of the parameters, in the same order."""
        self._step += 1
        for p, m, v, g in zip(self._parameters, self._first, self._second, gradients, strict=True):
            m += 0.1 * (g - m)
            v += 0.001 * (g * g - v)
            p -= learning_rate * (m / (1 - 0.9**self._step)) / (np.sqrt(v / (1 - 0.999**self._step)) + 1e-8)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)
