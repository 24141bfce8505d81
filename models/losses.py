"""Losses of self-supervised pretraining: pure functions on (N, D) arrays, in float32 whatever comes in."""

from __future__ import annotations

import math

from keras import ops

from models.scaling import l2_normalize, standardize


def nt_xent(z1, z2, temperature):
    """Normalised temperature-scaled cross entropy over two views of a batch.

    Each of the 2N embeddings must pick its other view among the 2N − 1 others.

    Args:
        z1, z2: embeddings of the two views, shape (N, D), any scale (normalised here).
        temperature: > 0; smaller makes the softmax peakier. 0.1 is usual for small images.

    Returns:
        Scalar float32, in nats. Uniform embeddings give log(2N − 1).

    Raises:
        ValueError: temperature is not > 0, or the shapes differ.

    Source: Chen et al. 2020, arXiv:2002.05709, eq. 1.
    """
    z, n = _both_views(z1, z2, temperature)
    similarities = ops.matmul(z, ops.transpose(z)) / temperature
    positives = ops.sum(z[:n] * z[n:], axis=-1) / temperature
    return ops.mean(_log_sum_exp_without(similarities, ops.eye(2 * n))) - ops.mean(positives)


def cross_view_nt_xent(z1, z2, temperature):
    """NT-Xent with the N embeddings of the other view as the only candidates, in both directions.

    Args:
        z1, z2, temperature: as for `nt_xent`.

    Returns:
        Scalar float32, in nats. Uniform embeddings give log N.

    Raises:
        ValueError: temperature is not > 0, or the shapes differ.

    Source: Sohn 2016, "Improved deep metric learning with multi-class N-pair loss objective", in both directions as
    Radford et al. 2021, arXiv:2103.00020, figure 3.
    """
    _check_pair(z1, z2, "the two views")
    _check_temperature(temperature)
    similarities = ops.matmul(l2_normalize(z1), ops.transpose(l2_normalize(z2))) / temperature
    rows = ops.mean(ops.logsumexp(similarities, axis=1))
    columns = ops.mean(ops.logsumexp(similarities, axis=0))
    return (rows + columns) / 2 - ops.mean(ops.diagonal(similarities))


def dcl(z1, z2, temperature):
    """Decoupled contrastive loss: NT-Xent without the positive in the denominator.

    The gradient of an easy positive then no longer fades, which helps with small batches.

    Args:
        z1, z2, temperature: as for `nt_xent`; N ≥ 2, or there is nothing to tell apart.

    Returns:
        Scalar float32, in nats; may be negative. Uniform embeddings give log(2N − 2).

    Raises:
        ValueError: temperature is not > 0, the shapes differ, or N is 1.

    Source: Yeh et al. 2021, arXiv:2110.06848, eq. 6 (the mean instead of the sum over views and images).
    """
    z, n = _both_views(z1, z2, temperature)
    if z1.shape[0] == 1:
        raise ValueError("the decoupled loss needs at least 2 images a batch, not 1")
    similarities = ops.matmul(z, ops.transpose(z)) / temperature
    same_image = ops.tile(ops.eye(n), (2, 2))
    positives = ops.sum(z[:n] * z[n:], axis=-1) / temperature
    return ops.mean(_log_sum_exp_without(similarities, same_image)) - ops.mean(positives)


def nnclr(nn1, z2, temperature):
    """Contrast between the nearest neighbours of one view and the other view, in both directions.

    Args:
        nn1: for each image the nearest neighbour of its first view in the queue, shape (N, D), any scale.
        z2: embeddings (predictions) of the second view, shape (N, D), any scale.
        temperature: > 0; 0.1 is usual.

    Returns:
        Scalar float32, in nats. Uniform embeddings give log N. The method adds the same with the views swapped.

    Raises:
        ValueError: temperature is not > 0, or the shapes differ.

    Source: Dwibedi et al. 2021, arXiv:2104.14548, eq. 3 and its symmetric form in section 3.2.
    """
    return cross_view_nt_xent(nn1, z2, temperature)


