"""Assignments of images to prototypes: SwAV and DINO."""

from __future__ import annotations

from keras import ops


def sinkhorn(scores, epsilon, iterations):
    """Soft assignments of images to prototypes that use every prototype equally.

    Args:
        scores: similarity of each image to each prototype, shape (N, K).
        epsilon: > 0, softness; 0.05 is usual.
        iterations: of the normalisation of columns and rows in turn, ≥ 1; 3 is usual.

    Returns:
        Float32, shape (N, K); each row sums to 1, each column to about N / K. No gradient flows through it.

    Raises:
        ValueError: epsilon is not > 0, or iterations < 1.

    Source: Caron et al. 2020, arXiv:2006.09882, eq. 3–5; computed in logarithms, so that nothing overflows.
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon must be > 0, not {epsilon}")
    if iterations < 1:
        raise ValueError(f"iterations must be ≥ 1, not {iterations}")
    logs = ops.stop_gradient(ops.cast(scores, "float32")) / epsilon
    for _ in range(iterations):
        logs = logs - ops.logsumexp(logs, axis=0, keepdims=True)
        logs = logs - ops.logsumexp(logs, axis=1, keepdims=True)
    return ops.exp(logs)


def cross_entropy(targets, logits, temperature):
    """Cross entropy of softmax(logits / temperature) with targets whose rows sum to 1, both (N, K): a scalar."""
    logits = ops.cast(logits, "float32") / temperature
    return -ops.mean(ops.sum(targets * ops.log_softmax(logits, axis=-1), axis=-1))
