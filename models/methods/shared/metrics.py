"""How well two views find each other: numbers that need no label."""

from __future__ import annotations

from keras import ops

from models.losses.scaling import l2_normalize, standardize


def contrastive_ranks(z1, z2):
    """Rank of each embedding's other view among the other batch's embeddings, in both directions.

    Args:
        z1, z2: embeddings of the two views, shape (N, D), any scale.

    Returns:
        Float32, shape (2N,): 0 where the other view is more similar than all others, at most N − 1.
        The mean of `ranks < 1` is the contrastive accuracy, that of `ranks < 5` its top-5 form.
        A tie counts as not found, and so does NaN, so that an encoder that maps all images to one point does not
        look perfect.
    """
    similarities = ops.matmul(l2_normalize(z1), ops.transpose(l2_normalize(z2)))
    positives = ops.diagonal(similarities)
    n = ops.cast(ops.shape(similarities)[0], "float32")
    # the embeddings that are less similar than the other view; the other view itself is not among them
    forward = ops.sum(ops.cast(similarities < positives[:, None], "float32"), axis=1)
    backward = ops.sum(ops.cast(similarities < positives[None, :], "float32"), axis=0)
    return n - 1.0 - ops.concatenate([forward, backward], axis=0)


def view_ranks(z1, z2):
    """Rank of each embedding's other view among all other views of the batch, the first views among them.

    Args:
        z1, z2: embeddings of the two views, shape (N, D), any scale.

    Returns:
        Float32, shape (2N,): from 1, where the other view is more similar than the 2N − 2 views of other images, to
        2N − 1. Ties and NaN count as not found, as in `contrastive_ranks`.

    Source: Lippe, "Tutorial 17: Self-Supervised Contrastive Learning with SimCLR" (JAX), UvA, 2022.
    """
    z = l2_normalize(ops.concatenate([z1, z2], axis=0))
    similarities = ops.matmul(z, ops.transpose(z))
    views = ops.shape(similarities)[0]
    n = views // 2
    positives = ops.concatenate([ops.diagonal(similarities[:n, n:]), ops.diagonal(similarities[n:, :n])], axis=0)
    less_similar = ops.cast(similarities < positives[:, None], "float32") * (1.0 - ops.eye(views))
    return ops.cast(views - 1, "float32") - ops.sum(less_similar, axis=1)


def correlation_accuracy(z1, z2):
    """Fraction of embedding dimensions that correlate most with themselves across the two views.

    Args:
        z1, z2: embeddings of the two views, shape (N, D).

    Returns:
        Scalar float32 in [0, 1]; low values say that dimensions are redundant.

    Source: Zbontar et al. 2021, arXiv:2103.03230, whose loss drives this matrix to the identity.
    """
    correlations = ops.matmul(ops.transpose(standardize(z1)), standardize(z2))
    own = ops.arange(correlations.shape[0])
    forward = ops.mean(ops.cast(ops.equal(ops.cast(ops.argmax(correlations, axis=1), own.dtype), own), "float32"))
    backward = ops.mean(ops.cast(ops.equal(ops.cast(ops.argmax(correlations, axis=0), own.dtype), own), "float32"))
    return (forward + backward) / 2