def sup_con(z, labels, temperature):
    """Supervised contrastive loss: each embedding must find all others of its class (L_out).

    Args:
        z: embeddings, shape (M, D), any scale; with two views stack them and repeat the labels.
        labels: int, shape (M,); rows labelled −1 (unlabelled) are left out, as anchors and as candidates.
        temperature: > 0; 0.05 to 0.1 is usual.

    Returns:
        Scalar float32, in nats: mean over the anchors that have a positive; 0 where none has. M equal embeddings of
        one class give log(M − 1).

    Raises:
        ValueError: temperature is not > 0, or the labels are not one for each row.

    Source: Khosla et al. 2020, arXiv:2004.11362, eq. 2 (the mean instead of the sum over anchors).
    """
    _check_rows(z)
    _check_temperature(temperature)
    if tuple(labels.shape) != (z.shape[0],):
        raise ValueError(f"labels must have the shape ({z.shape[0]},), not {tuple(labels.shape)}")
    z = l2_normalize(z)
    similarities = ops.matmul(z, ops.transpose(z)) / temperature
    labelled = ops.cast(labels >= 0, "float32")
    itself = ops.eye(ops.shape(z)[0])
    log_candidates = _log_sum_exp_without(similarities, 1.0 - (1.0 - itself) * labelled[None, :])
    same_class = ops.cast(ops.equal(labels[:, None], labels[None, :]), "float32") * (1.0 - itself)
    positives = same_class * labelled[:, None]
    count = ops.sum(positives, axis=1)
    mean_positive = ops.sum(positives * similarities, axis=1) / ops.maximum(count, 1.0)
    anchors = ops.cast(count > 0, "float32")
    return ops.sum((log_candidates - mean_positive) * anchors) / ops.maximum(ops.sum(anchors), 1.0)


def moco(queries, keys, queue, temperature):
    """Each query must pick its key among its key and all entries of a queue.

    Args:
        queries: shape (N, D), any scale.
        keys: embeddings of the other views by the momentum encoder, shape (N, D), any scale.
        queue: earlier keys, shape (K, D), any scale.
        temperature: > 0; 0.07 to 0.2 is usual.

    Returns:
        Scalar float32, in nats. Uniform embeddings give log(K + 1).

    Raises:
        ValueError: temperature is not > 0, or the shapes don't fit.

    Source: He et al. 2019, arXiv:1911.05722, eq. 1.
    """
    _check_pair(queries, keys, "queries and keys")
    _check_temperature(temperature)
    if len(queue.shape) != 2 or queue.shape[1] != queries.shape[1]:
        raise ValueError(f"the queue must have the shape (K, {queries.shape[1]}), not {tuple(queue.shape)}")
    queries, keys, queue = l2_normalize(queries), l2_normalize(keys), l2_normalize(queue)
    positives = ops.sum(queries * keys, axis=-1, keepdims=True)
    logits = ops.concatenate([positives, ops.matmul(queries, ops.transpose(queue))], axis=1) / temperature
    return ops.mean(ops.logsumexp(logits, axis=1) - logits[:, 0])


def moco_v3(queries, keys, temperature):
    """Each query must pick its key among the keys of the batch; scaled by 2·temperature, held still.

    Args:
        queries: shape (N, D), any scale.
        keys: embeddings of the other views by the momentum encoder, shape (N, D), any scale.
        temperature: > 0; 0.2 to 1 is usual.

    Returns:
        Scalar float32. Uniform embeddings give 2·temperature·log N. The method adds the same with views swapped.

    Raises:
        ValueError: temperature is not > 0, or the shapes differ.

    Source: Chen et al. 2021, arXiv:2104.02057, algorithm 1.
    """
    _check_pair(queries, keys, "queries and keys")
    _check_temperature(temperature)
    similarities = ops.matmul(l2_normalize(queries), ops.transpose(l2_normalize(keys))) / temperature
    losses = ops.logsumexp(similarities, axis=1) - ops.diagonal(similarities)
    # the factor's own gradient would only ever lower a learned temperature, whatever the embeddings
    return 2.0 * ops.stop_gradient(ops.convert_to_tensor(temperature, "float32")) * ops.mean(losses)


