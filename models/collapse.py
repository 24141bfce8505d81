"""Is the encoder still telling images apart? Two numbers that need no label."""

from __future__ import annotations

import numpy as np


def spread(embeddings: np.ndarray) -> float:
    """Standard deviation of unit-length embeddings over images, averaged over dimensions, times √D.

    Args:
        embeddings: shape (N, D), any scale.

    Returns:
        0 where all images have the same direction; about 1 where the directions are evenly spread; NaN where an
        embedding is not finite.

    Source: Chen and He 2020, arXiv:2011.10566, figure 2.
    """
    rows = np.asarray(embeddings, "float64")
    if not np.isfinite(rows).all():
        return float("nan")
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return float(rows.std(axis=0).mean() * np.sqrt(rows.shape[1]))


def effective_rank(embeddings: np.ndarray) -> float:
    """In how many dimensions the embeddings lie: exponential of the entropy of their singular values.

    Args:
        embeddings: shape (N, D), any scale; centred here, so that one common direction does not count.

    Returns:
        Between 0 (all images alike) and min(N, D); NaN where an embedding is not finite.

    Source: Garrido et al. 2022 (RankMe), arXiv:2210.02885, eq. 1; there without centring.
    """
    rows = np.asarray(embeddings, "float64")
    if not np.isfinite(rows).all():
        return float("nan")
    centred = rows - rows.mean(axis=0)
    values = np.linalg.svd(centred, compute_uv=False)
    # what rounding leaves of equal rows is no dimension
    if values.size == 0 or values[0] <= 1e-6 * max(np.abs(rows).max(initial=0.0), 1e-30) * np.sqrt(rows.size):
        return 0.0
    shares = values / values.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))
