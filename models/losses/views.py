"""Several views of each image: apart, and in pairs."""

from __future__ import annotations

from functools import reduce
from itertools import pairwise
from operator import add
from typing import Any

from keras import ops


def split_views(rows, views: int) -> tuple[Any, ...]:
    """First views, second views and so on: (views · N, …) → `views` arrays (N, …)."""
    n = ops.shape(rows)[0] // views
    # by slices as of two views, rows[:n] and rows[n:]: with ops.split compilers round their means in another way
    cuts = [None, *(n * view for view in range(1, views)), None]
    return tuple(rows[start:end] for start, end in pairwise(cuts))


def over_pairs(loss, one, other, both_ways: bool = True):
    """Mean of a loss of two views over all pairs of different views of an image.

    Args:
        loss: function of two arrays (N, D) that gives a scalar.
        one, other: of two kinds of embedding, such as predictions and targets, an array (N, D) for each view; where
            `other` has fewer, the further views of `one` meet those, and are met by nothing.
        both_ways: of views a < b both loss(one[a], other[b]) and loss(one[b], other[a]); else the first alone.

    Returns:
        Scalar: of two views the mean of loss(one[0], other[1]) and loss(one[1], other[0]), or the first of them.

    Source: Tian et al. 2020, arXiv:1906.05849: the "full graph" of views (the mean instead of the sum); where
    `other` has two, the multi-crop of Caron et al. 2020, arXiv:2006.09882, section 3.2.
    """
    found = [
        loss(first, second)
        for a, first in enumerate(one)
        for b, second in enumerate(other)
        if a < b or (both_ways and a > b)
    ]
    return reduce(add, found) / len(found)