def negative_cosine(p, z):
    """Minus the cosine between predictions and targets, as in SimSiam.

    Args:
        p: predictions, shape (N, D), any scale.
        z: targets, shape (N, D), any scale; the caller stops their gradient.

    Returns:
        Scalar float32 in [−1, 1]; −1 where each prediction points to its target.

    Raises:
        ValueError: the shapes differ.

    Source: Chen and He 2020, arXiv:2011.10566, eq. 1.
    """
    _check_pair(p, z, "predictions and targets")
    return -ops.mean(ops.sum(l2_normalize(p) * l2_normalize(z), axis=-1))


def byol(p, z):
    """Squared distance between normalised predictions and targets: 2 − 2·cosine.

    Args:
        p, z: as for `negative_cosine`.

    Returns:
        Scalar float32 in [0, 4]. The method adds the same with the views swapped.

    Raises:
        ValueError: the shapes differ.

    Source: Grill et al. 2020, arXiv:2006.07733, eq. 2.
    """
    return 2.0 + 2.0 * negative_cosine(p, z)


def barlow_twins(z1, z2, off_diagonal):
    """Drive the cross-correlation of the two views' dimensions to the identity.

    Args:
        z1, z2: embeddings of the two views, shape (N, D), any scale (standardised over the batch here); N ≥ 2.
        off_diagonal: λ ≥ 0, weight of the redundancy between dimensions; 0.005 is usual.

    Returns:
        Scalar float32 ≥ 0: 0 for identical views of uncorrelated dimensions, D for views without correlation.

    Raises:
        ValueError: off_diagonal is negative, or the shapes differ.

    Source: Zbontar et al. 2021, arXiv:2103.03230, eq. 1 and 2.
    """
    _check_pair(z1, z2, "the two views")
    _check_weights(off_diagonal=off_diagonal)
    n = ops.cast(ops.shape(z1)[0], "float32")
    correlations = ops.matmul(ops.transpose(standardize(z1)), standardize(z2)) / n
    own = ops.eye(z1.shape[1])
    squares = ops.square(correlations - own)
    return ops.sum(squares * own) + off_diagonal * ops.sum(squares * (1.0 - own))


def vicreg(z1, z2, invariance=25.0, variance=25.0, covariance=1.0):
    """Pull two views together while each dimension keeps its spread and dimensions stay uncorrelated.

    Args:
        z1, z2: embeddings of the two views, shape (N, D); their scale matters; N ≥ 2.
        invariance, variance, covariance: weights λ, μ, ν ≥ 0 of the three terms.

    Returns:
        Scalar float32 ≥ 0.

    Raises:
        ValueError: a weight is negative, the shapes differ, or N is 1.

    Source: Bardes et al. 2021, arXiv:2105.04906, eq. 1–6, scaled as the authors' code, for which 25, 25, 1 were
    found: the invariance (eq. 5) is also averaged over the D dimensions, and the variance over the two views.
    """
    _check_pair(z1, z2, "the two views")
    _check_weights(invariance=invariance, variance=variance, covariance=covariance)
    if z1.shape[0] == 1:
        raise ValueError("VICReg needs at least 2 images a batch, not 1")
    z1, z2 = ops.cast(z1, "float32"), ops.cast(z2, "float32")
    similarity = ops.mean(ops.square(z1 - z2))
    covariances = [_covariance(z) for z in (z1, z2)]
    # ε keeps the root's gradient finite for a dimension that never changes
    hinge = sum(ops.mean(ops.relu(1.0 - ops.sqrt(ops.diagonal(c) + 1e-4))) for c in covariances)
    others = 1.0 - ops.eye(z1.shape[1])
    redundancy = sum(ops.sum(ops.square(c * others)) / z1.shape[1] for c in covariances)
    return invariance * similarity + variance * hinge / 2.0 + covariance * redundancy


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


