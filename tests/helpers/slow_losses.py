"""The papers' equations, transcribed literally in loops and float64: slow, and independent of `models.losses`.

Where a paper sums over the images, these take the mean, as `models.losses` says it does. Logarithms of sums of
exponentials are taken with the largest term outside, because exp(100) leaves the floats' precision.
"""

from __future__ import annotations

import math

import numpy as np


def dot(a, b):
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def cosine(a, b):
    return dot(a, b) / (math.sqrt(dot(a, a)) * math.sqrt(dot(b, b)))


def log_sum_exp(terms):
    largest = max(terms)
    return largest + math.log(sum(math.exp(term - largest) for term in terms))


def mean(terms):
    terms = list(terms)
    return sum(terms) / len(terms)


def nt_xent(z1, z2, temperature, more=()):
    """Equation 1 and algorithm 1 of arXiv:2002.05709: views 2k − 1 and 2k belong together.

    Of more than two views equation 2 of arXiv:2004.11362, each image a class of its own.
    """
    n = len(z1)
    if more:
        return sup_con(np.concatenate([z1, z2, *more]), [*range(n)] * (2 + len(more)), temperature)
    z = np.empty((2 * n, z1.shape[1]))
    z[0::2], z[1::2] = z1, z2

    def s(i, j):
        return cosine(z[i], z[j]) / temperature

    def loss(i, j):
        return log_sum_exp([s(i, k) for k in range(2 * n) if k != i]) - s(i, j)

    return sum(loss(2 * k, 2 * k + 1) + loss(2 * k + 1, 2 * k) for k in range(n)) / (2 * n)


def cross_view_nt_xent(z1, z2, temperature):
    """Figure 3 of arXiv:2103.00020: the labels are 0 … N − 1 along each axis of the logits; both are averaged."""
    n = len(z1)
    logits = [[cosine(z1[i], z2[j]) / temperature for j in range(n)] for i in range(n)]
    rows = mean(log_sum_exp(logits[i]) - logits[i][i] for i in range(n))
    columns = mean(log_sum_exp([logits[j][i] for j in range(n)]) - logits[i][i] for i in range(n))
    return (rows + columns) / 2


def dcl(z1, z2, temperature, more=()):
    """Equation 6 of arXiv:2110.06848: of all views k, every embedding of every other image in the denominator.

    A view of an image that has several others has the mean over these.
    """
    n, views = len(z1), (z1, z2, *more)

    def loss(i, k):
        others = [cosine(views[k][i], view[j]) / temperature for view in views for j in range(n) if j != i]
        same = mean(cosine(views[k][i], views[p][i]) / temperature for p in range(len(views)) if p != k)
        return -same + log_sum_exp(others)

    return mean(loss(i, k) for k in range(len(views)) for i in range(n))


def nnclr_one_way(nn1, z2, temperature):
    """Equation 3 of arXiv:2104.14548: a neighbour among the other views of the batch."""
    n = len(nn1)
    return mean(
        log_sum_exp([cosine(nn1[i], z2[k]) / temperature for k in range(n)]) - cosine(nn1[i], z2[i]) / temperature
        for i in range(n)
    )


def nnclr(nn1, z2, temperature):
    """Equation 3 and the term that section 3.2 adds: the denominator over the neighbours, not the views."""
    n = len(nn1)
    added = mean(
        log_sum_exp([cosine(nn1[k], z2[i]) / temperature for k in range(n)]) - cosine(nn1[i], z2[i]) / temperature
        for i in range(n)
    )
    return (nnclr_one_way(nn1, z2, temperature) + added) / 2


def sup_con(z, labels, temperature):
    """Equation 2 of arXiv:2004.11362 over the labelled rows I; anchors without a positive add nothing."""
    rows = [i for i, label in enumerate(labels) if label != -1]
    losses = []
    for i in rows:
        others = [a for a in rows if a != i]
        positives = [p for p in others if labels[p] == labels[i]]
        if positives:
            denominator = log_sum_exp([cosine(z[i], z[a]) / temperature for a in others])
            terms = [cosine(z[i], z[p]) / temperature - denominator for p in positives]
            losses.append(-sum(terms) / len(positives))
    return mean(losses) if losses else 0.0


def moco(queries, keys, queue, temperature):
    """Equation 1 of arXiv:1911.05722: the sum is over one positive and K negatives."""

    def loss(q, positive):
        logits = [cosine(q, k) / temperature for k in [positive, *queue]]
        return log_sum_exp(logits) - logits[0]

    return mean(loss(q, k) for q, k in zip(queries, keys, strict=True))


