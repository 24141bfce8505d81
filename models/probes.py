"""Linear probe: multinomial logistic regression on frozen features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from models.augmentation import Augmentation
from models.batches import check_labels
from models.options import options, require_items, within
from models.training import class_weights, cosine, rate_at


@dataclass(frozen=True)
class LinearProbe:
    """A trained probe: kernel (D, classes) and bias (classes,) on raw features."""

    kernel: np.ndarray
    bias: np.ndarray

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Class probabilities of features (N, D): float32, shape (N, classes)."""
        return softmax(features @ self.kernel + self.bias)


def fit_linear_probe(
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    l2: float,
    steps: int,
    seed: int,
    class_weight: str | None = None,
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
        class_weight: see `models.training.class_weights`.

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
    weights = class_weights(labels, classes, class_weight)[labels, None]
    kernel = np.random.default_rng(seed).normal(0, 0.01, (x.shape[1], classes)).astype("float32")
    bias = np.zeros(classes, "float32")
    adam = Adam([kernel, bias])
    for step in range(steps):
        error = weights * (softmax(x @ kernel + bias) - y) / len(x)
        adam.update([x.T @ error + l2 * kernel, error.sum(axis=0)], cosine(0.05, step / steps))
    folded = kernel / spread[:, None]
    return LinearProbe(folded.astype("float32"), (bias - mean @ folded).astype("float32"))


@options
class MiniBatchOptions:
    """Logistic regression in mini-batches.

    Args:
        epochs: passes over the images.
        batch_size: images per step; an epoch's last step has what is left.
        learning_rate: at the start; tenfold lower at each of `milestones`.
        weight_decay: of AdamW; the bias has none.
        milestones: fractions of the training.
    """

    epochs: int = within(ge=1)
    batch_size: int = within(ge=1)
    learning_rate: float = within(gt=0)
    weight_decay: float = within(ge=0)
    milestones: tuple[float, ...]

    def __post_init__(self) -> None:
        require_items("milestones", self.milestones, 0, 1)


@options
class ProbeOptions:
    """Linear classifier on frozen features, kNN, and accuracy over the number of labels per class.

    Args:
        label_budgets: numbers of labels per class (10), and fractions of what the smallest class has (0.1).
        solver: `full_batch` goes to the optimum, on standardised features, with the penalty of `l2` that is best on
            validation; `minibatch` trains once on the features as they are.
        l2: penalties to choose from.
        steps: of `full_batch`.
        minibatch: of the solver of that name.
        class_weight: what the loss of an image of each class counts, see `models.training.class_weights`; the
            nearest neighbours have none.
        knn_neighbours, knn_temperature: of the weighted nearest neighbours.
        augmented_copies: how many changed copies of each labelled image the classifier learns from besides the
            image itself; the encoder sees them once, before. 0: none.
        augmentation: of the copies.
    """

    label_budgets: tuple[int | float, ...]
    solver: Literal["full_batch", "minibatch"]
    l2: tuple[float, ...] = within(min_length=1)
    steps: int = within(ge=1)
    minibatch: MiniBatchOptions
    class_weight: Literal["balanced"] | None
    knn_neighbours: int = within(ge=1)
    knn_temperature: float = within(gt=0)
    augmented_copies: int = within(ge=0)
    augmentation: Augmentation

    def __post_init__(self) -> None:
        if not all(0 < budget < 1 or (budget >= 1 and budget == int(budget)) for budget in self.label_budgets):
            raise ValueError(
                f"label_budgets = {list(self.label_budgets)}: must be whole numbers ≥ 1 of labels per class, or "
                "fractions between 0 and 1 of the labels there are"
            )
        if any(penalty < 0 for penalty in self.l2):
            raise ValueError(f"l2 = {list(self.l2)}: must be numbers ≥ 0")


def fit_minibatch_probe(
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    options: MiniBatchOptions,
    seed: int,
    class_weight: str | None = None,
) -> LinearProbe:
    """Fit a linear classifier by AdamW in mini-batches, on the features as they are.

    Args:
        features: float32, shape (N, D).
        labels: int64, shape (N,), in [0, classes).
        classes: number of classes.
        options: how.
        seed: decides the initial weights and the order of the images.
        class_weight: see `models.training.class_weights`.

    Returns:
        The probe after the last epoch.

    Raises:
        ValueError: there is no image, or a label outside [0, classes).

    Source: Lippe, "Tutorial 17: Self-Supervised Contrastive Learning with SimCLR" (JAX), UvA, 2022.
    """
    check_labels(labels, classes)
    n, width = features.shape
    rng = np.random.default_rng(seed)
    kernel = rng.normal(0, width**-0.5, (width, classes)).astype("float32")
    bias = np.zeros(classes, "float32")
    targets = np.eye(classes, dtype="float32")[labels]
    weights = class_weights(labels, classes, class_weight)[labels, None]
    adam = Adam([kernel, bias])
    total, step = options.epochs * -(-n // options.batch_size), 0
    for _ in range(options.epochs):
        order = rng.permutation(n)
        for start in range(0, n, options.batch_size):
            rows = order[start : start + options.batch_size]
            x = features[rows]
            error = weights[rows] * (softmax(x @ kernel + bias) - targets[rows]) / len(rows)
            rate = rate_at(step / total, options.learning_rate, "steps", options.milestones)
            kernel *= 1 - rate * options.weight_decay
            adam.update([x.T @ error, error.sum(axis=0)], rate)
            step += 1
    return LinearProbe(kernel, bias)


def penalties(options: ProbeOptions) -> tuple[float | None, ...]:
    """What the penalty is chosen from; the solver `minibatch` has none."""
    return options.l2 if options.solver == "full_batch" else (None,)


def fit_probe(
    features: np.ndarray, labels: np.ndarray, classes: int, options: ProbeOptions, l2: float | None, seed: int
) -> LinearProbe:
    """Fit a linear classifier with the solver that the options name.

    Args:
        features: float32, shape (N, D).
        labels: int64, shape (N,), in [0, classes).
        classes: number of classes.
        options: how.
        l2: one of `penalties(options)`.
        seed: decides the initial weights, and of mini-batches the order.

    Raises:
        ValueError: there is no image, or a label outside [0, classes).
    """
    if l2 is None:
        return fit_minibatch_probe(features, labels, classes, options.minibatch, seed, options.class_weight)
    return fit_linear_probe(features, labels, classes, l2, options.steps, seed, options.class_weight)


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