def swav(scores1, scores2, temperature, epsilon=0.05, iterations=3):
    """Predict the prototype assignment of one view from the other, both ways.

    Args:
        scores1, scores2: cosine of each view's embeddings with the prototypes, shape (N, K).
        temperature: > 0, of the prediction; 0.1 is usual.
        epsilon, iterations: of `sinkhorn`.

    Returns:
        Scalar float32, in nats. Equal scores give log K.

    Raises:
        ValueError: temperature or epsilon is not > 0, or the shapes differ.

    Source: Caron et al. 2020, arXiv:2006.09882, eq. 1 and 2, averaged over the two directions.
    """
    _check_pair(scores1, scores2, "the two views' scores")
    _check_temperature(temperature)
    first = _cross_entropy(sinkhorn(scores2, epsilon, iterations), scores1, temperature)
    second = _cross_entropy(sinkhorn(scores1, epsilon, iterations), scores2, temperature)
    return (first + second) / 2


def dino(student, teacher, centre, student_temperature, teacher_temperature):
    """The student's softmax must match the teacher's sharper, centred one.

    Args:
        student: logits of one view, shape (N, K).
        teacher: the momentum network's logits of the other view, shape (N, K); no gradient flows into them.
        centre: running mean of the teacher's logits, shape (K,), which keeps one output from winning always.
        student_temperature: > 0; 0.1 is usual.
        teacher_temperature: > 0, lower than the student's; 0.04 to 0.07 is usual.

    Returns:
        Scalar float32, in nats. Equal logits give log K.

    Raises:
        ValueError: a temperature is not > 0, or the shapes differ.

    Source: Caron et al. 2021, arXiv:2104.14294, eq. 2 and algorithm 1.
    """
    _check_pair(student, teacher, "the student's and the teacher's logits")
    if tuple(centre.shape) != (teacher.shape[1],):
        raise ValueError(f"the centre must have the shape ({teacher.shape[1]},), not {tuple(centre.shape)}")
    _check_temperature(student_temperature)
    _check_temperature(teacher_temperature)
    teacher = ops.stop_gradient(ops.cast(teacher, "float32"))
    targets = ops.softmax((teacher - ops.cast(centre, "float32")) / teacher_temperature, axis=-1)
    return _cross_entropy(targets, student, student_temperature)


def _both_views(z1, z2, temperature):
    _check_pair(z1, z2, "the two views")
    _check_temperature(temperature)
    return ops.concatenate([l2_normalize(z1), l2_normalize(z2)], axis=0), ops.shape(z1)[0]


def _log_sum_exp_without(similarities, excluded):
    """Row-wise log Σ exp over the candidates for which `excluded` is 0."""
    # −1e9 vanishes in the softmax and, unlike −inf, has a gradient
    return ops.logsumexp(similarities - 1e9 * excluded, axis=-1)


def _cross_entropy(targets, logits, temperature):
    logits = ops.cast(logits, "float32") / temperature
    return -ops.mean(ops.sum(targets * ops.log_softmax(logits, axis=-1), axis=-1))


def _covariance(z):
    centred = z - ops.mean(z, axis=0, keepdims=True)
    return ops.matmul(ops.transpose(centred), centred) / (ops.cast(ops.shape(z)[0], "float32") - 1.0)


def _check_temperature(temperature):
    # a learned temperature is a variable; only plain numbers can be checked here
    if isinstance(temperature, (int, float)) and not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature must be > 0, not {temperature}")


def _check_weights(**weights):
    for name, weight in weights.items():
        if not (weight >= 0 and math.isfinite(weight)):
            raise ValueError(f"{name} must be ≥ 0, not {weight}")


def _check_rows(z):
    if len(z.shape) != 2:
        raise ValueError(f"embeddings must have the shape (N, D), not {tuple(z.shape)}")


def _check_pair(a, b, what):
    if len(a.shape) != 2 or tuple(a.shape) != tuple(b.shape):
        raise ValueError(f"{what} must have the same shape (N, D), not {tuple(a.shape)} and {tuple(b.shape)}")