def moco_v3(queries, keys, temperature):
    """`ctr` in algorithm 1 of arXiv:2104.02057."""
    n = len(queries)
    logits = [[cosine(q, k) / temperature for k in keys] for q in queries]
    return 2 * temperature * mean(log_sum_exp(logits[i]) - logits[i][i] for i in range(n))


def negative_cosine(p, z):
    """Equation 1 of arXiv:2011.10566."""
    return mean(-cosine(p[i], z[i]) for i in range(len(p)))


def byol(p, z):
    """Equation 2 of arXiv:2006.07733, its left side: the distance of what has been normalised."""

    def loss(q, target):
        q, target = q / math.sqrt(dot(q, q)), target / math.sqrt(dot(target, target))
        return sum((a - b) ** 2 for a, b in zip(q, target, strict=True))

    return mean(loss(p[i], z[i]) for i in range(len(p)))


def barlow_twins(z1, z2, off_diagonal):
    """Equations 1 and 2 of arXiv:2103.03230; the embeddings are centred along the batch first."""
    n, width = z1.shape
    a = np.array([[z1[b, i] - mean(z1[:, i]) for i in range(width)] for b in range(n)])
    b = np.array([[z2[b, i] - mean(z2[:, i]) for i in range(width)] for b in range(n)])

    def c(i, j):
        return dot(a[:, i], b[:, j]) / (math.sqrt(dot(a[:, i], a[:, i])) * math.sqrt(dot(b[:, j], b[:, j])))

    invariance = sum((1 - c(i, i)) ** 2 for i in range(width))
    redundancy = sum(c(i, j) ** 2 for i in range(width) for j in range(width) if j != i)
    return invariance + off_diagonal * redundancy


def vicreg(z1, z2, invariance=25.0, variance=25.0, covariance=1.0):
    """Equations 1 to 6 of arXiv:2105.04906, with γ = 1, ε = 0.0001 and the unbiased variance, as in algorithm 1.

    Scaled as the authors' program: s is also divided by D, and v is halved.
    """
    n, width = z1.shape

    def c(z, i, j):
        middle_i, middle_j = mean(z[:, i]), mean(z[:, j])
        return sum((z[b, i] - middle_i) * (z[b, j] - middle_j) for b in range(n)) / (n - 1)

    def spread(z):
        return mean(max(0, 1 - math.sqrt(c(z, j, j) + 0.0001)) for j in range(width))

    def redundancy(z):
        return sum(c(z, i, j) ** 2 for i in range(width) for j in range(width) if i != j) / width

    distance = mean(sum((z1[b] - z2[b]) ** 2) for b in range(n))
    return (
        invariance * distance / width
        + variance * (spread(z1) + spread(z2)) / 2
        + covariance * (redundancy(z1) + redundancy(z2))
    )


def sinkhorn(scores, epsilon, iterations):
    """Equation 5 of arXiv:2006.09882: exp(scores / ε), scaled to the marginals of equation 4 in turn.

    As in listing 1 of its appendix: the prototypes first; at last each image's assignment sums to 1.
    """
    n, count = scores.shape
    q = np.array([[math.exp((scores[b, k] - scores.max()) / epsilon) for b in range(n)] for k in range(count)])
    for _ in range(iterations):
        for k in range(count):
            q[k] *= (1 / count) / sum(q[k])
        for b in range(n):
            q[:, b] *= (1 / n) / sum(q[:, b])
    return np.array([[q[k, b] * n for k in range(count)] for b in range(n)])


def swav_to(targets1, targets2, scores1, scores2, temperature, more=()):
    """Equations 1, 2 and 6 of arXiv:2006.09882 for given assignments, averaged over all that is predicted."""

    def loss(scores, targets):
        return mean(
            -sum(q * (s / temperature - log_sum_exp(row / temperature)) for q, s in zip(target, row, strict=True))
            for target, row in zip(targets, scores, strict=True)
        )

    views = (scores1, scores2, *more)
    return mean(loss(views[v], (targets1, targets2)[i]) for i in range(2) for v in range(len(views)) if v != i)


def swav(scores1, scores2, temperature, epsilon=0.05, iterations=3, more=()):
    targets = [sinkhorn(scores, epsilon, iterations) for scores in (scores1, scores2)]
    return swav_to(*targets, scores1, scores2, temperature, more)


def dino(student, teacher, centre, student_temperature, teacher_temperature):
    """`H` in algorithm 1 of arXiv:2104.14294: minus the sum of softmax((t − C) / tpt) · log softmax(s / tps)."""
    losses = []
    for s, t in zip(student, teacher, strict=True):
        s, t = s / student_temperature, (t - centre) / teacher_temperature
        losses.append(-sum(math.exp(t[k] - log_sum_exp(t)) * (s[k] - log_sum_exp(s)) for k in range(len(s))))
    return mean(losses)
